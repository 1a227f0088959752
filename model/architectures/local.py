"""T-TA with local content: queries that start from their neighbours, keys and values that hold theirs.

    content   e_j = embedding(x_j), raw, the same in every layer
    query     g_i starts from [MASK] plus place plus W [e_(i-n) .. e_(i-1), e_(i+1) .. e_(i+n)]                  (near)
    layer l   g_i <- Block_l(g_i, attention over  K_l e_j + sum_t c_t K_l e_(j-t) + sum_t c'_t K_l e_(j+t)
                                  for |i - j| > taps; values alike)                                       (sides=both)

Nothing leaks: what place i starts from does not hold e_i and enters no other place; a key holds tokens at most `taps` places
away, and its readers are farther. What is nearer they start from, so near is at least taps. The convolution ("canon" layers:
Allen-Zhu 2025) lets a query find the place where the same neighbours stood, before it and after it. `near=0,taps=0` is T-TA.

With `sides=one` a key is convolved from the side that its reader is not on, and read from next to it:

    layer l   one softmax over  K_l e_j + sum_t c_t K_l e_(j-t) for j < i,  K_l e_j + sum_t c'_t K_l e_(j+t) for j > i

`convolved=n`: the first n layers alone (by default all of them, of one side two); the others read raw keys of all j != i.
`grams=n` looks pairs of neighbours up in tables of n rows (model/grams.py) and adds what it finds to the query's start.
`values=n` adds a row of a table to the values of each token in n layers: static content may be any function of the token
(value embeddings of the modded-nanogpt speedruns, 2024).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.batch import Batch
from kernels.attention import attention, union_attention
from kernels.attention.visibility import BEYOND
from kernels.one_sided import one_sided, two_sided
from model.architectures.base import Architecture, flat_places
from model.config import ModelConfig
from model.convolved import attention_without, parts
from model.grams import Grams
from model.layers import Block, by_layer, projected
from model.neighbours import Near

KeysValues = tuple[Tensor, Tensor]


class Local(Architecture):
    @dataclass(frozen=True)
    class Options:
        near: int = 2
        taps: int = 2
        sides: Literal["both", "one"] = "both"
        convolved: int | None = None
        values: int = 0
        grams: int = 0

        def __post_init__(self) -> None:
            if min(self.near, self.taps, self.values, self.grams) < 0:
                raise ValueError(
                    f"near is {self.near}, taps is {self.taps}, values is {self.values} and grams is {self.grams}; they must "
                    "be 0 (off) or more."
                )
            if self.sides == "both" and self.near < self.taps:
                raise ValueError(
                    f"near is {self.near} and taps is {self.taps}: what stands within the taps is read by near alone, so "
                    "near must be at least taps (or sides=one)."
                )

    learning_rate = 4.5e-3
    before = (("grams", 0),)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.near = Near(config, self.options.near) if self.options.near else None
        self.grams = Grams(config, self.options.grams) if self.options.grams else None
        n = self.options.convolved
        if n is None:
            n = config.n_layers if self.options.sides == "both" else min(2, config.n_layers)
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
        """One pass, words hidden or not: of a word that is hidden no key, no value and no start holds anything."""
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
        query = self.query_start(content, batch, towers, hidden)
        if with_self:
            query = query + content
        sets = self.key_value_sets(content, batch, towers, hidden)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            q = block.queries(query, content.shape[:2])
            query = block.update(query, self.attend(i, q, sets[i], batch, hidden), places if i == last else None)
        return query

    def attend(self, layer: int, q: Tensor, sets: list[KeysValues], batch: Batch, hidden: Tensor | None) -> Tensor:
        """What the rows of a layer read of `key_value_sets`: how many sets it has says how they are read."""
        shown, documents = None if hidden is None else ~hidden, batch.layout
        if len(sets) > 2:
            return attention_without(q, sets, hidden, documents)
        if len(sets) == 2:
            (k_past, v_past), (k_future, v_future) = sets
            return union_attention(q, k_past, v_past, k_future, v_future, mask=shown, documents=documents)
        seen = shown
        if shown is None:
            seen = f"{BEYOND}{self.options.taps}" if layer in self.convolved else "exclude_self"
        return attention(q, *sets[0], seen, documents=documents)

    def directions(self, content: Tensor, batch: Batch) -> Any:
        """What a subclass makes of content that is deeper, for the two methods below. Here nothing."""

    def query_start(self, content: Tensor, batch: Batch, towers: Any, hidden: Tensor | None) -> Tensor:
        """Where queries start: (B, N, D), or one vector for all places."""
        query = self.embedding.queries(batch.tokens, batch.documents)
        if self.grams is not None:
            query = query + self.grams(batch.tokens, batch.layout, hidden)
        return query if self.near is None else query + self.near(content, batch.layout, hidden)

    def raw(self, content: Tensor, batch: Batch, layers: range) -> Tensor:
        """Keys and values of some layers of raw content (B, N, 2 L D), as `projected` lays them out."""
        kv = projected(self.blocks[layers.start : layers.stop], content)
        d, tables = self.config.d_model, range(layers.start, min(self.options.values, layers.stop))
        if not tables:
            return kv
        own = F.embedding(batch.tokens, self.values.weight[:, tables.start * d : tables.stop * d])
        return kv + F.pad(own, (len(layers) * d, (layers.stop - tables.stop) * d))

    def key_value_sets(
        self, content: Tensor, batch: Batch, towers: Any, hidden: Tensor | None
    ) -> list[list[KeysValues]]:
        """For each layer one pair of keys and values; of one side two, for readers after and before; of both sides, where more is
        hidden than a place itself, one for each term of the convolution."""
        n = len(self.convolved)
        sets: list[list[KeysValues]] = []
        if self.convolved:
            raw = self.raw(content, batch, self.convolved)
            if self.options.sides == "one":
                found = [one_sided(raw, w, side, batch.layout) for w, side in zip(self.taps, ("past", "future"))]
            elif hidden is None:
                found = [two_sided(raw, self.taps, batch.layout)]
            else:
                found = parts(self.taps, batch.layout, raw)
            sets += map(list, zip(*(by_layer(self.blocks[:n], kv) for kv in found)))
        if n < len(self.blocks):
            rest = range(n, len(self.blocks))
            sets += [[pair] for pair in by_layer(self.blocks[n:], self.raw(content, batch, rest))]
        return sets
