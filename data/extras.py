"""Packages beyond requirements.txt, asked for in one sentence."""

import importlib.util
import sys


def missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def needs(package: str, what: str, pins: str = "requirements-export.txt") -> None:
    """Raises ValueError if `package` is not installed. pins: the requirements file that lists it."""
    if missing(package):
        raise ValueError(
            f"{what} needs the package {package}, which is not installed; install it with {sys.executable} -m pip install -r "
            f"{pins}."
        )
