"""Pretrain masked language models side by side under one budget and say which learned more.

    python pretrain.py                                          T-TA against vanilla on the embedded corpus
    python pretrain.py --architectures tta vanilla:masking_rate=0.15 --budget 2e13flop --corpus my/texts
    python pretrain.py --resume runs/NAME                       continue exactly where it stopped
    python pretrain.py --dry-run                                sizes, arithmetic, memory, steps; trains nothing

The method: every model gets the same budget, data order, tokenizer and held-out tokens. They train in turns of a few
seconds, so that whatever else the machine does hits all alike; whoever has spent the smallest share of its budget is
next. Along the way each is measured with the same yardstick, leave-one-out prediction of held-out tokens.
"""

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape

from eval.examples import write_examples
from eval.report import write_report
from training.config import PretrainConfig
from training.display import Display
from training.dry_run import dry_run
from training.machine import keep_freed_memory
from training.run import Run


@dataclass(frozen=True)
class Command:
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)
    resume: Path | None = None
    """Continue the run in this folder with its own configuration."""
    dry_run: bool = False
    """Print parameters, FLOPs per token, memory and the expected steps, and train nothing."""


class Interrupt:
    """Ctrl-C or SIGTERM: remembered, and acted upon when the slice ends. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.remember)

    def remember(self, number: int, frame: object) -> None:
        self.asked = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def race(run: Run, display: Display, interrupt: Interrupt) -> bool:
    """Train every contestant to the end of its budget. Returns False if interrupted, with all of them saved."""
    for contestant in run.contestants:
        contestant.warm_up()
    while unfinished := [c for c in run.contestants if not c.finished]:
        contestant = min(unfinished, key=lambda c: c.fraction)
        due = run.next_evaluation(contestant)
        contestant.train(run.config.slice_seconds, until=due)
        run.log(contestant, contestant.last)
        if contestant.fraction >= due:
            run.evaluate(contestant)
        display.update(contestant)
        if contestant.finished or run.save_is_due(contestant):
            run.save(contestant)
        if interrupt.asked and not all(c.finished for c in run.contestants):
            for c in run.contestants:
                run.save(c)
            return False
    return True


def main() -> int:
    console = Console()
    try:
        command = tyro.cli(Command, description=__doc__)
        if command.resume is not None and command.config != PretrainConfig():
            raise ValueError("--resume continues a run with its own configuration; drop the other options.")
        if command.dry_run:
            dry_run(command.config, console)
            return 0
        keep_freed_memory()
        run = Run.resume(command.resume) if command.resume is not None else Run.start(command.config)
        for warning in run.warnings:
            console.print(f"[yellow]warning[/]: {escape(warning)} Going on from the checkpoint before it.")
        with Display(run.contestants, console) as display:
            finished = race(run, display, Interrupt())
        run.close()
        if not finished:
            folder = run.folder
            console.print("Stopped and saved. Continue with either of:")
            console.print(f"  make pretrain RESUME={folder}\n  python pretrain.py --resume {folder}", soft_wrap=True)
            return 130
        write_examples(run)
        write_report(run.folder, console)
        return 0
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
        return 2
    except torch.OutOfMemoryError as error:
        memory = "lower --batch-size and raise --accumulate by as much: the result is the same"
        Console(stderr=True).print(f"[bold red]error[/]: out of GPU memory; {memory}. ({escape(str(error))})")
        return 2
    except KeyboardInterrupt:
        console.print("Stopped at once; what was saved before is kept.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
