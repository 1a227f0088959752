"""Train a corrector of Chinese spelling: `python -m eval.soft_masked --checkpoints A B --corpus TEXT` (make soft-masked).

Sentences of a corpus get errors, characters taken for others that sound alike. On sentences that the checkpoints' pretraining
held out it compares

    one pass               nothing is trained: a token is replaced when another is likelier by a margin, which is chosen on dev
    one pass, homophones   the same, and only by what sounds alike
    fine-tuned             the model trained to say the right token
    soft-masked            with a detector in front that softly masks what seems wrong (eval/correction/soft_masked.py)

The two that are trained need a tokenizer with a token for each character (--tokenizer-kind characters): sentences whose tokens
change in number by an error are left out of training, and are said. --sighan TEXTS TRUTH adds a test set of people's errors.
"""

import dataclasses
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from data.cache import cache_root
from data.corpora import open_corpus
from data.files import user_path
from data.holdout import find_split
from data.options import check_types
from data.statistics import Spread
from data.tokenizer import Tokenizer
from eval.command import barrier, command, note, open_checkpoints, said
from eval.correction.doubts import MARGINS, Limits, corrected, doubts, measured
from eval.correction.errors import Homophones, read_sighan, sentences_of
from eval.correction.soft_masked import CorrectorRecipe, encoded, proposed, trained
from eval.store import Store, digest_of, digest_of_model, key_of
from model import MaskedLM
from report.names import shortened
from training.machine import default_device, has_fast_bf16

METHODS = ("one pass", "one pass, homophones", "fine-tuned", "soft-masked")
SHOWN = ("detection F1", "correction precision", "correction recall", "correction F1", "right sentences left alone")

Pairs = tuple[list[str], list[str]]
"""Wrong texts and right ones."""


@dataclass(frozen=True)
class SoftMaskedConfig:
    """Train correctors, and compare them with the correction that needs no training."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote, on Chinese characters."""
    corpus: str
    """The Chinese text of the pretraining; its held-out part is used for dev and test."""
    held_out: float = 0.02
    """The share that pretraining held out."""
    sighan: tuple[Path, Path] | None = None
    """SIGHAN's two test files: texts, and their truth."""
    train: int = 20_000
    """Sentences to train on; half of them get errors."""
    dev: int = 300
    """Sentences to choose the margin and the epoch on."""
    test: int = 1_000
    """Sentences to measure on."""
    rate: float = 0.15
    """Share of the characters to replace in a sentence with errors."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training: each decides the detector's weights and the order of sentences. The errors are the same for all."""
    recipe: CorrectorRecipe = field(default_factory=CorrectorRecipe)
    out: Path = Path("runs/soft-masked")
    """Folder of results.jsonl; results that are there are kept and not run again."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("Name one or more checkpoints, and seeds, each once.")
        if min(self.train, self.dev, self.test) < 1 or not 0 < self.rate < 1 or not 0 < self.held_out <= 0.2:
            raise ValueError("train, dev and test must be at least 1, rate in (0, 1) and held_out in (0, 0.2].")


def made(config: SoftMaskedConfig) -> tuple[dict[str, Pairs], Homophones]:
    """train, dev and test: half of the sentences with errors. Raises ValueError for too little Chinese."""
    corpus = open_corpus(config.corpus, cache_root(None))
    sides: dict[bool, list[str]] = {False: [], True: []}
    for part in find_split(corpus, config.held_out)(corpus):
        sides[part.held_out].append(part.text)
    draw = random.Random(0)
    train, held_out = sentences_of(sides[False]), sentences_of(sides[True])
    if not train or len(held_out) < 2:
        raise ValueError(
            f"{config.corpus}: {len(train):,} Chinese sentences of 10 to 100 characters to train on, {len(held_out):,} held out; "
            "give Chinese text, more of it, or a larger --held-out."
        )
    draw.shuffle(train)
    draw.shuffle(held_out)
    homophones = Homophones(train)
    middle = min(config.dev, len(held_out) // 2)
    found = {}
    for name, own in (
        ("train", train[: config.train]),
        ("dev", held_out[:middle]),
        ("test", held_out[middle : middle + config.test]),
    ):
        wrong = [homophones.corrupted(s, config.rate, draw) if draw.random() < 0.5 else s for s in own]
        found[name] = wrong, own
    return found, homophones


def one_pass(
    model: MaskedLM, tokenizer: Tokenizer, sets: dict[str, Pairs], limits: Limits
) -> dict[str, dict[str, float]]:
    """Measures by test set, with the margin that is best on dev."""
    found = {name: doubts(model, tokenizer, wrong, limits) for name, (wrong, _) in sets.items() if name != "train"}

    def reached(name: str, margin: float) -> dict[str, float]:
        wrong, right = sets[name]
        return measured(wrong, right, [corrected(text, own, margin) for text, own in zip(wrong, found[name])])

    margin = max(MARGINS, key=lambda m: reached("dev", m).get("correction F1", 0.0))
    return {name: reached(name, margin) for name in found if name != "dev"}


def by_training(
    model: MaskedLM, tokenizer: Tokenizer, sets: dict[str, Pairs], config: SoftMaskedConfig, soft: bool, seed: int,
    console: Console,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Measures by test set. Raises ValueError where hardly a sentence keeps its number of tokens."""
    pairs, lost = encoded(*sets["train"], tokenizer, model.config.max_length)
    if len(pairs) < len(sets["train"][0]) / 2:
        raise ValueError(
            f"{lost:,} of {len(sets['train'][0]):,} sentences change their number of tokens by an error; take a checkpoint with "
            "a token for each character (--tokenizer-kind characters)."
        )
    if lost:
        note(
            f"{lost:,} of {len(sets['train'][0]):,} sentences change their number of tokens by an error and are left out.",
            console,
        )

    def judge(corrector) -> float:
        wrong, right = sets["dev"]
        return measured(wrong, right, proposed(corrector, wrong, tokenizer)).get("correction F1", 0.0)

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=1.0)
        corrector = trained(
            model, pairs, config.recipe, soft, seed, tokenizer.pad_id, judge,
            autocast=torch.bfloat16 if has_fast_bf16(default_device()) else None,
            progress=lambda share, text: bars.update(bar, completed=share, description=f"#{seed} {text}"),
        )  # fmt: skip
    return {
        name: measured(wrong, right, proposed(corrector, wrong, tokenizer))
        for name, (wrong, right) in sets.items()
        if name not in ("train", "dev")
    }


def run(config: SoftMaskedConfig, console: Console) -> int:
    sets, homophones = made(config)
    if config.sighan:
        sets["sighan"] = read_sighan(*map(user_path, config.sighan))
    console.print(", ".join(f"{name} {len(right):,} sentences" for name, (_, right) in sets.items()))
    confusions = {character: "".join(alike) for character, alike in homophones.like.items()}
    opened, store, records = open_checkpoints(config.checkpoints), Store(config.out), []
    failed: list[str] = []
    for sentence in store.repair():
        note(sentence, console)
    rows = {name: digest_of(list(zip(*pairs))) for name, pairs in sets.items()}
    for label, (model, tokenizer) in opened.items():
        weights = digest_of_model(model, tokenizer)
        for method in METHODS:
            once = method.startswith("one pass")
            for seed in config.seeds[:1] if once else config.seeds:
                how = {} if once else dataclasses.asdict(config.recipe) | {"seed": seed}
                key = key_of(method=method, model=weights, name=label, rows=rows, recipe=how)
                with barrier(f"{label}, {method}, seed {seed}", failed, config.out):
                    if (record := store.find(key)) is None:
                        if once:
                            limits = Limits(confusions=confusions if "homophones" in method else None)
                            found = one_pass(model, tokenizer, sets, limits)
                        else:
                            found = by_training(model, tokenizer, sets, config, method == "soft-masked", seed, console)
                        record = {"key": key, "checkpoint": label, "method": method, "seed": seed, "measures": found}
                        store.add(record)
                    records.append(record)
    if records:
        for name in [n for n in sets if n not in ("train", "dev")]:
            console.print(table(records, name))
        console.print(f"Results: {config.out}/results.jsonl", soft_wrap=True)
    return said(failed, console)


def table(records: list[dict], name: str) -> Table:
    """A row for each checkpoint and method, mean and standard deviation of its seeds."""
    called = shortened(list(dict.fromkeys(r["checkpoint"] for r in records)))
    found = Table(title=f"correction, {name} (± standard deviation of seeds)", title_justify="left")
    for column in ("checkpoint", "method", *SHOWN):
        found.add_column(column, overflow="fold")
    for label, method in dict.fromkeys((r["checkpoint"], r["method"]) for r in records):
        own = [r["measures"][name] for r in records if (r["checkpoint"], r["method"]) == (label, method)]
        cells = [Spread.of([m[c] for m in own]).text(".1f") if all(c in m for m in own) else "-" for c in SHOWN]
        found.add_row(escape(called[label]), method, *cells)
    return found


def main() -> int:
    return command(SoftMaskedConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
