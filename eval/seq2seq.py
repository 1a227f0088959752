"""Fine-tune checkpoints to write: `python -m eval.seq2seq --checkpoints A B --data FILE` (make seq2seq).

A target from a source, as a title from its article, or the turns of a dialogue; see eval/writing/texts.py for the files and
model/generate.py for how a masked model writes. Small models write poor text. So beside ROUGE stands the perplexity of the true
targets, and the baseline that copies the beginning of the source.

OUT/  results.jsonl         a line for each checkpoint and seed; what is there is not run again
      written/NAME.jsonl    what was written for dev, beside what was wanted
      checkpoints/NAME      the fine-tuned model of each checkpoint and seed, for `python -m eval.chat`
"""

import dataclasses
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from data.extras import needs
from data.files import to_json, user_path, write_atomically
from data.options import check_types
from data.statistics import Spread
from data.tokenizer import Tokenizer
from eval.command import barrier, command, note, open_checkpoints, said
from eval.store import Record, Store, digest_of, digest_of_model, key_of
from eval.writing.texts import Row, lead, read, rouge, tokens_of
from eval.writing.train import WritingRecipe, fine_tuned
from model import MaskedLM
from model.decoding import beam_search
from model.generate import TAIL
from report.names import shortened
from training import checkpoint
from training.machine import default_device, has_fast_bf16

ROUGES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Fine-tune checkpoints to write, and measure what they write."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints of local, tta or vanilla."""
    data: Path
    """File of rows to train on."""
    dev: Path | None = None
    """File of rows to choose the epoch on and to measure on. Without it: a tenth of the rows, at most 500, drawn by seed 0."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of fine-tuning: each decides the order of the rows."""
    recipe: WritingRecipe = field(default_factory=WritingRecipe)
    beams: int = 4
    """Width of the beam search."""
    written: int = 200
    """How many rows of dev to write for; the NLL is measured on all."""
    longest: int = 128
    """Most tokens of source and target together; a longer source loses its end."""
    longest_target: int = 32
    """Most tokens of a target."""
    out: Path = Path("runs/seq2seq")
    """Folder for results; results that are there are kept and not run again."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("Name one or more checkpoints, and seeds, each once.")
        if min(self.beams, self.written) < 1 or self.longest_target < 2 or self.longest < self.longest_target + 4:
            raise ValueError(
                f"beams {self.beams} and written {self.written} must be at least 1, longest_target {self.longest_target} at "
                f"least 2 and longest {self.longest} at least 4 more than that."
            )


def run(config: Seq2SeqConfig, console: Console) -> int:
    train = read(user_path(config.data))
    if config.dev:
        dev = read(user_path(config.dev))
    else:
        random.Random(0).shuffle(train)
        count = min(500, len(train) // 10)
        if not count:
            raise ValueError(f"{config.data} has {len(train)} rows; of so few none can be held out: give --dev.")
        train, dev = train[count:], train[:count]
    if bool(train[0].source) != bool(dev[0].source):
        raise ValueError(
            "The training rows are of another kind than those of --dev; expected both with sources, or dialogues."
        )
    if dev[0].source:
        needs("rouge_score", "ROUGE", "requirements-more.txt")
    console.print(f"{len(train):,} rows to train on, dev {len(dev):,}")
    opened, store, records = open_checkpoints(config.checkpoints), Store(config.out), []
    failed: list[str] = []
    for sentence in store.repair():
        note(sentence, console)
    rows = {"train": digest_of(train), "dev": digest_of(dev)}
    how = {**dataclasses.asdict(config.recipe), "beams": config.beams, "written": config.written}
    how |= {"longest": config.longest, "longest_target": config.longest_target}
    for label, (model, tokenizer) in opened.items():
        weights = digest_of_model(model, tokenizer)
        for seed in config.seeds:
            key = key_of(method="seq2seq", model=weights, name=label, rows=rows, seed=seed, recipe=how)
            with barrier(f"{label}, seed {seed}", failed, config.out):
                if (found := store.find(key)) is None:
                    found = {"key": key, "checkpoint": label, "seed": seed}
                    found |= _outcome(config, label, model, tokenizer, train, dev, seed, console)
                    store.add(found)
                records.append(found)
    if records:
        base = (
            rouge([r.targets[0] for r in dev[: config.written]], lead(train, dev[: config.written]))
            if dev[0].source
            else None
        )
        console.print(table(records, base))
        console.print(f"Results: {config.out}/results.jsonl; what was written: {config.out}/written", soft_wrap=True)
    return said(failed, console)


def _outcome(
    config: Seq2SeqConfig, label: str, model: MaskedLM, tokenizer: Tokenizer, train: Sequence[Row], dev: Sequence[Row], seed: int,
    console: Console,
) -> Record:  # fmt: skip
    longest = min(config.longest, model.config.max_length - TAIL)
    encoded = [[tokens_of(row, tokenizer, longest, config.longest_target) for row in rows] for rows in (train, dev)]
    if cut := sum(was_cut for *_, was_cut in encoded[0]):
        note(
            f"{label}: {cut:,} of {len(train):,} training rows were cut to {longest} tokens, targets to {config.longest_target}.",
            console,
        )
    to_train, to_judge = ([(source, target) for source, target, _ in rows] for rows in encoded)
    autocast = torch.bfloat16 if has_fast_bf16(default_device()) else None
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(f"{label[-30:]} #{seed}", total=1.0)
        writer, nats, epoch = fine_tuned(
            model, to_train, to_judge, config.recipe, seed, tokenizer.pad_id, autocast=autocast,
            progress=lambda share, text: bars.update(bar, completed=share, description=f"{label[-30:]} #{seed} {text}"),
        )  # fmt: skip
    name = label.strip("/").replace("/", "_").replace(":", "_") + f"-seed{seed}"
    checkpoint.save(config.out / "checkpoints" / name, epoch, writer.model, {}, tokenizer.model)
    found: Record = {"nats": nats, "perplexity": math.exp(nats), "epoch": epoch}
    if dev[0].source:
        banned = [number for number in tokenizer.special_ids if number != tokenizer.eos_id]
        some = to_judge[: config.written]
        texts = [
            tokenizer.decode(beam_search(writer, source, tokenizer.eos_id, config.longest_target, config.beams, banned))
            for source, _ in some
        ]
        found |= rouge([row.targets[0] for row in dev[: len(some)]], texts)
        shown = ({"source": r.source, "wanted": r.targets[0], "written": t} for r, t in zip(dev, texts))
        path = config.out / "written" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(to_json(row) + "\n" for row in shown))
    return found


def table(records: Sequence[Record], base: dict[str, float] | None) -> Table:
    """A row for each checkpoint, mean and standard deviation of its seeds, and one for the baseline."""
    called = shortened(list(dict.fromkeys(r["checkpoint"] for r in records)))
    found = Table(title="writing, dev (± standard deviation of seeds)", title_justify="left")
    columns = ["nats", "perplexity", *(ROUGES if base else ())]
    for column in ("checkpoint", *("nats a token" if c == "nats" else c for c in columns)):
        found.add_column(column, overflow="fold")
    for label, name in called.items():
        own = [r for r in records if r["checkpoint"] == label]
        forms = [".3f" if c == "nats" else ".1f" for c in columns]
        found.add_row(escape(name), *(Spread.of([r[c] for r in own]).text(form) for c, form in zip(columns, forms)))
    if base:
        found.add_row("the beginning of the source", "", "", *(f"{base[c]:.1f}" for c in ROUGES))
    return found


def main() -> int:
    return command(Seq2SeqConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
