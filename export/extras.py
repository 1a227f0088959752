"""What an export needs beyond requirements.txt, asked for in one sentence."""

import importlib.util

PINS = "requirements-export.txt"


def needs(package: str, what: str) -> None:
    """Raises ValueError where `package` is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{what} needs the package {package}, which is not installed; install it with pip install -r {PINS}."
        )
