"""Contestants at several budgets, on every measure, from one or several runs' records.

    python -m report.shares RUN ... [--picture FILE]

Three tables: what each contestant reached at each budget, on test; paired differences of the first one from the others at equal
budgets; and the share of a rival's budget with which the first one is as good, linear in the logarithm of the budget between
neighbouring points of one seed. Contestants are the same where their models and optimisers are, whatever a run calls them. Their
shapes need not be equal: each is the one that was entered. Notes name what is left out: seeds that are not finished, and where a
contestant and seed stand in several runs all but the first. Runs of different precision are read together with --any-precision
alone.

± is the standard deviation of seeds, and in differences half of a 95% interval that holds seeds and documents.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from data.statistics import Spread, paired_difference
from report import plots
from report.command import Runs, command
from report.page import markdown_table
from report.records import check_alike, identity
from report.summary import Results, first_reached

Reached = dict[str, dict[float, dict[int, dict[str, Any]]]]
"""By name, budget in FLOPs and seed: the last record."""

MEASURES = {
    "leave-one-out, nats a token": ("final", "nll", "clusters"),
    "whole words, bits a character": ("words", "bits_per_character", "clusters"),
    "by the chain rule, bits a character": ("words", "chain", "chain_clusters"),
}


@dataclass(frozen=True)
class SharesConfig(Runs):
    against: tuple[str, ...] = ()
    """Contestants that the first one is compared with, and that are drawn beside it; by default all others."""

    any_precision: bool = False
    """Read runs of different precision together."""

    picture: Path | None = None
    """A PNG file to draw quality against budget into."""


def collected(folders: Sequence[Path], *, any_precision: bool = False) -> tuple[Reached, list[str]]:
    """All seeds that have finished, of all runs, and notes. Raises ValueError where runs are not alike."""
    runs = [Results.load(folder) for folder in folders]
    for other in runs[1:]:
        check_alike(runs[0], other, but=["precision"] if any_precision else [])
    precisions = {
        str(folder): str(results.facts.get("precision")).removeprefix("torch.")
        for folder, results in zip(folders, runs)
    }
    notes = []
    if len(set(precisions.values())) > 1:
        notes.append(f"Precision differs: {', '.join(f'{folder} {name}' for folder, name in precisions.items())}.")
    found: Reached = {}
    names: dict[str, str] = {}
    for results, folder in zip(runs, folders):
        for label, curves in results.curves.items():
            ends = {seed: curve[-1] for seed, curve in curves.items() if curve and curve[-1]["final"]}
            lost = [str(seed) for seed in curves if seed not in ends]
            if lost:
                notes.append(f"{label}, seed {', '.join(lost)}, is not finished in {folder} and left out.")
            if not ends:
                continue
            facts = results.facts["contestants"][label]
            name = names.setdefault(identity(facts), facts["family"])
            if sum(other == name for other in names.values()) > 1:
                raise ValueError(
                    f"{folder}: {name} is another model there than in the runs before it; give one of them another name."
                )
            for seed, end in ends.items():
                at = found.setdefault(name, {}).setdefault(nominal(end["flops"]), {})
                if seed in at:
                    notes.append(f"{name}, seed {seed}, stands in {folder} too; the earlier run counts.")
                else:
                    at[seed] = end
    return found, notes


def nominal(flops: float) -> float:
    """The budget of a contestant that ended within a step of it: two digits."""
    return float(f"{flops:.1e}")


def value(record: dict[str, Any], measure: str) -> float | None:
    part, name, _ = MEASURES[measure]
    return None if record.get(part) is None else record[part][name]


def share(ours: dict[float, dict[int, dict]], theirs: dict[int, dict], budget: float, measure: str) -> str:
    """Mean and deviation of seeds; a bound for all if one is there at its smallest budget; a dash if one never gets there."""
    shares, bound = [], False
    for seed, record in theirs.items():
        target = value(record, measure)
        curve = [
            (math.log(b), v)
            for b, seeds in sorted(ours.items())
            if b <= budget and seed in seeds and (v := value(seeds[seed], measure)) is not None
        ]
        reached = None if target is None or not curve else first_reached(curve, target)
        if reached is None:
            return "-"
        bound = bound or (target is not None and curve[0][1] <= target)
        shares.append(math.exp(reached) / budget)
    return f"under {max(shares):.2f}" if bound else Spread.of(shares).text(".2f")


def tables(found: Reached, against: Sequence[str] = ()) -> str:
    """Raises ValueError for a name that is not there."""
    if unknown := [name for name in against if name not in found]:
        raise ValueError(f"No contestant is {', '.join(unknown)}; there are {', '.join(found)}.")
    if not found:
        raise ValueError("No contestant has finished in these runs.")
    first = next(iter(found))
    rivals = list(against) or [name for name in found if name != first]
    rows = []
    for name, budgets in found.items():
        for budget, seeds in sorted(budgets.items()):
            cells = [[v for r in seeds.values() if (v := value(r, m)) is not None] for m in MEASURES]
            told = [Spread.of(values).text() if values else "-" for values in cells]
            read = sum(r["tokens"] for r in seeds.values()) / len(seeds)
            rows.append([name, f"{budget:.1e}", str(len(seeds)), *told, f"{read / 1e6:.1f} M"])
    lines = markdown_table(("", "FLOP", "seeds", *MEASURES, "tokens read"), rows)
    differences, shares = [], []
    for rival in rivals:
        for budget, theirs in sorted(found[rival].items()):
            common = sorted(found[first].get(budget, {}).keys() & theirs.keys())
            told = []
            for part, _, clusters in MEASURES.values():
                pairs = [
                    (ours[part][clusters], theirs[seed][part][clusters])
                    for seed in common
                    if (ours := found[first][budget][seed]).get(part) and theirs[seed].get(part)
                ]
                told.append(paired_difference(pairs).text() if pairs else "-")
            if common:
                differences.append([f"{first} - {rival}", f"{budget:.1e}", str(len(common)), *told])
            shares.append([rival, f"{budget:.1e}", *(share(found[first], theirs, budget, m) for m in MEASURES)])
    lines += markdown_table(("difference", "FLOP", "seeds", *MEASURES), differences)
    lines += markdown_table((f"{first} is as good as", "FLOP", *(f"share, {m}" for m in MEASURES)), shares)
    return "\n".join(lines)


def figure(found: Reached) -> Figure:
    """A panel for each measure, a line for each contestant over its budgets: mean, and the deviation of seeds as a bar."""
    ends = {name: next(iter(next(iter(budgets.values())).values())) for name, budgets in found.items()}
    masked = [name for name, end in ends.items() if end["architecture"] == "vanilla"]
    greys = dict(zip(masked, plots.GREYS * len(masked)))
    colours = dict(zip((name for name in found if name not in masked), plots.COLOURS * len(found))) | greys
    with plt.rc_context(plots.STYLE):
        drawn, panels = plt.subplots(1, len(MEASURES), figsize=(4.2 * len(MEASURES), 3.8), layout="constrained")
        for axes, measure in zip(panels, MEASURES):
            for marker, (name, budgets) in zip(plots.MARKERS * len(found), found.items()):
                at = {
                    b: [v for r in seeds.values() if (v := value(r, measure)) is not None]
                    for b, seeds in budgets.items()
                }
                points = [(budget, Spread.of(values)) for budget, values in sorted(at.items()) if values]
                if points:
                    means, errors = [s.mean for _, s in points], [s.deviation or 0.0 for _, s in points]
                    axes.errorbar(
                        [b for b, _ in points], means, errors, fmt=f"-{marker}", ms=4, color=colours[name], label=name
                    )
            axes.set(title=measure, xlabel="training FLOPs", xscale="log")
        handles, names = panels[0].get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside upper center", ncols=2)
    return drawn


def make(config: SharesConfig) -> None:
    found, notes = collected(config.runs, any_precision=config.any_precision)
    print("\n".join([tables(found, config.against), *notes]))
    if config.picture is not None:
        drawn = [next(iter(found)), *config.against] if config.against else list(found)
        config.picture.write_bytes(plots.as_png(figure({name: found[name] for name in drawn})))


def main(arguments: Sequence[str] | None = None) -> int:
    return command("shares", SharesConfig, __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
