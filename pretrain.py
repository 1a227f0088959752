"""Pretrain masked language models side by side under one budget and say which learned more.

    python pretrain.py                                          ours against vanilla, with and without our trick
    python pretrain.py --architectures tta vanilla:masking_rate=0.15 --budget 2e13flop --corpus my/texts
    python pretrain.py --resume runs/NAME                       continue exactly where it stopped
    python pretrain.py --dry-run                                sizes, arithmetic, memory, steps; trains nothing
    python pretrain.py --plan --size base --tokens 100B --gpu h100 --count 64       what a large run would need (--plan --help)
    torchrun --nproc-per-node=2 pretrain.py --accumulate 2      the same run over several processes or devices

The method: every model gets the same budget, data order, tokenizer and held-out tokens. They train in turns of a few seconds,
so that other work on the machine slows all alike; next is always the one that has spent the smallest share of its budget. Along
the way each is measured with the same yardstick, leave-one-out prediction of held-out tokens.
"""

import os

# Before torch loads OpenMP: how long a thread that waits for the others spins before it sleeps. As fast as the default on
# a quiet machine, and many times faster when another process wants the cores too.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from data.files import user_path
from data.prepare import prepare
from report.page import REFRESH, write_progress, write_report
from training import plan as plan_module
from training.config import PretrainConfig
from training.display import Display, steady_console
from training.dry_run import dry_run
from training.examples import write_examples
from training.machine import MEMORY_ADVICE, keep_freed_memory, out_of_memory
from training.plan import PlanConfig, plan
from training.race import Interrupt, race
from training.ranks import ALONE, Ranks
from training.run import Run


@dataclass(frozen=True)
class Command:
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = field(default_factory=PretrainConfig)
    resume: Path | None = None
    """Continue the run in this folder, with the configuration that it was started with."""
    dry_run: bool = False
    """Print parameters, FLOPs per token, memory and the expected steps, and train nothing."""


def main() -> int:
    console, errors, ranks = steady_console(), steady_console(stderr=True), ALONE
    try:
        ranks = Ranks.of_environment()
        console.quiet = errors.quiet = not ranks.first
        if "--plan" in sys.argv[1:]:
            plan(tyro.cli(PlanConfig, description=plan_module.__doc__), console)
            return 0
        # Before the options are read: one that does not act must not be answered for what it would mean in a new run.
        if others := options_beside_resume(sys.argv[1:]):
            raise ValueError(
                f"--resume continues a run with its own configuration; drop {', '.join(others)}, or start a new run with it."
            )
        command = tyro.cli(Command, description=__doc__)
        folder = None if command.resume is None else user_path(command.resume)
        if command.dry_run:
            dry_run(command.config if folder is None else PretrainConfig.load(folder), console)
            return 0
        keep_freed_memory()
        run = begin(command.config, folder, ranks)
        try:
            code = compete(run, console, errors)
        finally:
            run.close()
        ranks.leave()
        return code
    except (ValueError, OSError) as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not ranks.alone and not out_of_memory(error):
            errors.quiet = False
            reason = str(error).splitlines()[0][:200]
            errors.print(
                f"[bold red]error[/]: rank {ranks.rank} lost the other processes of this run ({escape(reason)}); what was saved "
                "is kept. Continue with the same command and --resume FOLDER.",
                soft_wrap=True,
            )
            return 2
        if not out_of_memory(error):
            raise
        errors.print(f"[bold red]error[/]: out of memory; {MEMORY_ADVICE}.", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped at once; what was saved before is kept.")
        return 130


def compete(run: Run, console: Console, errors: Console) -> int:
    """Train to the end, or until a signal, and report. Returns the exit code."""
    for note in run.notes:
        console.print(f"[yellow]note[/]: {escape(note)}", soft_wrap=True)
    with Display(run.contestants, console) as display:
        finished = race(run, display, Interrupt(), progress_of(run.folder))
    run.gather()
    if not run.ranks.first:
        return 0 if finished else 130
    if not finished:
        return stopped(run, console, errors)
    run.write_records()
    write_examples(run)
    write_report(run.folder, console)
    return 1 if any(c.progress.diverged is not None for c in run.contestants) else 0


def begin(config: PretrainConfig, folder: Path | None, ranks: Ranks) -> Run:
    """The run, new or continued, on every rank. Rank 0 prepares the corpus before it meets the others, and makes the folder."""
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if folder is None and restarted:  # torchrun repeats the first command
        if not config.name:
            raise ValueError("torchrun started this run again and cannot know its folder; give it a --name.")
        named = user_path(config.runs) / config.name
        folder = named if (named / "run.json").exists() else None
    config = config if folder is None else PretrainConfig.load(folder)
    ranks.check(config.accumulate, config.workers, config.shard, config.compile)
    if ranks.alone:
        return Run.start(config) if folder is None else Run.resume(folder)
    if ranks.first:
        prepare(config.data)
    ranks.join()
    if ranks.first:
        run = Run.start(config, ranks) if folder is None else Run.resume(folder, ranks=ranks)
    where = Path(ranks.share(str(run.folder) if ranks.first else ""))
    return run if ranks.first else Run.resume(where, ranks=ranks)


def progress_of(folder: Path) -> Callable[[], None]:
    """Writes the report of the race that runs, at most as often as a browser looks; what fails there ends no training."""
    written = [-math.inf]

    def write() -> None:
        if time.monotonic() - written[0] >= REFRESH:
            with contextlib.suppress(Exception):
                write_progress(folder)
            written[0] = time.monotonic()

    return write


def options_beside_resume(arguments: list[str]) -> list[str]:
    """Options that were given together with --resume and do not act, whatever their values are; none without --resume."""
    names = [argument.partition("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")]
    others = [name for name in names if name not in ("--resume", "--dry-run", "--no-dry-run", "--help")]
    return others if "--resume" in names else []


def stopped(run: Run, console: Console, errors: Console) -> int:
    """Say that the run stopped, and which contestants are not saved, after checking each."""
    lost = [f"{c.label} (seed {c.seed})" for c in run.contestants if not run.saved(c)]
    with contextlib.suppress(Exception):
        write_progress(run.folder, refreshed=False)
    if lost:
        errors.print(
            f"[bold red]error[/]: stopped, and not saved as far as it came: {escape(', '.join(lost))}.", soft_wrap=True
        )
    else:
        console.print("Stopped and saved.")
    console.print("Continue with either of:")
    console.print(f"  make pretrain RESUME={run.folder}\n  python pretrain.py --resume {run.folder}", soft_wrap=True)
    return 130


if __name__ == "__main__":
    sys.exit(main())
