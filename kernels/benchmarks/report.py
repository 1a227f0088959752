"""Results to the terminal, to CSV and JSON, and as plots."""

import csv
import json
import platform
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from .contest import Contest, Result

PHASES = ("forward", "backward", "both")


def quantile(values: list[float], share: float) -> float:
    """Linear between the order statistics."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    return ordered[low] + (position - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def rows(results: list[Result]) -> list[dict]:
    """One dictionary for each result and phase; a refused result gives one row without numbers."""
    table = []
    for result in results:
        contest = result.contest
        common = {
            "operator": contest.operator,
            "variant": contest.variant,
            **{size: contest.shape.get(size) for size in "BHNKTEV"},
            "dtype": str(contest.dtype).removeprefix("torch."),
            "contestant": result.contestant.name,
            "ours": result.contestant.ours,
            "error": result.error,
            "refused": result.refused,
        }
        if result.refused:
            table.append(common)
            continue
        for phase in PHASES:
            times = getattr(result, phase)
            if not times or (phase == "both" and not result.backward):
                continue
            work = {"forward": contest.flops, "backward": contest.backward_flops}
            flops = work.get(phase, sum(work.values()))
            middle = statistics.median(times)
            table.append(
                common
                | {
                    "phase": phase,
                    "rounds": len(times),
                    "median_ms": middle,
                    "q20_ms": quantile(times, 0.2),
                    "q80_ms": quantile(times, 0.8),
                    "gflop_per_s": flops / middle / 1e6,
                    "gb_per_s": contest.bytes_moved / middle / 1e6 if phase == "forward" else None,
                    "peak_mib": result.peak_mib,
                }
            )
    return table


def print_contest(console: Console, contest: Contest, results: list[Result], bound_ms: float | None = None) -> None:
    """One table: median times, their ratio to the baseline, rate, memory; bound_ms is the GPU's for forward."""
    table = Table(title=contest.name, title_justify="left")
    for column in ("", "forward ms", "backward ms", "both ms", "20-80%", "ratio", "GFLOP/s", "peak MiB", "error"):
        table.add_column(column, justify="left" if not column else "right")
    baseline = next((r for r in results if r.contestant.name == contest.baseline and not r.refused), None)
    for result in results:
        name = f"[bold]{result.contestant.name}[/bold]" if result.contestant.ours else result.contestant.name
        if result.refused:
            style = "bold red" if result.refused.startswith("WRONG") else "dim"
            table.add_row(name, f"[{style}]{result.refused[:48]}[/{style}]", *[""] * 7)
            continue
        # Where a backward exists on both sides the whole step is compared, else the forward.
        whole = bool(result.backward) and (baseline is None or bool(baseline.backward))
        times = result.both if whole else result.forward
        middle = statistics.median(times)
        compared = statistics.median(baseline.both if whole else baseline.forward) if baseline else None
        flops = contest.flops + (contest.backward_flops if whole else 0)
        table.add_row(
            name,
            f"{statistics.median(result.forward):.2f}",
            f"{statistics.median(result.backward):.2f}" if result.backward else "-",
            f"{statistics.median(result.both):.2f}" if result.backward else "-",
            f"{quantile(times, 0.2):.2f}-{quantile(times, 0.8):.2f}",
            f"{middle / compared:.2f}x" if compared else "",
            f"{flops / middle / 1e6:.0f}",
            "" if result.peak_mib is None else f"{result.peak_mib:.0f}",
            f"{result.error:.0e}",
        )
    console.print(table)
    if bound_ms is not None:
        ours = next((r for r in results if r.contestant.ours and not r.refused), None)
        if ours is not None:
            measured = statistics.median(ours.forward)
            console.print(
                f"  forward: {measured:.3f} ms measured, {bound_ms:.3f} ms calculated bound ({bound_ms / measured:.0%})"
            )


def write(out: Path, results: list[Result], roofline: list[dict]) -> None:
    """bench.csv, bench.json with the machine, and a plot for every operator."""
    out.mkdir(parents=True, exist_ok=True)
    table = rows(results)
    columns = list(dict.fromkeys(column for row in table for column in row))
    with (out / "bench.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)
    (out / "bench.json").write_text(
        json.dumps({"machine": machine(), "results": table, "roofline (calculated)": roofline}, indent=1)
    )
    for operator in dict.fromkeys(r.contest.operator for r in results):
        _plot(out / f"{operator}.png", operator, [r for r in results if r.contest.operator == operator])


def machine() -> dict:
    """Where and with what the numbers were made."""
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root)]
    revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    cuda = torch.cuda.is_available()
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "git": revision + (" with changes" if changed else ""),
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "triton")},
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _plot(path: Path, operator: str, results: list[Result]) -> None:
    """Bars of the whole step (or the forward where there is no backward), one group for each contest."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    contests = list(dict.fromkeys(r.contest.name for r in results))
    names = list(dict.fromkeys(r.contestant.name for r in results))
    height = 0.8 / len(names)
    figure, axes = plt.subplots(figsize=(9, 1 + 0.16 * len(contests) * len(names)))
    for index, name in enumerate(names):
        for position, contest in enumerate(contests):
            for result in results:
                if (result.contestant.name, result.contest.name) == (name, contest) and not result.refused:
                    times = result.both if result.backward else result.forward
                    axes.barh(
                        position + index * height,
                        statistics.median(times),
                        height,
                        xerr=[
                            [statistics.median(times) - quantile(times, 0.2)],
                            [quantile(times, 0.8) - statistics.median(times)],
                        ],
                        color=f"C{index}",
                        alpha=1.0 if result.contestant.ours else 0.55,
                        hatch="" if result.backward else "//",
                    )
    axes.set_yticks([position + 0.4 - height / 2 for position in range(len(contests))], contests, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds, median and 20-80%; forward + backward (hatched: forward alone)")
    axes.legend([plt.Rectangle((0, 0), 1, 1, color=f"C{i}") for i in range(len(names))], names, fontsize=7)
    axes.set_title(operator)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
