"""T-TA with local content: queries that start from their neighbours, keys and values convolved from one side.

    content   e_j = embedding(x_j), raw, the same in every layer
    query     g_i starts from [MASK] plus place plus W [e_(i-n) .. e_(i-1), e_(i+1) .. e_(i+n)]          (near)
    layer l   g_i <- Block_l(g_i, one softmax over  K_l e_j + sum_t c_t K_l e_(j-t)  for j < i,
                                                    K_l e_j + sum_t c'_t K_l e_(j+t) for j > i)          (taps; values alike)

Nothing leaks: what place i starts from does not hold e_i and enters no other place; a key before i holds places before it,
a key after i places after it. The convolution ("canon" layers: Allen-Zhu 2025) lets a query find the place where the same
neighbours stood before; the first two layers have it, or the first n with `convolved=n`. `near=0,taps=0` is T-TA. `values=n`
adds a row of a table to the values of each token in n layers: static content may be any function of the token (value
embeddings of the modded-nanogpt speedruns, 2024).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.batch import Batch
from kernels.attention import attention, union_attention
from kernels.one_sided import one_sided
from model.architectures.base import Architecture, flat_places
from model.config import ModelConfig
from model.layers import Block, by_layer, projected
from model.neighbours import Near


class Local(Architecture):
    @dataclass(frozen=True)
    class Options:
        near: int = 3
        taps: int = 3
        convolved: int | None = None
        values: int = 0

        def __post_init__(self) -> None:
            if min(self.near, self.taps, self.values) < 0:
                raise ValueError(
                    f"near is {self.near}, taps is {self.taps} and values is {self.values}; they must be 0 (off) or more."
                )

    learning_rate = 4.5e-3

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.near = Near(config, self.options.near) if self.options.near else None
        n = self.options.convolved
        if n is None:
            n = min(2, config.n_layers)
        if not 1 <= n <= config.n_layers:
            raise ValueError(
                f"convolved is {n}; it must be from 1 to the {config.n_layers} layers (taps=0 convolves none)."
            )
        if self.options.values > config.n_layers:
            raise ValueError(f"values is {self.options.values}; it must be at most the {config.n_layers} layers.")
        self.convolved = range(n if self.options.taps else 0)
        self.taps = nn.Parameter(torch.zeros(2, self.options.taps, 2 * n * config.d_model)) if self.convolved else None
        count = self.options.values
        self.values = nn.Embedding(config.vocab_size, count * config.d_model) if count else None

    def predict(self, batch: Batch, places: Tensor | None = None) -> Tensor:
        return self.query_stream(batch, places)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        return self.query_stream(batch, with_self=with_self)

    def leave_one_out(self, batch: Batch, places: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, int]:
        """One pass, words hidden or not: beyond a word, one-sided content holds nothing of it."""
        states = self.query_stream(batch, flat_places(batch, places), hidden=hidden)
        return states.view(*places.shape, -1), 1

    def query_stream(
        self, batch: Batch, places: Tensor | None = None, *, with_self: bool = False, hidden: Tensor | None = None
    ) -> Tensor:
        """with_self: the place's own embedding joins its start. hidden: what place i must not see of j, (B, N, N)."""
        content = self.embedding(batch.tokens, batch.documents)  # (B, N, D)
        towers = self.directions(content, batch)
        return self.queries_over(content, towers, batch, places, with_self, hidden)

    def queries_over(
        self, content: Tensor, towers: Any, batch: Batch, places: Tensor | None, with_self: bool, hidden: Tensor | None
    ) -> Tensor:
        """The query stream, given content."""
        layout = batch.layout
        query = self.query_start(content, batch, towers, hidden)
        if with_self:
            query = query + content
        sets = self.key_value_sets(content, batch, towers)
        shown = None if hidden is None else ~hidden
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            q = block.queries(query, content.shape[:2])
            if len(sets[i]) == 1:
                seen = "exclude_self" if shown is None else shown
                attended = attention(q, *sets[i][0], seen, documents=layout)
            else:
                past, future = sets[i]
                attended = union_attention(q, *past, *future, mask=shown, documents=layout)
            query = block.update(query, attended, places if i == last else None)
        return query

    def directions(self, content: Tensor, batch: Batch) -> Any:
        """What a subclass makes of content that is deeper, for the two methods below. Here nothing."""

    def query_start(self, content: Tensor, batch: Batch, towers: Any, hidden: Tensor | None) -> Tensor:
        """Where queries start: (B, N, D), or one vector for all places."""
        query = self.embedding.queries(batch.tokens, batch.documents)
        return query if self.near is None else query + self.near(content, batch.layout, hidden)

    def raw(self, content: Tensor, batch: Batch, layers: range) -> Tensor:
        """Keys and values of some layers of raw content (B, N, 2 L D), as `projected` lays them out."""
        kv = projected(self.blocks[layers.start : layers.stop], content)
        d, tables = self.config.d_model, range(layers.start, min(self.options.values, layers.stop))
        if not tables:
            return kv
        own = F.embedding(batch.tokens, self.values.weight[:, tables.start * d : tables.stop * d])
        return kv + F.pad(own, (len(layers) * d, (layers.stop - tables.stop) * d))

    def key_value_sets(self, content: Tensor, batch: Batch, towers: Any) -> list[list[tuple[Tensor, Tensor]]]:
        """For each layer one pair of keys and values for all readers, or a pair for those after and one for those before."""
        n = len(self.convolved)
        sets = []
        if self.convolved:
            raw = self.raw(content, batch, self.convolved)
            sides = [one_sided(raw, weight, side, batch.layout) for weight, side in zip(self.taps, ("past", "future"))]
            sets += zip(*(by_layer(self.blocks[:n], side) for side in sides))
        if n < len(self.blocks):
            rest = range(n, len(self.blocks))
            sets += [[pair] for pair in by_layer(self.blocks[n:], self.raw(content, batch, rest))]
        return sets
