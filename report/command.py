"""What the commands of this folder share: folders of runs as arguments, and one sentence for what a user can set right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console
from rich.markup import escape


@dataclass(frozen=True)
class Runs:
    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, or of their records."""


R = TypeVar("R", bound=Runs)


def command(
    name: str, kind: type[R], description: str | None, make: Callable[[R], None], arguments: Sequence[str] | None
) -> int:
    """`make` with a `kind` from the arguments, by default those of `python -m report.NAME`; the exit code, 2 after a sentence."""
    config = tyro.cli(kind, args=arguments, prog=f"python -m report.{name}", description=description)
    try:
        if not config.runs:
            raise ValueError(f"Name one or more folders of runs: python -m report.{name} runs/NAME")
        make(config)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
        return 2
    return 0
