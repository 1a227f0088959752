"""Reranking: a list's own scores and pseudo-log-likelihoods choose together. `python -m eval.rerank ...` (make rerank).

    choice = argmax  score + weight * PLL + bonus * words

(Shin et al. 2020; Salazar et al. 2020). Weight and bonus are swept on dev and kept for test: WER (or CER) for speech, GLEU for
correction. Lists without scores of their own are chosen from by PLL and length alone. See lists.py for the files.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.files import write_atomically
from data.options import check_types
from eval.command import barrier, command, note, open_checkpoints, said
from eval.scoring.likelihood import Variant
from eval.scoring.nbest import read
from eval.scoring.reranking import Measure, choose, likelihoods, sweep
from eval.store import Store, digest_of, digest_of_model, key_of
from report.names import shortened


@dataclass(frozen=True)
class RerankConfig:
    """Choose from lists of hypotheses."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote."""
    dev: str
    """Lists to choose weight and bonus on."""
    dev_references: tuple[str, ...]
    """References of these lists."""
    test: str = ""
    """Lists to choose from, with the weight and bonus that were best on dev."""
    test_references: tuple[str, ...] = ()
    """References of the test lists; without them the choices are written and not measured."""
    metric: Literal["wer", "cer", "gleu"] = "wer"
    """wer, cer: edits divided by the words or characters of the reference. gleu: for correction; the first hypothesis is the
    learner's sentence."""
    variant: Variant = "original"
    """What each token is predicted from; see eval/score.py."""
    out: Path = Path("runs/rerank")
    """Folder for results.jsonl and the chosen texts."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints:
            raise ValueError("No checkpoint is named; give one or more folders that `pretrain.py` wrote.")
        if not self.dev_references:
            raise ValueError("Weights cannot be swept without references; give --dev-references.")
        if self.test_references and not self.test:
            raise ValueError("--test-references are of lists that are not named; give these with --test.")


def run(config: RerankConfig, console: Console) -> int:
    """Returns 1 if a checkpoint failed, with the others measured."""
    characters = config.metric == "cer"
    notes: list[str] = []
    dev = read(config.dev, config.dev_references, notes)
    test = read(config.test, config.test_references, notes) if config.test else []
    for sentence in notes:
        note(sentence, console)
    dev_measure = Measure(dev, config.metric)
    test_measure = Measure(test, config.metric) if config.test_references else None
    table = Table(title=f"reranking: {config.metric.upper()}, %", title_justify="left")
    for name in ("", f"dev ({len(dev):,})", f"test ({len(test):,})", "weight", "bonus"):
        table.add_column(name, justify="right" if name else "left", overflow="fold")

    def line(name: str, on_dev: float, on_test: float | None, *rest: str) -> None:
        table.add_row(escape(name), f"{on_dev:.2f}", "-" if on_test is None else f"{on_test:.2f}", *rest)

    first = [max(range(len(e.scores)), key=lambda i: e.scores[i]) for e in dev]
    first_test = [max(range(len(e.scores)), key=lambda i: e.scores[i]) for e in test]
    line(
        "the lists' own first",
        dev_measure.of(first),
        None if test_measure is None else test_measure.of(first_test),
        "",
        "",
    )
    line("oracle", dev_measure.oracle(), None if test_measure is None else test_measure.oracle(), "", "")
    config.out.mkdir(parents=True, exist_ok=True)
    store = Store(config.out)
    failed: list[str] = []
    for sentence in store.repair():
        note(sentence, console)
    rows = digest_of([*dev, *test])
    opened = open_checkpoints(config.checkpoints)
    called = shortened(list(opened))
    for number, (label, (model, tokenizer)) in enumerate(opened.items()):
        with barrier(label, failed, config.out):
            on_dev = likelihoods(model, tokenizer, dev, config.variant)
            weight, bonus, reached = sweep(dev, on_dev, dev_measure, characters)
            on_test = None
            if test:
                chosen = choose(test, likelihoods(model, tokenizer, test, config.variant), weight, bonus, characters)
                on_test = test_measure.of(chosen) if test_measure else None
                lines = [f"{one_line(entry.name)}\t{one_line(entry.texts[i])}" for entry, i in zip(test, chosen)]
                write_atomically(config.out / f"chosen-{number}.tsv", "\n".join(["id\ttext", *lines]) + "\n")
            line(called[label], reached, on_test, f"{weight:g}", f"{bonus:g}")
            facts = {"checkpoint": label, "metric": config.metric, "dev": reached, "test": on_test, "weight": weight}
            facts |= {"bonus": bonus, "variant": config.variant, "dev_lists": len(dev), "test_lists": len(test)}
            asked = {
                "method": "rerank",
                "metric": config.metric,
                "variant": config.variant,
                "measured": bool(test_measure),
            }
            key = key_of(model=digest_of_model(model, tokenizer), name=label, rows=rows, **asked)
            store.add(facts | {"key": key})
    console.print(table)
    return said(failed, console)


def one_line(text: str) -> str:
    """As a table between tabs can hold it: a tab or the end of a line is a space."""
    return " ".join(re.split(r"[\t\r\n]+", text))


def main() -> int:
    return command(RerankConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
