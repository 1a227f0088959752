"""Start from the weights of another model: `local:init=runs/NAME/checkpoints/vanilla-seed0`.

Weights are taken where their names and shapes agree: the embedding, the blocks (the first ones, where depths differ), the head.
What the other has not stays as it is initialised. Between checkpoints of this repository with one tokenizer; those of
others speak of other tokens, and are evaluated (`hf:...`), not started from.
"""

import hashlib
from dataclasses import dataclass

import torch

from data.files import user_path
from model import MaskedLM
from training.checkpoint import digest, last_good, load_model_from
from training.sharding import like


@dataclass(frozen=True)
class WarmStart:
    """source: the folder; sha256: of its weights; taken, left: parameters of the model that were taken and that were not, by the
    names of their modules; numbers: how many single weights were taken, of how many."""

    source: str
    sha256: str
    taken: tuple[str, ...]
    left: tuple[str, ...]
    numbers: tuple[int, int]

    def __str__(self) -> str:
        share = self.numbers[0] / self.numbers[1]
        rest = f"; new: {', '.join(self.left)}" if self.left else ""
        return f"starts from {self.source}: {share:.0%} of its weights ({', '.join(self.taken)}){rest}"


@torch.no_grad()
def warm_start(model: MaskedLM, source: str, tokenizer: str) -> WarmStart:
    """Take what fits. tokenizer: the hash of the run's.

    Raises FileNotFoundError or ValueError: no checkpoint, another tokenizer, or nothing that fits.
    """
    if source.startswith("hf:"):
        raise ValueError(
            f"{source}: a race starts from checkpoints of this repository alone, which have its tokenizer."
        )
    path = user_path(source)
    given = load_model_from(path)
    folder = path if (path / "manifest.json").exists() else last_good(path)[0]
    theirs = hashlib.sha256((folder / "tokenizer.model").read_bytes()).hexdigest()
    if theirs != tokenizer:
        raise ValueError(
            f"{source} was trained with another tokenizer (sha256 {theirs[:12]}, the run's {tokenizer[:12]}); give the run its "
            f"own: --tokenizer {folder / 'tokenizer.model'}."
        )
    found, taken, left, count = dict(given.named_parameters()), set(), set(), 0
    for name, p in model.named_parameters():
        fits = name in found and found[name].shape == p.shape
        (taken if fits else left).add(part_of(name))
        if fits:
            p.copy_(like(found[name].to(p.device), p))
            count += p.numel()
    if not count:
        raise ValueError(f"{source}: no weight of it has a name and a shape of this model's; take one of its width.")
    return WarmStart(
        source,
        digest(folder / "model.safetensors"),
        tuple(sorted(taken)),
        tuple(sorted(left)),
        (count, model.parameter_count()),
    )


def part_of(name: str) -> str:
    """`architecture.blocks.0.key.weight` -> `blocks.0`, `architecture.near.mix.weight` -> `near`."""
    parts = name.removeprefix("architecture.").split(".")
    return ".".join(parts[:2]) if parts[0] == "blocks" else parts[0]
