"""Packages beyond requirements.txt, asked for in one sentence."""

import importlib.util
import sys

PINS = "requirements-export.txt"


def missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def needs(package: str, what: str) -> None:
    """Raises ValueError where `package` is not installed."""
    if missing(package):
        raise ValueError(
            f"{what} needs the package {package}, which is not installed; install it with {sys.executable} -m pip install -r "
            f"{PINS}."
        )
