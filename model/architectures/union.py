"""The union of `local` and `partition`: queries read raw local content everywhere, and deep content of the other group.

Positions are split at random, another split for each sample; the positions of a word that is hidden whole are of one group.

    deep      h_i <- Block(h_i, h_j for g_j = g_i)         starts from embedding(x_i) and its neighbours of the own group
    query     q_i <- Block(q_i, local's keys and values beyond the span and the taps, and of h_j for g_j != g_i)

One softmax runs over both. A deep state holds tokens of its own group alone, and is read by the other one alone, so token i never
reaches position i. Leave-one-out asks for a group of one position, or of its word, and so needs a pass for each.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.attention import Spans, attention
from kernels.attention.visibility import BEYOND, visible_BNN
from kernels.one_sided import two_sided
from model.architectures.base import Architecture, a_copy_for_each, check_words
from model.batch import Batch
from model.chance import uniform
from model.config import ModelConfig
from model.layers import Block, by_layer, projected
from model.neighbours import Near, SpanEnds, neighbours, query_start


class Union(Architecture):
    without_self = False
    passes_each = True
    learning_rate = 4.5e-3

    @dataclass(frozen=True)
    class Options:
        encoder: int = 1
        low: float = 0.1
        high: float = 0.5
        near: int = 2
        taps: int = 2
        words: float = 0.25

        def __post_init__(self) -> None:
            check_words(self.words)
            if not 0 < self.low <= self.high <= 0.5 or self.encoder < 1 or not 1 <= self.taps <= self.near:
                raise ValueError(
                    "low and high must be rising shares up to 0.5, encoder at least 1, near at least taps, which are 1 or more."
                )

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        o = self.options
        self.hidden_words = o.words
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.tower = nn.ModuleList(Block(config) for _ in range(o.encoder))
        self.near, self.near_own = Near(config, o.near), Near(config, o.near)
        self.ends = SpanEnds(config)
        self.taps = nn.Parameter(torch.zeros(2, o.taps, 2 * config.n_layers * config.d_model))
        width = config.d_model
        self.deep = nn.ModuleList(nn.Linear(width, 2 * width, bias=config.bias) for _ in range(config.n_layers))

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        low, high = self.options.low, self.options.high
        lots = uniform(batch, 5)
        if batch.spans is not None:
            lots = lots.gather(1, batch.spans.first.long())
        return self.united(batch, lots < low + (high - low) * uniform(batch, 6)[:, :1], positions)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        """One group that holds everything; queries start from their own token too and read all of its deep states."""
        if not with_self:
            raise ValueError("union has no states without self that see all others; use with_self=True.")
        return self.united(batch, None)

    def united(self, batch: Batch, group: Tensor | None, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = query_start(self, content, batch)
        documents = (
            batch.documents if batch.documents is not None else torch.zeros_like(batch.tokens, dtype=torch.int32)
        )
        beyond = visible_BNN(f"{BEYOND}{self.options.taps}", documents, spans=batch.spans)
        island = (documents[:, :, None] == documents[:, None]) & (documents >= 0)[:, :, None]
        if group is None:
            query = query + content
            same = other = island
            own = self.near_own(content, batch.layout)
        else:
            same = (group[:, :, None] == group[:, None]) & island
            other = ~same & island
            one, two = (
                neighbours(content.masked_fill(hidden[..., None], 0.0), batch.layout, self.options.near).flatten(2)
                for hidden in (~group, group)
            )
            own = self.near_own.mix(torch.where(group[..., None], one, two))
        deep = content + own
        for block in self.tower:
            k, v = block.keys_values(block.read(deep))
            deep = block.update(deep, attention(block.queries(deep, content.shape[:2]), k, v, same))
        seen = torch.cat([beyond, other], 2)[:, None]
        kv = two_sided(projected(self.blocks, content), self.taps, batch.layout)
        last = len(self.blocks) - 1
        for i, (block, (k, v)) in enumerate(zip(self.blocks, by_layer(self.blocks, kv))):
            deep_k, deep_v = self.deep[i](block.read(deep)).chunk(2, -1)
            k = torch.cat([k, block.heads(deep_k, block.rotary)], 2)
            v = torch.cat([v, block.heads(deep_v)], 2)
            q = block.queries(query, content.shape[:2])
            asked = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, seen)
            query = block.update(query.expand_as(content), asked, positions if i == last else None)
        return query

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        """A copy for each position, alone in its group, or with its span."""
        states = []
        for each in a_copy_for_each(batch, positions):
            spans = None
            if batch.spans is not None:
                spans = Spans(batch.spans.first[each.row], batch.spans.last[each.row])
            states.append(self.united(replace(each.batch, spans=spans), each.hidden, each.counted))
        return torch.cat(states).view(*positions.shape, -1), positions.shape[1]
