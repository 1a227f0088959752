"""The page of a benchmark: checkpoints side by side, made from OUT/results.jsonl alone.

python -m report.benchmark OUT      make report.html and report.md again
"""

import html
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from data.files import write_atomically
from data.statistics import Spread
from data.text import read_lines
from report import plots
from report.names import seeds_of, shortened
from report.page import STYLE, html_table, markdown_table

MEANINGS = (
    ("score", "of a task: the mean of its metrics on dev, x 100, by the epoch that is best there; several dev sets count alike."),
    ("after ±", "the standard deviation between seeds, which decide the order of rows, dropout and the new layer's weights. A "
     "difference of a few of them is no finding, and dev sets of a few hundred rows add an error of their own."),
    ("average", "over the tasks in the table, for those who have all of them and diverged in none. The diagnostic set (AX) is "
     "not in it."),
    ("by model", "checkpoints that differ in the seed of their pretraining alone: the mean of their scores, and after ± the "
     "standard deviation between them."),
    ("majority, bag of words", "the commonest answer, and a linear model of TF-IDF, without pretraining. Judge by these."),
)  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    """records: a line of results.jsonl each: checkpoint, task, seed, measures (the metrics of its score), metrics, extra,
    recipe, best_epoch, tokens_per_second, cut."""

    title: str
    records: Sequence[dict[str, Any]]

    @classmethod
    def load(cls, folder: Path) -> "Benchmark":
        """What the last command on this folder showed. Raises FileNotFoundError or ValueError if nothing was shown."""
        path, shown = folder / "results.jsonl", folder / "shown.json"
        if not path.exists() or not shown.exists():
            raise FileNotFoundError(f"{folder} holds no results; give the OUT folder of make glue or make clue.")
        try:
            known = {record["key"]: record for record in map(json.loads, filter(str.strip, read_lines(path)))}
            records = [known[key] for key in json.loads(shown.read_text(encoding="utf-8"))]
            return cls(records[-1]["benchmark"], records)
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path} is not what the benchmarks write ({error}).") from None

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(r["task"] for r in self.records))

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(self.label(r) for r in self.records))

    def label(self, record: dict[str, Any]) -> str:
        """The checkpoint, and what sets this recipe apart from others in the table."""
        recipes = [r["recipe"] for r in self.records if r["recipe"]]
        names = {key for recipe in recipes for key in recipe}
        differing = {key for key in names if len({repr(recipe.get(key)) for recipe in recipes}) > 1}
        told = [f"{key}={record['recipe'].get(key)}" for key in sorted(differing) if record["recipe"]]
        called = shortened(list(dict.fromkeys(r["checkpoint"] for r in self.records)))
        return called[record["checkpoint"]] + (f" ({', '.join(told)})" if told else "")

    def own(self, label: str, task: str) -> list[dict[str, Any]]:
        return [r for r in self.records if self.label(r) == label and r["task"] == task]

    def scores(self, label: str, task: str) -> list[float]:
        """By seed."""
        return [
            sum(sum(found[m] for m in r["measures"]) / len(r["measures"]) for found in r["metrics"].values()) / len(r["metrics"])
            for r in self.own(label, task)
            if not r.get("diverged")
        ]  # fmt: skip

    def diverged(self, label: str, task: str) -> int:
        """Seeds that have no result, since their training diverged."""
        return sum(bool(r.get("diverged")) for r in self.own(label, task))

    def table(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Checkpoints as rows, tasks as columns, and their average."""
        measures = {r["task"]: r["measures"] for r in self.records}
        extra = list(dict.fromkeys(name for r in self.records for name in r["extra"]))
        head = ("", *(f"{task} ({', '.join(measures[task])})" for task in self.tasks), "average", *extra)
        rows = []
        for label in self.labels:
            found = [self.scores(label, task) for task in self.tasks]
            cells = [Spread.of(values).text(".1f") if values else "-" for values in found]
            lost = [self.diverged(label, task) for task in self.tasks]
            cells = [
                cell if not n else "diverged" if cell == "-" else f"{cell} ({n} diverged)"
                for cell, n in zip(cells, lost)
            ]
            whole = all(found) and not any(lost)
            average = f"{sum(sum(v) / len(v) for v in found) / len(found):.1f}" if whole else "-"
            beside = []
            for name in extra:
                told = [
                    next(iter(r["extra"][name].values()))
                    for r in self.records
                    if self.label(r) == label and name in r["extra"]
                ]
                beside.append(Spread.of(told).text(".1f") if told else "-")
            rows.append([label, *cells, average, *beside])
        return head, rows

    def by_model(self) -> tuple[tuple[str, ...], list[list[str]]] | None:
        """A row for each model, if one has several seeds of pretraining: means of its checkpoints. None if recipes differ."""
        called = {r["checkpoint"]: self.label(r) for r in self.records}  # whole paths, since two runs are two models
        seeds = seeds_of(list(called)) if len(called) == len(self.labels) else {}
        rows = []
        for model, paths in seeds.items():
            labels, cells = [called[path] for path in paths.values()], []
            for task in self.tasks:
                found = [self.scores(label, task) for label in labels]
                whole = all(found) and not any(self.diverged(label, task) for label in labels)
                cells.append(Spread.of([statistics.fmean(own) for own in found]).text(".1f") if whole else "-")
            rows.append([model, str(len(labels)), *cells])
        return (("by model", "seeds of pretraining", *self.tasks), rows) if seeds else None

    def details(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Each metric of each dev set, and how it was come by."""
        head = ("", "task", "metrics on dev", "best epochs", "rows cut", "tokens/s")
        rows = []
        for task in self.tasks:
            for label in self.labels:
                own = [r for r in self.own(label, task) if not r.get("diverged")]
                if not own:
                    continue
                told = []
                for split, names in own[0]["metrics"].items():
                    prefix = f"{split} " if len(own[0]["metrics"]) > 1 else ""
                    told += [
                        f"{prefix}{m} {Spread.of([r['metrics'][split][m] for r in own]).text('.1f')}" for m in names
                    ]
                cut = max(sum(r["cut"].values()) for r in own)
                speed = sum(r["tokens_per_second"] for r in own) / len(own)
                epochs = " ".join(str(r["best_epoch"]) for r in own if r["best_epoch"]) or "-"
                rows.append([label, task, ", ".join(told), epochs, f"{cut:,}", f"{speed:,.0f}" if speed else "-"])
        return head, rows


def picture(benchmark: Benchmark) -> Figure:
    """A panel for each task: a dot for each seed, a bar at their mean."""
    labels, tasks = benchmark.labels, benchmark.tasks
    with plt.rc_context(plots.STYLE):
        columns = min(4, len(tasks))
        lines = -(-len(tasks) // columns)
        figure, axes = plt.subplots(
            lines, columns, figsize=(3.1 * columns + 1.8, (0.34 * len(labels) + 0.9) * lines), squeeze=False, sharey=True
        )  # fmt: skip
        for panel in axes.flat[len(tasks) :]:
            panel.axis("off")
        for panel, task in zip(axes.flat, tasks):
            for y, label in enumerate(labels):
                values = benchmark.scores(label, task)
                if values:
                    pale = not benchmark.own(label, task)[0]["recipe"]
                    colour = "#999999" if pale else plots.COLOURS[y % len(plots.COLOURS)]
                    panel.plot(values, [y] * len(values), "o", color=colour, ms=5, alpha=0.75)
                    panel.plot([sum(values) / len(values)], [y], "|", color=colour, ms=15, mew=2)
            panel.set_title(task, fontsize=10)
            panel.set_yticks(range(len(labels)), [label[-34:] for label in labels], fontsize=8)
            panel.set_ylim(len(labels) - 0.4, -0.6)
        figure.tight_layout()
    return figure


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>twostream: {title}</title><style>{style}</style></head><body>
<h1>{title}: checkpoints side by side</h1>
<div class="scroll">{table}</div>
<img alt="scores by task, checkpoint and seed" src="{picture}">
<h2>Each metric</h2><div class="scroll">{details}</div>
<h2>What the numbers mean</h2><dl>{meanings}</dl>
<details><summary>Recipes</summary><pre>{recipes}</pre></details>
</body></html>
"""


def write_report(folder: Path, records: Sequence[dict[str, Any]] | None = None) -> Benchmark:
    """OUT/report.md and OUT/report.html, of these records, or of what the last command showed.

    Raises FileNotFoundError or ValueError if there are no results.
    """
    benchmark = Benchmark(records[-1]["benchmark"], records) if records else Benchmark.load(folder)
    recipes = list(dict.fromkeys(json.dumps(r["recipe"]) for r in benchmark.records if r["recipe"]))
    (head, rows), (detail_head, detail_rows) = benchmark.table(), benchmark.details()
    lines = [f"# {benchmark.title}: checkpoints side by side", "", *markdown_table(head, rows)]
    by_model = benchmark.by_model()
    if by_model:
        lines += markdown_table(*by_model)
    lines += [*markdown_table(detail_head, detail_rows), *(f"- **{name}**: {text}" for name, text in MEANINGS)]
    lines += ["", *(f"Recipe for all tasks: `{recipe}`" for recipe in recipes)]
    write_atomically(folder / "report.md", "\n".join(lines) + "\n")
    e = html.escape
    page = PAGE.format(
        title=e(benchmark.title),
        style=STYLE,
        table=html_table(head, rows) + (html_table(*by_model) if by_model else ""),
        picture=plots.as_data_uri(picture(benchmark)),
        details=html_table(detail_head, detail_rows),
        meanings="".join(f"<dt>{e(name)}</dt><dd>{e(text)}</dd>" for name, text in MEANINGS),
        recipes=e("\n".join(recipes)),
    )
    write_atomically(folder / "report.html", page)
    return benchmark


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m report.benchmark OUT")
    try:
        write_report(Path(sys.argv[1]))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
