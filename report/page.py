"""The report of a run: report.html (one file, opens offline), report.md, report.png, and the table on the terminal.

python -m report.page runs/NAME      make it again from the run's records
"""

import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.files import write_atomically
from data.statistics import Spread
from report import plots
from report.command import Runs, command
from report.meanings import MEANINGS
from report.records import read_json
from report.summary import Results, Row

QUALITY = (
    "",
    "leave-one-out NLL",
    "behind the best",
    "accuracy",
    "whole words, bits a character",
    "behind the best on words",
    "by the chain rule",
    "words right",
    "equals vanilla at",
)
COST = (
    "",
    "tokens/s",
    "predicted in a pass",
    "predicted tokens/s",
    "of matmul rate",
    "parameters",
    "memory",
    "passes for N",
)
REFRESH = 30  # seconds between two looks at a race that runs
KINDS = ("one-piece word", "first piece", "later piece", "copied", "not copied")


def percent(spread: Spread) -> str:
    return f"{spread.mean:.1%}" + (f" ± {spread.deviation:.1%}" if spread.deviation is not None else "")


def quality(results: Results, row: Row) -> list[str]:
    if row.nll is None or row.accuracy is None:  # it is not finished
        return [row.label, row.told, *["-"] * (len(QUALITY) - 2)]
    error = f" (s.e. {row.standard_error:.3f})" if row.standard_error is not None else ""
    share = (
        results.equal_share(results.facts["contestants"][row.label]["family"])
        if results.share(row.label) == 1
        else None
    )
    equals = share.text(".2f") if share else f"({row.sooner.text('.2f')})" if row.sooner else "-"
    behind = row.behind.text() if row.behind else "best"
    words = row.words.text() if row.words else "-"
    words += f" (s.e. {row.words_error:.3f})" if row.words_error is not None else ""
    measured = row.chain is not None
    words_behind = row.words_behind.text() if row.words_behind else "best" if measured else "-"
    chain, right = (row.chain.text(), percent(row.words_accuracy)) if row.chain and row.words_accuracy else ("-", "-")
    nll = row.nll.text() + error
    return [row.label, nll, behind, percent(row.accuracy), words, words_behind, chain, right, equals]


def by_kind(results: Results, rows: list[Row]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Where a model is ahead: NLL by kind of token, of the contestants that were measured so."""
    told = {row.label: results.kinds(row.label) for row in rows if row.state == "finished"}
    names = [name for name in KINDS if any(name in found for found in told.values())]
    head = ("NLL, nats a token", *names)
    return head, [[label, *(f"{found[n]:.3f}" if n in found else "-" for n in names)] for label, found in told.items()]


def cost(row: Row) -> list[str]:
    costs = [f"{row.parameters / 1e6:.2f} M", f"{row.memory_bytes / 2**20:,.0f} MiB"]
    if row.tokens_per_second is None or row.predicted_tokens_per_second is None:
        return [row.label, "-", f"{row.predicted_fraction:.0%}", "-", "-", *costs, "-"]
    return [
        row.label,
        f"{row.tokens_per_second.mean:,.0f}",
        f"{row.predicted_fraction:.0%}",
        f"{row.predicted_tokens_per_second.mean:,.0f}",
        f"{row.matmul_share:.0%}",
        *costs,
        "1" if row.passes == 1 else "N",
    ]


def machines(results: Results) -> list[str]:
    """Each machine, with its threads, rates and revision, that trained a part of what is shown."""
    told: dict[str, None] = {}
    for seeds in results.curves.values():
        for curve in seeds.values():
            for m in curve[-1]["sessions"] if curve else []:
                rates = f"fp32 {m['fp32_matmul'] / 1e9:,.0f}"
                rates += f", bf16 {m['bf16_matmul'] / 1e9:,.0f}" if m["bf16_matmul"] else ""
                told[
                    f"{m['processor']}, {m['threads']} thread(s), device {m['device']}, Python {m['python']}, torch "
                    f"{m['torch']}, revision {m['git_revision']}; matrix multiplication in GFLOP/s: {rates}"
                ] = None
    by_machine: dict[str, str] = {}
    for text in told:  # rates differ a little at each start: one line for each machine and revision
        by_machine.setdefault(text.partition(";")[0], text)
    return list(by_machine.values())


def setting(results: Results) -> list[tuple[str, str]]:
    """What was run, and on which machine."""
    config, corpus = results.config, results.facts["corpus"]
    side_by_side = f"side by side, {config['workers'] or 'as many as cores'} at a time"
    how = side_by_side if config["workers"] != 1 else f"trained in turns of {config['slice_seconds']:g} s"
    yardstick = results.facts["yardstick"]
    return [
        ("budget", f"{config['budget']} for each model, {how}"),
        (
            "corpus",
            f"{corpus['corpus']}: {corpus['train_tokens']:,} tokens to train on, {corpus['valid_tokens']:,} held out "
            f"in {'whole' if corpus.get('held_out_whole', True) else 'parts of'} documents, vocabulary "
            f"{corpus['vocab_size']:,}",
        ),
        (
            "yardstick",
            "; ".join(
                f"{part} {y['tokens']:,} tokens of {y['documents']:,} documents" for part, y in yardstick.items()
            ),
        ),
        ("batches", f"{config['batch_size'] * config['accumulate']} windows of {config['sequence_length']} tokens"),
        ("precision", results.facts["precision"].removeprefix("torch.")),
        ("seeds", " ".join(map(str, config["seeds"]))),
        *(("machine", text) for text in machines(results)),
        *(("note", text) for text in results.facts["notes"]),
        *(("note", text) for text in suspended(results)),
    ]


def suspended(results: Results) -> list[str]:
    """Time that was not counted for a contestant."""
    ends = [(label, seed, curve[-1]) for label, own in results.curves.items() for seed, curve in own.items() if curve]
    return [
        f"{label} (seed {seed}) was suspended or stalled for {end['suspended']:.0f} s, which are not charged."
        for label, seed, end in ends
        if end.get("suspended", 0.0) >= 1.0
    ]


def terminal_table(results: Results) -> Table:
    """A line for each quantity and a column for each contestant: it fits a narrow terminal."""
    table = Table(title=f"{results.config['budget']} for each model", title_justify="left")
    rows = results.rows()
    columns = [quality(results, row) + cost(row)[1:] for row in rows]
    table.add_column("")
    for column in columns:
        table.add_column(escape(column[0]), justify="right", overflow="fold")
    for i, name in enumerate([*QUALITY[1:], *COST[1:]], start=1):
        table.add_row(name, *(column[i] for column in columns))
    return table


def markdown_table(head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:], ""]


def html_table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    e = html.escape
    body = "".join("<tr>" + "".join(f"<td>{e(c)}</td>" for c in cells) + "</tr>" for cells in rows)
    return "<table><tr>" + "".join(f"<th>{e(c)}</th>" for c in head) + f"</tr>{body}</table>"


def markdown(results: Results, examples: list[dict[str, Any]]) -> str:
    lines = ["# Who learned more?", "", results.verdict(), "", "![leave-one-out quality](report.png)", ""]
    rows = results.rows()
    lines += markdown_table(QUALITY, [quality(results, row) for row in rows])
    head, kinds = by_kind(results, rows)
    lines += markdown_table(head, kinds) if len(head) > 1 else []
    lines += markdown_table(COST, [cost(row) for row in rows])
    lines += ["", *(f"- **{name}**: {text}" for name, text in MEANINGS), "", "## Setting", ""]
    lines += [f"- {name}: {text}" for name, text in setting(results)]
    lines += ["", "## Hidden tokens", ""]
    for example in examples:
        lines += [f"> {quote(example)}", ""]
        for label, predictions in example["predictions"].items():
            lines.append(f"- {label}: " + ", ".join(f"`{piece}` {p:.0%}" for piece, p in predictions))
        lines.append("")
    configuration = json.dumps({"run": results.config, "contestants": results.facts["contestants"]}, indent=1)
    return "\n".join([*lines, "## Configuration", "", "```json", configuration, "```", ""])


def quote(example: dict[str, Any]) -> str:
    text = f"…{example['before']} [{example['hidden']}] {example['after']}…"
    return " ".join(text.split())


STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; max-width: 68rem; margin: 2.5rem auto; padding: 0 1.2rem; color: #222; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { margin-top: 2.2rem; font-size: 1.2rem; }
.verdict { font-size: 1.15rem; border-left: 4px solid #D55E00; padding-left: 1rem; }
.scroll { overflow-x: auto; margin-bottom: 1rem; } table { border-collapse: collapse; font-size: .88rem; width: 100%; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th { vertical-align: bottom; } td:first-child { overflow-wrap: anywhere; }
td:first-child, th:first-child { text-align: left; }
img { width: 100%; } mark { background: #ffe3c9; padding: 0 .2em; } .right { color: #00734f; font-weight: 600; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 1.2rem; } pre { overflow-x: auto; font-size: .8rem;
background: #f6f6f6; padding: 1rem; } blockquote { margin: 1.2rem 0 .3rem; font-style: italic; }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{refresh}<meta name="viewport" content="width=device-width, initial-scale=1">
<title>twostream: {title}</title>
<style>{style}</style></head><body>
<h1>Who learned more?</h1><p class="verdict">{verdict}</p>
<img alt="leave-one-out quality against training time" src="{answer}">
<div class="scroll">{quality}</div><div class="scroll">{kinds}</div><div class="scroll">{cost}</div>
<h2>The same quality against time, arithmetic, tokens and predictions</h2>
<img alt="leave-one-out quality against four budgets" src="{grid}">
<h2>Hidden tokens</h2><p>Held-out text with one token hidden, and the likeliest tokens of each model.</p>{examples}
<h2>What the numbers mean</h2><dl>{meanings}</dl>
<h2>Setting</h2><dl>{setting}</dl>
<details><summary>Configuration</summary><pre>{configuration}</pre></details>
</body></html>
"""


def html_page(results: Results, examples: list[dict[str, Any]], every: int = 0) -> str:
    """every: seconds after which a browser reloads the page, while the run trains."""
    e = html.escape
    rows = results.rows()
    shown = []
    for example in examples:
        before, hidden, after = (e(example[part]) for part in ("before", "hidden", "after"))
        shown.append(f"<blockquote>…{before} <mark>{hidden}</mark> {after}…</blockquote>")
        lines = [
            f"<tr><td>{e(label)}</td>"
            + "".join(
                f"<td{' class=right' if piece == example['hidden'] else ''}>{e(piece)} {p:.0%}</td>"
                for piece, p in predictions
            )
            + "</tr>"
            for label, predictions in example["predictions"].items()
        ]
        shown.append(f'<div class="scroll"><table>{"".join(lines)}</table></div>')
    return PAGE.format(
        style=STYLE,
        refresh=f'<meta http-equiv="refresh" content="{every}">' if every else "",
        title=e(results.config["data"]["corpus"]),
        verdict=e(results.verdict()),
        answer=plots.as_data_uri(plots.answer(results)),
        quality=html_table(QUALITY, [quality(results, row) for row in rows]),
        kinds=html_table(*by_kind(results, rows)),
        cost=html_table(COST, [cost(row) for row in rows]),
        grid=plots.as_data_uri(plots.axes_grid(results)),
        examples="".join(shown),
        meanings="".join(f"<dt>{e(name)}</dt><dd>{e(text)}</dd>" for name, text in MEANINGS),
        setting="".join(f"<dt>{e(name)}</dt><dd>{e(text)}</dd>" for name, text in setting(results)),
        configuration=e(json.dumps({"run": results.config, "contestants": results.facts["contestants"]}, indent=1)),
    )


def write_progress(folder: Path, *, refreshed: bool = True) -> None:
    """Write report.html of an unfinished run: what is known so far. refreshed: whether a browser reloads it."""
    write_atomically(folder / "report.html", html_page(Results.load(folder), [], every=REFRESH if refreshed else 0))


def write_report(folder: Path, console: Console) -> None:
    """Write the report's files into a finished run's folder and print its table.

    Raises FileNotFoundError or ValueError if the folder holds no run.
    """
    results = Results.load(folder)
    read_json(folder / "facts.json", "corpus", "yardstick", "precision", "notes")
    path = folder / "examples.json"
    examples = read_json(path, "examples")["examples"] if path.exists() else []
    (folder / "report.png").write_bytes(plots.as_png(plots.answer(results)))
    write_atomically(folder / "report.md", markdown(results, examples))
    write_atomically(folder / "report.html", html_page(results, examples))
    console.print(terminal_table(results))
    console.print(f"\n[bold]{escape(results.verdict())}[/]\n")
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


def make(config: Runs) -> None:
    for folder in config.runs:
        write_report(folder, Console())


def main(arguments: Sequence[str] | None = None) -> int:
    return command("page", Runs, __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
