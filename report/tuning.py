"""Which settings are best: `python -m report.tuning runs/tune [runs/more ...]` prints a table of each kind, best first.

A kind is an architecture; vanilla with near is a kind of its own, since it is another baseline. Settings are chosen by their
NLL on the
dev half of the held-out documents, and the difference to the best of the kind is paired there, ± half of its 95% interval; the
test half stands beside it, and whole words beside tokens. Several runs of one corpus, size and budget are read as one.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from report.page import markdown_table
from report.records import check_alike
from report.summary import Results

HEAD = ("", "dev NLL", "against the best of its kind", "dev, whole words, bits a character", "test NLL", "test, words")


def merged(runs: Sequence[Results]) -> Results:
    """One Results of several runs; of a contestant that is in two the first is taken. Raises ValueError where they differ in
    what they were trained or measured on, or in seeds."""
    first = runs[0]
    for other in runs[1:]:
        check_alike(first, other, ("size", "budget", "seeds"))
    curves: dict[str, dict[int, list[dict[str, Any]]]] = {}
    contestants: dict[str, Any] = {}
    for results in reversed(runs):
        curves |= results.curves
        contestants |= results.facts["contestants"]
    return Results(curves, first.facts | {"contestants": contestants}, first.config)


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
            against = "best" if label == labels[0] else results.difference(label, labels[0], part="dev").text()
            values = [results.final(label, "nll", part=part).text() for part in ("dev", "final")]
            words = ["-", "-"]
            if results.has_words(label):
                words = [
                    results.final(label, "bits_per_character", part=part).text() for part in ("dev_words", "words")
                ]
            rows.append([label, values[0], against, words[0], values[1], words[1]])
    return "\n".join(markdown_table(HEAD, rows))


def main() -> int:
    folders = [Path(argument) for argument in sys.argv[1:]]
    try:
        if not folders:
            raise ValueError("Name one or more folders of runs: python -m report.tuning runs/tune")
        print(table(merged([Results.load(folder) for folder in folders])))
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error[/]: {error}", soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
