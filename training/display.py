"""Progress of a run: a live bar for each model on a terminal, plain lines elsewhere."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from typing import IO, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from training.contestant import Contestant

PLAIN_SECONDS = 20.0  # between lines when the output is not a terminal


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Steady(io.TextIOBase):
    """A stream that never fails: what it cannot show is dropped, and the run goes on.

    A closed pipe, a full disk under the log, a terminal that is gone: from the first failure on, all goes nowhere. Characters
    that the terminal lacks are spelt out.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.lost = stream, False
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def isatty(self) -> bool:
        return not self.lost and self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def write(self, text: str) -> int:
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, do: Callable[[], object]) -> None:
        if self.lost:
            return
        try:
            do()
        except (OSError, ValueError):
            self.lost = True
            with contextlib.suppress(OSError, ValueError):  # what is buffered must not fail again when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def steady_console(stderr: bool = False) -> Console:
    return Console(file=cast(IO[str], Steady(sys.stderr if stderr else sys.stdout)))


class Display:
    """Use as a context; call `update` after each slice."""

    def __init__(self, contestants: list[Contestant], console: Console) -> None:
        self.contestants, self.console = contestants, console
        self.bars = Progress(
            TextColumn("{task.fields[label]}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        width = max(len(self.label(c)) for c in contestants)
        self.tasks: dict[int, TaskID] = {
            id(c): self.bars.add_task(
                "", total=1.0, completed=cast(int, c.fraction), label=self.label(c).ljust(width), numbers=""
            )
            for c in contestants
        }
        # The clock starts with what was spent before, so that time left is right after a resume.
        self.start, self.start_fraction, self.printed = time.monotonic(), self.overall(), 0.0

    def label(self, contestant: Contestant) -> str:
        several = len({c.seed for c in self.contestants}) > 1
        return f"{contestant.label} #{contestant.seed}" if several else contestant.label

    def overall(self) -> float:
        """The share of all arithmetic (or seconds, or tokens) that is done: a contestant with a quarter of the budget takes
        a quarter of the time."""
        whole = sum(c.budget.amount for c in self.contestants)
        return sum((1.0 if c.finished else c.fraction) * c.budget.amount for c in self.contestants) / whole

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def update(self, contestant: Contestant) -> None:
        done = self.overall() - self.start_fraction
        elapsed = time.monotonic() - self.start
        left = elapsed / done * (1.0 - self.overall()) if done > 0 else 0.0
        last = contestant.last
        parts = [f"loss {last['loss']:.3f}"] if last else []
        if contestant.progress.history and (curve := contestant.progress.history[-1]["curve"]):
            parts.append(f"leave-one-out {curve['nll']:.3f}")
        if last:
            parts.append(f"{last['tokens_per_second']:,.0f} tokens/s")
        lost = contestant.progress.diverged
        state = "done" if contestant.finished else f"{clock(left)} left in all"
        parts.append(state if lost is None else f"diverged at {lost:.0%} of its budget: its loss is no longer a number")
        numbers = "  ".join(parts)
        self.bars.update(self.tasks[id(contestant)], completed=min(1.0, contestant.fraction), numbers=numbers)
        if not self.console.is_terminal and (time.monotonic() - self.printed > PLAIN_SECONDS or contestant.finished):
            self.printed = time.monotonic()
            share = f"{min(1.0, contestant.fraction):.0%}"
            self.console.print(f"{self.label(contestant)}  {share}  {numbers}", highlight=False, soft_wrap=True)
