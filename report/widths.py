"""How wide must the embedding be? Quality against its width, for several vocabularies: `python -m report.widths runs/widths-*`

Each run has one vocabulary, each of its contestants a width (`d_embed`). What compares vocabularies is whole words, in bits a
character. The picture, widths.png in the first folder, marks where the minimum-entropy argument puts the width, 8.33 ln V. The
table gives for each vocabulary and architecture the best width on dev and what each other one costs.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from data.statistics import Spread
from report import plots
from report.command import Runs, command
from report.page import markdown_table
from report.records import check_alike
from report.summary import Results


@dataclass(frozen=True)
class Curve:
    """Of an architecture with a vocabulary, by width: bits a character of dev's words and of test's, and the difference of the
    latter to the best width on dev, as text."""

    architecture: str
    vocabulary: int
    dev: dict[int, Spread]
    test: dict[int, Spread]
    against_best: dict[int, str]

    @property
    def predicted(self) -> float:
        return 8.33 * math.log(self.vocabulary)


def curves_of(runs: Sequence[Results]) -> list[Curve]:
    """By architecture, then vocabulary. Raises ValueError where runs differ in more than the vocabulary, or have no words."""
    for other in runs[1:]:
        check_alike(runs[0], other, ("size", "budget", "seeds", "data.corpus"), but=("identity",))
    found = []
    for results in runs:
        by_kind: dict[str, dict[int, str]] = {}
        for label in results.finished:
            facts = results.facts["contestants"][label]
            width = facts["model"]["d_embed"]
            if by_kind.setdefault(facts["architecture"], {}).setdefault(width, label) != label:
                raise ValueError(
                    f"Two contestants of {facts['architecture']} have the width {width}; give one of each."
                )
            if not results.has_words(label):
                raise ValueError(f"{label} was not measured on whole words; the runs need --evaluation.words.")
        for architecture, labels in by_kind.items():
            dev, test = (
                {width: results.final(labels[width], "bits_per_character", part=part) for width in sorted(labels)}
                for part in ("dev_words", "words")
            )
            best = labels[min(dev, key=lambda width: dev[width].mean)]
            against = {
                width: "best" if label == best else results.difference(label, best, part="words").text()
                for width, label in labels.items()
            }
            found.append(Curve(architecture, results.facts["corpus"]["vocab_size"], dev, test, against))
    return sorted(found, key=lambda curve: (curve.architecture, curve.vocabulary))


def table(curves: Sequence[Curve]) -> list[str]:
    head = ("", "pieces", "8.33 ln V", "width", "dev, bits a character", "test", "against the best on dev")
    rows = [
        [
            c.architecture,
            f"{c.vocabulary:,}",
            f"{c.predicted:.0f}",
            str(w),
            c.dev[w].text(),
            c.test[w].text(),
            c.against_best[w],
        ]
        for c in curves
        for w in c.dev
    ]
    return markdown_table(head, rows)


def figure(curves: Sequence[Curve]) -> Figure:
    """A panel for each architecture, a line for each vocabulary; a dashed line where its width is predicted."""
    kinds = list(dict.fromkeys(curve.architecture for curve in curves))
    with plt.rc_context(plots.STYLE):
        size = (4.6 * len(kinds), 3.8)
        drawn, panels = plt.subplots(1, len(kinds), figsize=size, squeeze=False, layout="constrained")
        for axes, kind in zip(panels[0], kinds):
            for colour, curve in zip(plots.COLOURS, (c for c in curves if c.architecture == kind)):
                widths = list(curve.test)
                means = [curve.test[w].mean for w in widths]
                errors = [curve.test[w].deviation or 0.0 for w in widths]
                axes.errorbar(widths, means, errors, fmt="-o", ms=3, color=colour, label=f"{curve.vocabulary:,} pieces")
                axes.axvline(curve.predicted, color=colour, ls="--", lw=1)
            axes.set(title=kind, xlabel="width of the embedding", xscale="log")
            axes.set_xticks(widths, [str(width) for width in widths])
            axes.minorticks_off()
        panels[0][0].set_ylabel("whole words, bits a character")
        handles, names = panels[0][0].get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside upper center", ncols=len(names))
    return drawn


def make(config: Runs) -> None:
    curves = curves_of([Results.load(folder) for folder in config.runs])
    if not curves:
        raise ValueError("No contestant of these runs is finished; continue them with --resume.")
    print("\n".join(table(curves)))
    (config.runs[0] / "widths.png").write_bytes(plots.as_png(figure(curves)))


def main(arguments: Sequence[str] | None = None) -> int:
    return command("widths", Runs, __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
