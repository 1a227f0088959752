"""The pictures of a run's report, drawn from its records alone."""

import base64
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.summary import Results

# Okabe and Ito's colours, which all readers can tell apart; vanilla is always grey.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREYS = ("#555555", "#888888", "#AAAAAA")
AXIS_NAMES = {
    "seconds": "training time (minutes)",
    "flops": "training FLOPs",
    "tokens": "tokens read",
    "predicted_tokens": "tokens predicted",
}
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "path",
}


def colours(results: Results) -> dict[str, str]:
    vanilla = [label for label, f in results.facts["contestants"].items() if f["architecture"] == "vanilla"]
    others = [label for label in results.curves if label not in vanilla]
    return {
        **{label: COLOURS[i % len(COLOURS)] for i, label in enumerate(others)},
        **{label: GREYS[i % len(GREYS)] for i, label in enumerate(vanilla)},
    }


def curve_panel(axes: Axes, results: Results, axis: str, value: str) -> None:
    """A line for each contestant, the mean of its seeds at each evaluation, and a band from lowest to highest."""
    palette = colours(results)
    for label, seeds in results.curves.items():
        count = min(len(curve) for curve in seeds.values())
        x = np.array([[record[axis] for record in curve[:count]] for curve in seeds.values()]).mean(0)
        y = np.array([[record["curve"][value] for record in curve[:count]] for curve in seeds.values()])
        dashed = results.facts["contestants"][label]["architecture"] == "vanilla"
        scale = 60.0 if axis == "seconds" else 1.0
        axes.plot(x / scale, y.mean(0), "--o" if dashed else "-o", color=palette[label], label=label, ms=3, lw=1.8)
        if len(seeds) > 1:
            axes.fill_between(x / scale, y.min(0), y.max(0), color=palette[label], alpha=0.18, lw=0)
    axes.set_xlabel(AXIS_NAMES[axis])


def legend(figure: Figure, axes: Axes) -> None:
    """Above the panels, where no label is too long; a line for each contestant whose label is."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 40 else min(4, len(labels))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def answer(results: Results) -> Figure:
    """The front picture: quality against wall-clock, and where two-stream passed vanilla's final value."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0), layout="constrained")
        curve_panel(left, results, "seconds", "nll")
        left.set_ylabel("leave-one-out NLL (nats a token)")
        curve_panel(right, results, "seconds", "accuracy")
        right.set_ylabel("hidden token guessed right")
        right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        right.set_ylim(bottom=0)
        if (baseline := results.baseline) is not None:
            ends = [curve[-1] for curve in results.curves[baseline].values()]
            level, minutes = (np.mean([e["curve"]["nll"] for e in ends]), np.mean([e["seconds"] for e in ends]) / 60)
            rivals = [row for row in results.rows() if row.architecture != "vanilla" and row.sooner_seconds is not None]
            if rivals and rivals[0].sooner_seconds.mean < 1:
                share = rivals[0].sooner_seconds.mean
                left.plot([share * minutes, minutes], [level, level], color="#333333", lw=0.9, ls=":")
                left.annotate(
                    f"vanilla's final quality,\nafter {share:.0%} of its time",
                    (share * minutes, level),
                    xytext=(18, 30),
                    textcoords="offset points",
                    arrowprops={"arrowstyle": "->", "color": "#333333", "lw": 0.9},
                    fontsize=9,
                    in_layout=False,
                )
        legend(figure, left)
        return figure


def axes_grid(results: Results) -> Figure:
    """The same quality against each of the four things it may be compared at."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 2, figsize=(10.5, 7.0), layout="constrained", sharey=True)
        for axes, axis in zip(panels.flat, AXIS_NAMES):
            curve_panel(axes, results, axis, "nll")
            axes.set_xscale("log")
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
