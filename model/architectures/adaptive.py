"""Adaptive masking (Edman and Fraser 2025, arXiv 2510.20475): what is badly predicted is trained more often.

For each type of token a running mean of the probability that it was given where it had to be predicted, p. Vanilla masks as many
positions of a row as ever, drawn by (1 - p)^strength in place of evenly; `local`, which predicts everything, weighs its losses so.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.linear_cross_entropy import linear_cross_entropy
from model.architectures.local import Local
from model.architectures.vanilla import Vanilla
from model.batch import Batch, PositionsByRow
from model.chance import uniform
from model.config import ModelConfig
from model.head import Head

RATE = 0.02
FLOOR = 0.02


class Known:
    """Mixed into an architecture: what it knows of each type."""

    def begin(self, config: ModelConfig) -> None:
        self.register_buffer("known", torch.zeros(config.vocab_size))

    def weights(self, tokens: Tensor) -> Tensor:
        return (1 - self.known[tokens]).clamp_min(FLOOR) ** self.options.strength

    def losses(self, states: Tensor, targets: Tensor, head: Head) -> Tensor:
        each = linear_cross_entropy(
            head.features(states), head.table.weight, targets, head.bias, ignore_index=None, reduction="none"
        )
        with torch.no_grad():
            count = torch.zeros_like(self.known).index_add_(0, targets, torch.ones_like(each, dtype=self.known.dtype))
            right = torch.zeros_like(self.known).index_add_(0, targets, (-each).exp().to(self.known.dtype))
            keep = (1 - RATE) ** count
            self.known.copy_(keep * self.known + (1 - keep) * right / count.clamp_min(1))
        return each


class AdaptiveVanilla(Known, Vanilla):
    added_options = ()
    removed_options = ()

    @dataclass(frozen=True)
    class Options(Vanilla.Options):
        strength: float = 1.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.begin(config)

    def loss(self, batch: Batch, head: Head) -> Tensor:
        rows, length = batch.tokens.shape
        wanted = batch.by_row.slots.shape[1]
        lots = uniform(batch, 7).clamp_min(1e-12).log() / self.weights(batch.tokens).double()
        special = torch.zeros_like(batch.tokens, dtype=torch.bool)
        for token in range(self.config.mask_id + 1):
            special |= batch.tokens == token
        slots = lots.masked_fill(special, -torch.inf).topk(wanted, 1).indices.sort(1).values
        masked = torch.zeros_like(special).scatter_(1, slots, True) & ~special
        own = PositionsByRow(slots, torch.arange(slots.numel(), device=slots.device))
        corrupted = batch.tokens.masked_fill(masked, self.config.mask_id)
        states = self.narrowed(corrupted, replace(batch, corrupted=corrupted, masked=masked), own)
        return self.losses(states, batch.tokens.gather(1, slots).flatten(), head).mean()


class AdaptiveLocal(Known, Local):
    added_options = ()
    removed_options = ()

    @dataclass(frozen=True)
    class Options(Local.Options):
        strength: float = 1.0

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.begin(config)

    def loss(self, batch: Batch, head: Head) -> Tensor:
        targets = batch.tokens.flatten()
        weights = self.weights(targets)
        each = self.losses(self.predict(batch).flatten(0, 1), targets, head)
        return (each * weights).sum() / weights.sum()
