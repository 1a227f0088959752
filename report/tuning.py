"""Which settings are best: a table of each kind of architecture, best first, from one or several runs' records.

    python -m report.tuning RUN ... [--any-precision]

A kind is an architecture; vanilla with near is a kind of its own, since it is another baseline. Settings are chosen by their NLL
on the dev half of the held-out documents. The difference to the best of the kind is paired there, over the seeds that both have,
and ± is half of its 95% interval. The test half stands beside it, and whole words beside tokens. Several runs of one corpus, size
and budget are read as one: their seeds are put together, and a name tells batches that differ from those of the first run.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from report.command import Runs, command
from report.page import markdown_table
from report.records import check_alike, identity
from report.summary import Results

HEAD = (
    "",
    "seeds",
    "dev NLL",
    "against the best of its kind",
    "dev, whole words, bits a character",
    "dev, by the chain rule",
    "test NLL",
    "test, whole words",
    "test, by the chain rule",
)


@dataclass(frozen=True)
class TuningConfig(Runs):
    any_precision: bool = False
    """Read runs of different precision together."""


def merged(runs: Sequence[Results], *, any_precision: bool = False) -> Results:
    """One Results of several runs; of a seed that is in two the first is taken. Raises ValueError where they differ in what they
    were trained or measured on, or where one name stands for two models."""
    first = runs[0]
    curves: dict[str, dict[int, list[dict[str, Any]]]] = {}
    contestants: dict[str, Any] = {}
    for results in runs:
        check_alike(first, results, ("size", "budget"), ["batch_size", *(["precision"] if any_precision else [])])
        batch = results.config.get("batch_size")
        told = "" if batch == first.config.get("batch_size") else f", batches of {batch}"
        for label, seeds in results.curves.items():
            facts = results.facts["contestants"][label]
            if identity(contestants.setdefault(label + told, facts)) != identity(facts):
                raise ValueError(
                    f"{results.folder}: {label + told} is another model there than in the runs before it; give one of "
                    "them another name."
                )
            curves[label + told] = seeds | curves.get(label + told, {})
    return Results(curves, first.facts | {"contestants": contestants}, first.config, first.folder)


def kind_of(results: Results, label: str) -> str:
    facts = results.facts["contestants"][label]
    near = dict(facts.get("model", {}).get("options", ())).get("near", 0)
    return (
        f"{facts['architecture']} with near" if facts["architecture"] == "vanilla" and near else facts["architecture"]
    )


def table(results: Results) -> str:
    """Markdown. Contestants that are not finished, or have less than the whole budget, are left out."""
    kinds: dict[str, list[str]] = {}
    for label in results.finished:
        if results.share(label) == 1:
            kinds.setdefault(kind_of(results, label), []).append(label)
    rows = []
    for labels in kinds.values():
        labels.sort(key=lambda label: results.final(label, "nll", part="dev").mean)
        for label in labels:
            common = results.curves[label].keys() & results.curves[labels[0]].keys()
            told = "best" if label == labels[0] else "-"
            if common and label != labels[0]:
                told = results.difference(label, labels[0], part="dev").text()
            row = [label, str(len(results.curves[label]))]
            for tokens, words in (("dev", "dev_words"), ("final", "words")):
                row.append(results.final(label, "nll", part=tokens).text())
                row += [told] if tokens == "dev" else []
                row += [
                    results.final(label, name, part=words).text() if results.has_words(label) else "-"
                    for name in ("bits_per_character", "chain")
                ]
            rows.append(row)
    return "\n".join(markdown_table(HEAD, rows))


def make(config: TuningConfig) -> None:
    print(table(merged([Results.load(folder) for folder in config.runs], any_precision=config.any_precision)))


def main(arguments: Sequence[str] | None = None) -> int:
    return command("tuning", TuningConfig, __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
