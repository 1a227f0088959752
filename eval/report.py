"""The report of a run: report.html (one file, opens offline), report.md, report.png, and the table on the terminal.

python -m eval.report runs/NAME      make it again from the run's records
"""

import html
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval import plots
from eval.summary import Results, Row
from training.checkpoint import write_atomically

COLUMNS = (
    "",
    "leave-one-out NLL",
    "bits a character",
    "accuracy",
    "reached vanilla after",
    "tokens/s",
    "predicted in a pass",
    "predicted tokens/s",
    "of fp32 matmul rate",
    "parameters",
    "memory",
    "passes to score N tokens",
)
MEANINGS = (
    (
        "leave-one-out NLL",
        "mean negative log-likelihood, in nats, of held-out tokens, each predicted from all others of "
        "its window; the same tokens for every model. Lower is better. After ±: the standard deviation between seeds.",
    ),
    (
        "bits a character",
        "the same in bits, divided by the characters that a held-out token stands for: comparable between tokenizers.",
    ),
    ("accuracy", "how often the most probable token is the true one."),
    (
        "reached vanilla after",
        "the share of the best vanilla model's time (and of its FLOPs) after which this model was "
        "as good as that one at its end, read off the curves below.",
    ),
    (
        "tokens/s, predicted tokens/s",
        "input tokens trained on in a second, and those of them that gave a loss (for vanilla, the masked ones). "
        "Time is training alone: data, forward, backward, optimiser.",
    ),
    (
        "of fp32 matmul rate",
        "training FLOP/s over what this machine reached in fp32 matrix multiplication just before; "
        "bf16 hardware can take it beyond 100%.",
    ),
    ("memory", "weights, gradients, optimiser states and saved activations of one step, counted."),
    ("passes to score N tokens", "forward passes for the pseudo-log-likelihood of a sentence of N tokens."),
)


def cells(row: Row) -> list[str]:
    sooner = "-"
    if row.sooner_seconds and row.sooner_flops:
        sooner = f"{row.sooner_seconds.text('.2f')} (FLOPs {row.sooner_flops.text('.2f')})"
    error = "" if row.nll.deviation is not None else f" (s.e. {row.standard_error:.3f})"
    return [
        row.label,
        row.nll.text() + error,
        row.bits_per_character.text(),
        f"{row.accuracy.mean:.1%}" + (f" ± {row.accuracy.deviation:.1%}" if row.accuracy.deviation is not None else ""),
        sooner,
        f"{row.tokens_per_second.mean:,.0f}",
        f"{row.predicted_fraction:.0%}",
        f"{row.predicted_tokens_per_second.mean:,.0f}",
        f"{row.matmul_share:.0%}",
        f"{row.parameters / 1e6:.2f} M",
        f"{row.memory_bytes / 2**20:,.0f} MiB",
        "1" if row.passes == 1 else "N",
    ]


def setting(results: Results) -> list[tuple[str, str]]:
    """What was run, where."""
    config, machine, corpus = results.config, results.facts["machine"], results.facts["corpus"]
    rates = f"fp32 {machine['fp32_matmul'] / 1e9:,.0f} GFLOP/s"
    if machine["bf16_matmul"]:
        rates += f", bf16 {machine['bf16_matmul'] / 1e9:,.0f} GFLOP/s"
    return [
        ("budget", f"{config['budget']} for each model, trained in turns of {config['slice_seconds']:g} s"),
        (
            "corpus",
            f"{corpus['corpus']}: {corpus['train_tokens']:,} tokens to train on, {corpus['valid_tokens']:,} held out "
            f"in whole documents, vocabulary {corpus['vocab_size']:,}",
        ),
        ("batches", f"{config['batch_size'] * config['accumulate']} windows of {config['sequence_length']} tokens"),
        ("precision", results.facts["precision"].removeprefix("torch.")),
        ("seeds", " ".join(map(str, config["seeds"]))),
        (
            "machine",
            f"{machine['processor']}, {machine['threads']} threads, device {machine['device']}; matrix "
            f"multiplication {rates}",
        ),
        ("software", f"Python {machine['python']}, torch {machine['torch']}, revision {machine['git_revision']}"),
    ]


def terminal_table(results: Results) -> Table:
    """A line for each quantity and a column for each contestant: it fits a narrow terminal."""
    table = Table(title=f"{results.config['budget']} for each model", title_justify="left")
    rows = [cells(row) for row in results.rows()]
    table.add_column("")
    for row in rows:
        table.add_column(escape(row[0]), justify="right", overflow="fold")
    for i, name in enumerate(COLUMNS[1:], start=1):
        table.add_row(name, *(row[i] for row in rows))
    return table


def markdown(results: Results, examples: list[dict[str, Any]]) -> str:
    lines = ["# Who learned more?", "", results.verdict(), "", "![leave-one-out quality](report.png)", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in results.rows()]
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


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>twostream: {title}</title>
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 68rem; margin: 2.5rem auto; padding: 0 1.2rem; color: #222; }}
h1 {{ font-size: 1.7rem; margin-bottom: .3rem; }} h2 {{ margin-top: 2.2rem; font-size: 1.2rem; }}
.verdict {{ font-size: 1.15rem; border-left: 4px solid #D55E00; padding-left: 1rem; }}
.scroll {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-size: .88rem; }}
th, td {{ padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th {{ white-space: normal; vertical-align: bottom; }} td:first-child, th:first-child {{ text-align: left; }}
img {{ width: 100%; }} mark {{ background: #ffe3c9; padding: 0 .2em; }} .right {{ color: #00734f; font-weight: 600; }}
dt {{ font-weight: 600; }} dd {{ margin: 0 0 .4rem 1.2rem; }} pre {{ overflow-x: auto; font-size: .8rem;
background: #f6f6f6; padding: 1rem; }} blockquote {{ margin: 1.2rem 0 .3rem; font-style: italic; }}
</style></head><body>
<h1>Who learned more?</h1><p class="verdict">{verdict}</p>
<img alt="leave-one-out quality against training time" src="{answer}">
<div class="scroll">{table}</div>
<h2>The same quality against time, arithmetic, tokens and predictions</h2>
<img alt="leave-one-out quality against four budgets" src="{grid}">
<h2>Hidden tokens</h2><p>Held-out text with one token hidden, and the likeliest tokens of each model.</p>{examples}
<h2>What the numbers mean</h2><dl>{meanings}</dl>
<h2>Setting</h2><dl>{setting}</dl>
<details><summary>Configuration</summary><pre>{configuration}</pre></details>
</body></html>
"""


def html_page(results: Results, examples: list[dict[str, Any]]) -> str:
    e = html.escape
    rows = "".join("<tr>" + "".join(f"<td>{e(c)}</td>" for c in cells(row)) + "</tr>" for row in results.rows())
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
        title=e(results.config["data"]["corpus"]),
        verdict=e(results.verdict()),
        answer=plots.as_data_uri(plots.answer(results)),
        table="<table><tr>" + "".join(f"<th>{e(c)}</th>" for c in COLUMNS) + f"</tr>{rows}</table>",
        grid=plots.as_data_uri(plots.axes_grid(results)),
        examples="".join(shown),
        meanings="".join(f"<dt>{e(name)}</dt><dd>{e(text)}</dd>" for name, text in MEANINGS),
        setting="".join(f"<dt>{e(name)}</dt><dd>{e(text)}</dd>" for name, text in setting(results)),
        configuration=e(json.dumps({"run": results.config, "contestants": results.facts["contestants"]}, indent=1)),
    )


def write_report(folder: Path, console: Console) -> None:
    """Write the report's files into a finished run's folder and print its table.

    Raises FileNotFoundError or ValueError if the folder holds no finished run.
    """
    results = Results.load(folder)
    path = folder / "examples.json"
    examples = json.loads(path.read_text())["examples"] if path.exists() else []
    (folder / "report.png").write_bytes(plots.as_png(plots.answer(results)))
    write_atomically(folder / "report.md", markdown(results, examples))
    write_atomically(folder / "report.html", html_page(results, examples))
    console.print(terminal_table(results))
    console.print(f"\n[bold]{escape(results.verdict())}[/]\n")
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m eval.report runs/NAME")
    try:
        write_report(Path(sys.argv[1]), Console())
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
