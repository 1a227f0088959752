"""Start from the weights of another model: `local:init=runs/NAME/checkpoints/vanilla-seed0`.

Weights are taken where their names and shapes agree: the embedding, the blocks (the first ones, where depths differ), the head.
Weights that the other model lacks stay as they are initialised. With another tokenizer the rows of pieces that both have are
taken, and a piece
that is new starts from the mean of the rows that the old tokenizer spells it with (WoBERT, Su Jianlin 2020, which so turned a
model of Chinese characters into one of words). Between checkpoints of this repository alone; those of others are evaluated
(`hf:...`), not started from.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.files import user_path
from data.tokenizer import Tokenizer
from model import MaskedLM
from training.checkpoint import digest, load_model_from, whole_checkpoint
from training.sharding import like


@dataclass(frozen=True)
class WarmStart:
    """source: the folder; sha256: of its weights; taken, left: parameters of the model that were taken and that were not, by the
    names of their modules; numbers: how many single weights were taken, of how many; spelt: of another tokenizer how many pieces
    start from a mean of rows, of how many."""

    source: str
    sha256: str
    taken: tuple[str, ...]
    left: tuple[str, ...]
    numbers: tuple[int, int]
    spelt: tuple[int, int] | None = None

    def __str__(self) -> str:
        share = self.numbers[0] / self.numbers[1]
        rest = f"; new: {', '.join(self.left)}" if self.left else ""
        other = ""
        if self.spelt:
            count, of = self.spelt
            other = f"; it has another tokenizer: {count:,} of {of:,} pieces start from the mean of what spelt them"
        return f"starts from {self.source}: {share:.0%} of its weights ({', '.join(self.taken)}){rest}{other}"


@torch.no_grad()
def warm_start(model: MaskedLM, source: str, tokenizer: Tokenizer) -> WarmStart:
    """Take the weights that fit. tokenizer: that of the run.

    Raises FileNotFoundError or ValueError: no checkpoint, or nothing that fits.
    """
    if source.startswith("hf:"):
        raise ValueError(
            f"{source}: a race starts from checkpoints of this repository alone, which have its tokenizer."
        )
    folder = whole_checkpoint(user_path(source))
    given = load_model_from(folder)
    theirs = Tokenizer.load(folder / "tokenizer.model")
    rows = None if theirs.hash == tokenizer.hash else spelling(tokenizer, theirs)
    found: dict[str, Tensor] = dict(given.named_parameters())
    taken: set[str] = set()
    left: set[str] = set()
    count = 0
    for name, p in model.named_parameters():
        value = found.get(name)
        if value is not None and rows and value.shape[:1] == (theirs.vocab_size,) and len(p) == tokenizer.vocab_size:
            value = means(value, rows)
        if value is None or value.shape != p.shape:
            left.add(part_of(name))
        else:
            taken.add(part_of(name))
            p.copy_(like(value.to(p.device), p))
            count += p.numel()
    if not count:
        raise ValueError(
            f"{source}: none of its weights fits this model by name and shape; take a checkpoint of the same width."
        )
    return WarmStart(
        source,
        digest(folder / "model.safetensors"),
        tuple(sorted(taken)),
        tuple(sorted(left)),
        (count, model.parameter_count()),
        None if rows is None else (sum(len(row) > 1 for row in rows), len(rows)),
    )


def spelling(new: Tokenizer, old: Tokenizer) -> list[list[int]]:
    """Of each piece of `new` the pieces of `old` that spell it; specials and bytes are themselves."""
    known = {piece: number for number, piece in enumerate(old.pieces(range(old.vocab_size)))}
    found = [
        [known[piece]] if piece in known else old.encode_inside(piece.replace("▁", " "))
        for piece in new.pieces(range(new.vocab_size))
    ]
    for number, other in zip(new.special_ids, old.special_ids):
        found[number] = [other]
    return found


def means(table: Tensor, rows: list[list[int]]) -> Tensor:
    """(V, ...) -> (len(rows), ...), of each list the mean of these rows."""
    counts = torch.tensor([len(row) for row in rows])
    own = torch.arange(len(rows)).repeat_interleave(counts)
    total = table.new_zeros(len(rows), *table.shape[1:])
    total.index_add_(0, own, table[torch.tensor([number for row in rows for number in row])])
    return total / counts.view(-1, *[1] * (table.dim() - 1))


def part_of(name: str) -> str:
    """`architecture.blocks.0.key.weight` -> `blocks.0`, `architecture.neighbours.mix.weight` -> `neighbours`."""
    parts = name.removeprefix("architecture.").split(".")
    return ".".join(parts[:2]) if parts[0] == "blocks" else parts[0]
