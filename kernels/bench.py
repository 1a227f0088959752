"""Microbenchmarks of every operator against what one would use instead.

    python -m kernels.bench                       everything; a quarter of an hour on two cores
    python -m kernels.bench --quick               a minute
    python -m kernels.bench --operators linear_cross_entropy

Contestants take turns within each round, in random order, so that a busy machine slows all alike. A contestant whose
small check against float64 fails gets no number, and the command fails. On a CPU the GPU's side is a calculation
(`kernels.roofline`), printed as such; on a GPU it stands beside the measured time. Results: runs/bench/.
"""

import importlib
import sys
import time
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console

from . import roofline
from .benchmarks import measure, report
from .benchmarks.contest import Contest, Result

Operator = Literal["attention", "linear_cross_entropy", "one_sided"]


def main(
    operators: tuple[Operator, ...] = ("attention", "linear_cross_entropy", "one_sided"),
    quick: bool = False,
    rounds: int | None = None,
    only: str = "",
    threads: int | None = None,
    out: Path = Path("runs/bench"),
) -> None:
    """Measure.

    Args:
        operators: which of them.
        quick: the first shapes, few rounds, nothing compiled.
        rounds: rounds of each contest; 5 (2 with --quick) on a CPU, 50 (10) on a GPU.
        only: part of the name of a contest, such as "exclude_self" or "V=16384".
        threads: CPU threads; all by default.
        out: folder of bench.csv, bench.json and the plots.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rounds = (
        rounds or {("cpu", False): 5, ("cpu", True): 2, ("cuda", False): 50, ("cuda", True): 10}[device.type, quick]
    )
    console = Console(width=150)
    results: list[Result] = []
    started = time.perf_counter()
    with measure.threads(threads):
        console.print(", ".join(f"{k} {v}" for k, v in report.machine().items() if v))
        for operator in operators:
            module = importlib.import_module(f"kernels.benchmarks.{operator}")
            for contest in module.contests(device, quick):
                if only in contest.name:
                    found = measure.run_contest(contest, device, rounds)
                    report.print_contest(console, contest, found, _bound(contest))
                    results += found
        calculated = [] if device.type == "cuda" else roofline.print_table(Console(width=210))
        report.write(out, results, calculated)
    console.print(f"{time.perf_counter() - started:.0f} s; {out}/bench.csv, bench.json and plots")
    wrong = [r for r in results if r.refused.startswith("WRONG")]
    for result in wrong:
        console.print(f"[bold red]no number for {result.contest.name} by {result.contestant.name}: {result.refused}")
    sys.exit(bool(wrong))


def _bound(contest: Contest) -> float | None:
    """Milliseconds that the chip of this machine needs at least for the forward, where its peaks are known."""
    chip = roofline.chip_here()
    if chip is None:
        return None
    shape = contest.shape
    if contest.operator == "one_sided":  # memory alone
        return contest.bytes_moved / chip.bandwidth * 1e3
    if contest.operator == "linear_cross_entropy":
        work = roofline.linear_cross_entropy_work(shape["T"], shape["E"], shape["V"], contest.variant)
    else:
        prefix = {"two_stream_attention": "two_stream-", "attention": ""}.get(contest.operator)
        variant = "union" if prefix is None else prefix + contest.variant
        work = roofline.attention_work(variant, shape["B"], shape["H"], shape["N"], shape["K"], "forward")
    return roofline.bound(work, chip)["bound_ms"]


if __name__ == "__main__":
    tyro.cli(main)
