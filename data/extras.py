"""Packages beyond requirements.txt, asked for in one sentence."""

import importlib.util

PINS = "requirements-export.txt"


def missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def needs(package: str, what: str) -> None:
    """Raises ValueError where `package` is not installed."""
    if missing(package):
        raise ValueError(
            f"{what} needs the package {package}, which is not installed; install it with pip install -r {PINS}."
        )
