"""Partition: two groups that do not see each other, each predicted from the other (partition generative modelling, Deschenaux
et al. 2025, arXiv 2505.18883).

Positions are split at random, another split for each sample. With g_i the group of position i:

    content   h_i <- Block(h_i, h_j for g_j = g_i)        starts from embedding(x_i); the first `encoder` layers
    query     q_i <- Block(q_i, h_j for g_j != g_i)       starts from [MASK] plus position; the other layers, h as it is

Every token is predicted in a pass, from content that is deep and holds nothing of its own group. The share of the smaller group
is drawn for each row, from `low` to `high`. `near` adds neighbours' raw embeddings: of the own group to content, of the other
group to where queries start. Leave-one-out asks for a group of one position, or of its word, and so needs a pass for each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.attention import attention
from model.architectures.base import Architecture, a_copy_for_each
from model.batch import Batch
from model.chance import uniform
from model.config import ModelConfig
from model.layers import Blocks
from model.neighbours import Near, neighbours


class Partition(Architecture):
    without_self = False
    passes_each = True

    @dataclass(frozen=True)
    class Options:
        encoder: int = 0
        low: float = 0.1
        high: float = 0.5
        near: int = 0

        def __post_init__(self) -> None:
            if not 0 < self.low <= self.high <= 0.5 or min(self.encoder, self.near) < 0:
                raise ValueError(
                    f"low {self.low} and high {self.high} must be rising shares, more than 0 and at most 0.5, and encoder "
                    f"{self.encoder} and near {self.near} not be negative."
                )

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.encoder = self.options.encoder or config.n_layers // 2
        if not self.encoder < config.n_layers:
            raise ValueError(f"encoder is {self.encoder}; it must be less than the {config.n_layers} layers.")
        self.blocks = Blocks.of(config, config.n_layers)
        self.neighbours = Near(config, self.options.near) if self.options.near else None

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        low, high = self.options.low, self.options.high
        share = low + (high - low) * uniform(batch, 6)[:, :1]
        return self.exchange(batch, uniform(batch, 5) < share, positions)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        """One group that holds everything, through all layers."""
        if not with_self:
            raise ValueError("partition has no states without self that see all others; use with_self=True.")
        x = self.embedding(batch.tokens, batch.documents)
        if self.neighbours is not None:
            x = x + self.neighbours(x, batch.layout)
        for block in self.blocks:
            x = block.self_attention(x, "full", batch.layout)
        return x

    def exchange(self, batch: Batch, group: Tensor, positions: Tensor | None = None) -> Tensor:
        """group: (B, N) bool, which of the two each position belongs to."""
        content = self.embedding(batch.tokens, batch.documents)  # (B, N, D)
        query = self.embedding.queries(batch.tokens, batch.documents)
        if self.neighbours is not None:
            own, other = self._near(self.neighbours, content, group, batch)
            content, query = content + own, query + other
        same = group[:, :, None] == group[:, None, :]
        for block in self.blocks[: self.encoder]:
            k, v = block.keys_values(block.read(content))
            read = attention(block.queries(content, content.shape[:2]), k, v, same, documents=batch.layout)
            content = block.update(content, read)
        last = len(self.blocks) - 1
        for i in range(self.encoder, len(self.blocks)):
            block = self.blocks[i]
            k, v = block.keys_values(block.read(content))
            read = attention(block.queries(query, content.shape[:2]), k, v, ~same, documents=batch.layout)
            query = block.update(query.expand_as(content), read, positions if i == last else None)
        return query

    def _near(self, near: Near, content: Tensor, group: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `near` reads of the own group, and of the other one: (B, N, D) each."""
        one, two = (
            neighbours(content.masked_fill(hidden[..., None], 0.0), batch.layout, self.options.near).flatten(2)
            for hidden in (~group, group)
        )
        return near.mix(torch.where(group[..., None], one, two)), near.mix(torch.where(group[..., None], two, one))

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        """A copy for each position, alone in its group, or with its span."""
        states = [self.exchange(c.batch, c.hidden, c.counted) for c in a_copy_for_each(batch, positions)]
        return torch.cat(states).view(*positions.shape, -1), positions.shape[1]
