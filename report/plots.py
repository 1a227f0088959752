"""The pictures of a run's report, drawn from its records alone."""

import base64
import io
import math
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from report.summary import Results

# Okabe and Ito's colours, which all readers can tell apart; vanilla is always grey.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREYS = ("#555555", "#888888", "#AAAAAA")
MARKERS = "os^Dv*"  # another one each time the colours are used up
AXIS_NAMES = {
    "seconds": "training time (minutes)",
    "flops": "training FLOPs",
    "tokens": "tokens read",
    "predicted_tokens": "tokens predicted",
}
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "path",
}


def colours(results: Results) -> dict[str, str]:
    """By label; contestants that differ in their share of the budget alone have one colour."""
    family = {label: facts.get("family", label) for label, facts in results.facts["contestants"].items()}
    vanilla = [label for label, f in results.facts["contestants"].items() if f["architecture"] == "vanilla"]
    others = list(dict.fromkeys(family[label] for label in family if label not in vanilla))
    return {
        **{label: COLOURS[others.index(family[label]) % len(COLOURS)] for label in family if label not in vanilla},
        **{label: GREYS[i % len(GREYS)] for i, label in enumerate(vanilla)},
    }


def markers(results: Results) -> dict[str, str]:
    """By label: contestants of one colour that are not one family have different ones."""
    family = {label: facts.get("family", label) for label, facts in results.facts["contestants"].items()}
    of_colour: dict[str, dict[str, str]] = {}  # the families of each colour, with their markers
    found = {}
    for label, colour in colours(results).items():
        families = of_colour.setdefault(colour, {})
        found[label] = families.setdefault(family[label], MARKERS[len(families) % len(MARKERS)])
    return found


def curve_panel(axes: Axes, results: Results, axis: str, value: str) -> None:
    """A line for each contestant, the mean of its seeds at each evaluation, and a band from lowest to highest."""
    palette, marked = colours(results), markers(results)
    for label in shown(results):
        seeds = {seed: [r for r in curve if r["curve"]] for seed, curve in results.curves[label].items()}
        count = min(len(curve) for curve in seeds.values())
        if not count:
            continue
        x = np.array([[record[axis] for record in curve[:count]] for curve in seeds.values()]).mean(0)
        y = np.array([[record["curve"][value] for record in curve[:count]] for curve in seeds.values()])
        dashed = results.facts["contestants"][label]["architecture"] == "vanilla"
        scale = 60.0 if axis == "seconds" else 1.0
        line: dict[str, Any] = {"ls": "--" if dashed else "-", "marker": marked[label], "color": palette[label]}
        axes.plot(x / scale, y.mean(0), **line, label=label, ms=3, lw=1.8)
        if len(seeds) > 1:
            axes.fill_between(x / scale, y.min(0), y.max(0), color=palette[label], alpha=0.18, lw=0)
    axes.set_xlabel(AXIS_NAMES[axis])


def legend(figure: Figure, *panels: Axes) -> None:
    """Above the panels, where no label is too long; a line for each contestant whose label is. A contestant has one colour and
    marker in all panels, and one entry in the legend."""
    found: list[tuple[Any, str]] = []
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels()):
            line: Any = handle  # Artist, says matplotlib
            like = {other.get_marker() for other, _ in found if other.get_color() == line.get_color()}
            if axes is panels[0] or not like & {line.get_marker(), "None"}:  # one without markers stands for its colour
                found.append((line, name))
    if not found:  # no contestant has been evaluated yet
        return
    handles, labels = zip(*found)
    columns = 1 if max(map(len, labels)) > 40 else min(4, len(labels))
    rows = math.ceil(len(labels) / columns)
    figure.set_figheight(figure.get_figheight() + 0.22 * (rows - 1))  # not at the panels' cost
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def shown(results: Results) -> list[str]:
    """Contestants whose curves are drawn: all, or with families those that have the whole budget."""
    whole = [label for label in results.curves if results.share(label) == 1]
    return whole or list(results.curves)


def answer(results: Results) -> Figure:
    """The front picture: what a share of the budget buys, if shares competed, or quality along the budget."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
        axis = results.facts["axis"]
        if results.families():
            frontier_panel(left, results)
            curve_panel(right, results, axis, "nll")
            right.set_ylabel("NLL on dev (nats a token)")
        else:
            curve_panel(left, results, axis, "nll")
            left.set_ylabel("leave-one-out NLL (nats a token)")
            curve_panel(right, results, axis, "accuracy")
            right.set_ylabel("hidden token guessed right")
            right.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
            right.set_ylim(bottom=0)
            if (baseline := results.baseline) is not None:
                ends = [curve[-1]["curve"]["nll"] for curve in results.curves[baseline].values()]
                left.axhline(np.mean(ends), color="#333333", lw=0.9, ls=":", label=f"{baseline} at its end")
        legend(figure, left, right)
        return figure


def frontier_panel(axes: Axes, results: Results) -> None:
    """Final quality against the share of the budget, each point annealed; across it the baseline with all of it."""
    palette, marked, families = colours(results), markers(results), results.families()
    for family, points in families.items():
        values = np.array([list(point.nll.values()) for point in points])  # (shares, seeds)
        shares = [point.share for point in points]
        label = next(label for label in palette if results.facts["contestants"][label]["family"] == family)
        colour = palette[label]
        axes.plot(shares, values.mean(1), "-", marker=marked[label], color=colour, label=family, ms=4, lw=1.8)
        if values.shape[1] > 1:
            axes.fill_between(shares, values.min(1), values.max(1), color=colour, alpha=0.18, lw=0)
        for baseline in results.baselines[:3]:
            if (equal := results.equal_share(family, baseline)) is not None:
                axes.axvline(equal.mean, color=palette[baseline], lw=0.9, ls=":")
    for baseline in results.baselines[:3]:
        ends = list(results.final_by_seed(baseline).values())
        axes.axhline(float(np.mean(ends)), color=palette[baseline], ls="--", lw=1.4, label=f"{baseline}, whole budget")
        axes.axhspan(min(ends), max(ends), color=palette[baseline], alpha=0.15, lw=0)
    ticks = sorted({point.share for points in families.values() for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"1/{1 / t:g}" if 1 / t == round(1 / t) and t < 1 else f"{t:g}" for t in ticks])
    axes.set_xlabel("share of the budget, annealed to its end")
    axes.set_ylabel("leave-one-out NLL (nats a token)")


def axes_grid(results: Results) -> Figure:
    """The same quality against each of the four things it may be compared at."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 2, figsize=(10.5, 7.0), layout="constrained", sharey=True)
        for axes, axis in zip(panels.flat, AXIS_NAMES):
            curve_panel(axes, results, axis, "nll")
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        for axes in panels[:, 0]:
            axes.set_ylabel("leave-one-out NLL (nats a token)")
        legend(figure, panels[0, 0])
        return figure


def as_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    plt.close(figure)
    return buffer.getvalue()


def as_data_uri(figure: Figure) -> str:
    """An SVG that a page can hold in itself."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
