"""Does the lead last? Leave-one-out NLL against arithmetic over sizes and budgets, from one or several runs' records.

python -m report.scaling runs/scaling [runs/scaling-seeds ...]      writes scaling.md and scaling.png into the first folder

A kind is an architecture with its options, heads among them; its shapes differ in width and depth. At each budget the shape that
is best on dev counts. A share compares equal sets: of both kinds the shapes that both tried at the baseline's budget.

Curves L(C) = E + A C^-a are fitted to these points, E shared by all kinds: it is what the text itself leaves
uncertain for every model. Their uncertainty is the spread of fits to resampled seeds and residuals. share = C' / C, where a kind
reaches with C' FLOPs the NLL that vanilla reaches with C. C' is interpolated between measured points, and never extrapolated.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.optimize import least_squares

from data.files import write_atomically
from data.statistics import Spread
from report import plots
from report.command import Runs, command
from report.page import markdown_table
from report.records import check_alike
from report.summary import Results, first_reached

DRAWS = 200
_SHAPE = ("budget", "name", "init", "d_model", "n_layers", "n_heads", "d_ff")


def kind_of(facts: dict[str, Any], label: str) -> str:
    """facts.json says it; in older ones it is the label without share and shape."""
    architecture, _, rest = label.partition(":")
    kept = [pair for pair in rest.split(",") if pair and pair.partition("=")[0] not in _SHAPE]
    return facts.get("kind") or ":".join([architecture, ",".join(kept)]).rstrip(":")


def budget_bin(flops: float) -> int:
    """Runs overshoot their budget by up to one step, so budgets within about 6% of each other count as one."""
    return round(20 * math.log10(flops))


@dataclass(frozen=True)
class Point:
    """A kind at a budget in a shape: FLOPs, parameters, NLL on test by seed, and on dev, the mean."""

    flops: float
    parameters: int
    nll: dict[int, float]
    shape: str = ""
    dev: float = 0.0

    @property
    def mean(self) -> float:
        return sum(self.nll.values()) / len(self.nll)


@dataclass(frozen=True)
class Fit:
    """L(C) = floor + scale (C / 1e13)^-exponent; deviations over resampled fits, None where nothing could be resampled."""

    floor: float
    scale: float
    exponent: float
    exponent_deviation: float
    floor_deviation: float

    def at(self, flops: np.ndarray) -> np.ndarray:
        return self.floor + self.scale * (flops / 1e13) ** -self.exponent


def all_points(runs: Sequence[Results]) -> dict[str, list[Point]]:
    """By kind, every finished shape and budget, seeds of all runs together. Equal shapes are joined, however they were written.

    Raises ValueError for runs of different text, tokenizer, yardstick, batch or precision.
    """
    for other in runs[1:]:
        check_alike(runs[0], other)
    found: dict[tuple[str, str, int], tuple[float, int, dict[int, float], dict[int, float]]] = {}
    for results in runs:
        for label in results.finished:
            facts = results.facts["contestants"][label]
            ends = {seed: curve[-1] for seed, curve in results.curves[label].items()}
            flops = sum(end["flops"] for end in ends.values()) / len(ends)
            model = facts["model"]
            kind, shape = kind_of(facts, label), f"{model['d_model']} x {model['n_layers']}, d_ff {model['d_ff']}"
            if model["n_heads"] != max(2, model["d_model"] // 64):  # heads are a setting, and these another than usual
                kind += f" with {model['n_heads']} heads"
            _, _, nll, dev = found.setdefault((kind, shape, budget_bin(flops)), (flops, facts["parameters"], {}, {}))
            nll |= {seed: end["final"]["nll"] for seed, end in ends.items()}
            dev |= {seed: end["dev"]["nll"] for seed, end in ends.items()}
    kinds: dict[str, list[Point]] = {}
    for (kind, shape, _), (flops, parameters, nll, dev) in found.items():
        kinds.setdefault(kind, []).append(Point(flops, parameters, nll, shape, sum(dev.values()) / len(dev)))
    return kinds


def frontier(points: Sequence[Point], shapes: set[str] | None = None) -> list[Point]:
    """The best shape of each budget, by rising budget; of these shapes alone, if some are given."""
    best: dict[int, Point] = {}
    for point in points:
        budget = budget_bin(point.flops)
        if (shapes is None or point.shape in shapes) and (budget not in best or point.dev < best[budget].dev):
            best[budget] = point
    return sorted(best.values(), key=lambda point: point.flops)


def shapes_at(points: Sequence[Point], budget: int) -> set[str]:
    return {point.shape for point in points if budget_bin(point.flops) == budget}


def fit(frontiers: dict[str, list[Point]]) -> dict[str, Fit]:
    """Raises ValueError where there are fewer points than numbers to find."""
    kinds = list(frontiers)
    count = sum(map(len, frontiers.values()))
    if count < 2 * len(kinds) + 1:
        raise ValueError(f"{count} points are too few for {len(kinds)} curves with one floor; run more budgets.")
    x = [np.log([p.flops / 1e13 for p in frontiers[kind]]) for kind in kinds]

    def solve(values: Sequence[np.ndarray]) -> np.ndarray:
        """[floor, log scale and exponent of each kind]."""

        def residuals(theta: np.ndarray) -> np.ndarray:
            curves = [theta[0] + np.exp(theta[1 + 2 * i] - theta[2 + 2 * i] * x[i]) for i in range(len(kinds))]
            return np.concatenate([c - v for c, v in zip(curves, values)])

        lowest = min(v.min() for v in values)
        start = [0.5 * lowest] + [
            n for v in values for n in (math.log(max(0.1, float(np.median(v)) - 0.5 * lowest)), 0.3)
        ]
        low, high = [0.0] + [-9.0, 0.0] * len(kinds), [lowest - 1e-6] + [9.0, 3.0] * len(kinds)
        return least_squares(
            residuals, np.clip(start, np.array(low) + 1e-9, np.array(high) - 1e-9), bounds=(low, high)
        ).x

    means = [np.array([p.mean for p in frontiers[kind]]) for kind in kinds]
    best = solve(means)
    fitted = [best[0] + np.exp(best[1 + 2 * i] - best[2 + 2 * i] * x[i]) for i in range(len(kinds))]
    left = np.concatenate([m - f for m, f in zip(means, fitted)])
    left = left * math.sqrt(count / max(1, count - len(best)))
    draw, drawn = np.random.default_rng(0), []
    for _ in range(DRAWS):
        values = []
        for kind, curve in zip(kinds, fitted):
            errors = draw.choice(left, len(curve))
            for n, point in enumerate(frontiers[kind]):  # seeds say more than residuals where there are several
                seeds = list(point.nll.values())
                if len(seeds) > 1:
                    errors[n] = draw.choice(seeds, len(seeds)).mean() - curve[n]
            values.append(curve + errors)
        drawn.append(solve(values))
    spread = np.std(drawn, axis=0)
    return {
        kind: Fit(best[0], float(np.exp(best[1 + 2 * i])), best[2 + 2 * i], float(spread[2 + 2 * i]), float(spread[0]))
        for i, kind in enumerate(kinds)
    }


def equal_shares(ours: Sequence[Point], theirs: Sequence[Point]) -> list[tuple[Point, Spread | None]]:
    """At each of the baseline's budgets its best shape and the share of that budget with which ours is as good, over the shapes
    that both tried there."""
    found = []
    for budget in sorted({budget_bin(point.flops) for point in theirs}):
        common = shapes_at(ours, budget) & shapes_at(theirs, budget)
        best = [p for p in frontier(theirs, common) if budget_bin(p.flops) == budget]
        if best:
            found.append((best[0], share(frontier(ours, common), best[0])))
    return found


def share(ours: Sequence[Point], theirs: Point) -> Spread | None:
    """The budget with which `ours` are as good as `theirs`, over its budget; by seed, linear in the logarithm. None where a
    seed never gets there, or is there already at its smallest budget."""
    found = []
    for seed, target in theirs.nll.items():
        curve = [(math.log(p.flops), p.nll[seed]) for p in ours if seed in p.nll]
        reached = first_reached(curve, target)
        if reached is None or curve[0][1] <= target:
            return None
        found.append(math.exp(reached) / theirs.flops)
    return Spread.of(found)


def picture(kinds: dict[str, list[Point]], fits: dict[str, Fit], baselines: Sequence[str]) -> Figure:
    with plt.rc_context(plots.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
        for n, (kind, points) in enumerate(kinds.items()):
            vanilla = kind.startswith("vanilla")
            colour = plots.GREYS[baselines.index(kind) % 3] if vanilla else plots.COLOURS[n % len(plots.COLOURS)]
            best = frontier(points)
            left.plot([p.flops for p in points], [p.mean for p in points], ".", color=colour, alpha=0.4)
            left.plot([p.flops for p in best], [p.mean for p in best], "o", color=colour, label=kind, ms=5)
            if kind in fits:
                x = np.geomspace(best[0].flops, best[-1].flops, 60)
                left.plot(x, fits[kind].at(x), "--" if vanilla else "-", color=colour)
            if vanilla:
                continue
            for baseline, style in zip(baselines, ("-", "--", ":")):
                shares = equal_shares(points, kinds[baseline])
                found = [(p.flops, spread) for p, spread in shares if spread is not None]
                if found:
                    y, error = [s.mean for _, s in found], [s.deviation or 0.0 for _, s in found]
                    label = f"{kind} against {baseline}"
                    right.errorbar(
                        [f for f, _ in found], y, error, fmt="o" + style, color=colour, label=label, capsize=3
                    )
        left.set(xscale="log", xlabel="training FLOPs", ylabel="leave-one-out NLL, nats a token")
        right.set(
            xscale="log", xlabel="the baseline's training FLOPs", ylabel="share of it that is as good", ylim=(0, None)
        )
        for axes in (left, right):  # a tick for each budget, or each of a decade, would lie one over the other
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(lambda flops, _: f"{flops:.0e}".replace("e+", "e"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            if axes.get_legend_handles_labels()[0]:
                axes.legend()
        figure.tight_layout()
    return figure


def write_report(folders: Sequence[Path]) -> str:
    """Returns the tables. Raises FileNotFoundError or ValueError for folders without finished runs."""
    kinds = all_points([Results.load(folder) for folder in folders])
    baselines = [kind for kind in kinds if kind.startswith("vanilla")]
    if not baselines or len(baselines) == len(kinds):
        raise ValueError(
            f"Found {', '.join(kinds) or 'nothing finished'}; expected vanilla and something to compare it with."
        )
    frontiers = {kind: frontier(points) for kind, points in kinds.items()}
    try:
        fits, why = fit(frontiers), ""
    except ValueError as error:  # the shares need no curve
        fits, why = {}, f"No curves are fitted: {error}"
    rows = []
    for kind, points in kinds.items():
        for p in sorted(points, key=lambda p: (budget_bin(p.flops), p.parameters)):
            told = Spread.of(list(p.nll.values())).text()
            told = f"**{told}**" if p in frontiers[kind] else told
            tried = str(len(shapes_at(points, budget_bin(p.flops))))
            rows.append([kind, f"{p.flops:.1e}", p.shape, f"{p.parameters / 1e6:.2f} M", told, str(len(p.nll)), tried])
    lines = markdown_table(
        (
            "",
            "FLOPs",
            "width x depth",
            "size",
            "NLL; bold: the best shape on dev, which counts",
            "seeds",
            "shapes tried",
        ),
        rows,
    )
    fitted = [
        [kind, f"{f.floor:.2f} + {f.scale:.2f} (C / 1e13)^-{f.exponent:.3f}", f"{f.exponent:.3f} ± {f.exponent_deviation:.3f}"]
        for kind, f in fits.items()
    ]  # fmt: skip
    lines += markdown_table(("", "L(C) = E + A (C / 1e13)^-a", "a"), fitted) if fits else []
    shares = []
    for kind in (k for k in kinds if k not in baselines):
        for baseline in baselines:
            for p, found in equal_shares(kinds[kind], kinds[baseline]):
                common = len(
                    shapes_at(kinds[kind], budget_bin(p.flops)) & shapes_at(kinds[baseline], budget_bin(p.flops))
                )
                told = found.text(".2f") if found else "beyond what was run"
                shares.append([kind, baseline, f"{p.flops:.1e}", str(common), told])
    lines += markdown_table(("", "as good as", "with FLOPs", "shapes that both tried", "share of them"), shares)
    floor = next(iter(fits.values()), None)
    lines += [why] if floor is None else [
        f"E, shared: {floor.floor:.2f} ± {floor.floor_deviation:.2f} nats. After ±: see the head of report/scaling.py."
    ]  # fmt: skip
    text = "\n".join(["# Does the lead last?", "", "![against arithmetic](scaling.png)", "", *lines]) + "\n"
    write_atomically(folders[0] / "scaling.md", text)
    (folders[0] / "scaling.png").write_bytes(plots.as_png(picture(kinds, fits, baselines)))
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    return command("scaling", Runs, __doc__, lambda config: print(write_report(config.runs)), arguments)


if __name__ == "__main__":
    sys.exit(main())
