"""The default: T-TA with local content. Queries start from their neighbours; keys and values hold theirs.

    content   e_j = embedding(x_j), raw, the same in every layer
    query     g_i starts from [MASK] plus position plus W [e_(i-n) .. e_(i-1), e_(i+1) .. e_(i+n)]                  (near)
    layer l   g_i <- Block_l(g_i, attention over  K_l e_j + sum_t c_t K_l e_(j-t) + sum_t c'_t K_l e_(j+t)
                                  for |i - j| > taps; values alike)                                               (taps)

Nothing leaks: what position i starts from does not hold e_i and enters no other position; a key holds tokens at most `taps`
positions away, and its readers are farther. What is nearer they start from, so near is at least taps. The convolution ("canon"
layers: Allen-Zhu 2025) lets a query find the position where the same neighbours stood, before it and after it. `near=0,taps=0`
is T-TA.

`words=p`: while training, a share p of the words is hidden whole from each of its own positions (`Batch.spans`). Then i - n ..
i + n above are the neighbours of the word, |i - j| counts from its ends, and queries are told how far these are. `rest=r`: in a
share r of these words each position sees the word's tokens before it, and the word is learnt by the chain rule.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data.words import Hiding
from kernels.attention.visibility import BEYOND
from kernels.one_sided import two_sided
from model.architectures.base import Architecture, flat_positions
from model.batch import Batch
from model.config import ModelConfig
from model.layers import Blocks, by_layer, projected
from model.neighbours import Near, SpanEnds, query_start


class Local(Architecture):
    @dataclass(frozen=True)
    class Options:
        near: int = 2
        taps: int = 2
        words: float = 0.25
        rest: float = 0.25

        def __post_init__(self) -> None:
            Hiding(self.words, self.rest)
            if min(self.near, self.taps) < 0:
                raise ValueError(f"near is {self.near} and taps is {self.taps}; they must be 0 (off) or more.")
            if self.near < self.taps:
                raise ValueError(
                    f"near is {self.near} and taps is {self.taps}: what stands within the taps is read by near alone, so "
                    "near must be at least taps."
                )

    learning_rate = 4.5e-3
    added_options = (("words", 0.0), ("rest", 0.0))
    removed_options = (("sides", "both"), ("convolved", None), ("values", 0), ("grams", 0))

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        o = self.options
        self.hiding = Hiding(o.words, o.rest)
        self.blocks = Blocks.of(config, config.n_layers)
        self.neighbours = Near(config, o.near) if o.near else None
        self.ends = SpanEnds(config) if o.words else None
        self.tap_weights = (
            nn.Parameter(torch.zeros(2, o.taps, 2 * config.n_layers * config.d_model)) if o.taps else None
        )

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        return self.query_stream(batch, positions)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        return self.query_stream(batch, with_self=with_self)

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        """One pass, words hidden or not: of a word that is hidden no key, no value and no start holds anything."""
        return self.query_stream(batch, flat_positions(batch, positions)).view(*positions.shape, -1), 1

    def query_stream(self, batch: Batch, positions: Tensor | None = None, *, with_self: bool = False) -> Tensor:
        """with_self: the position's own embedding joins its start."""
        content = self.embedding(batch.tokens, batch.documents)  # (B, N, D)
        query = query_start(self, content, batch)
        if with_self:
            query = query + content
        kv = projected(self.blocks, content)
        if self.tap_weights is not None:
            kv = two_sided(kv, self.tap_weights, batch.layout)
        beyond, last = f"{BEYOND}{self.options.taps}", len(self.blocks) - 1
        for i, (block, (k, v)) in enumerate(zip(self.blocks, by_layer(self.blocks, kv))):
            query = block(query, k, v, beyond, batch.layout, positions if i == last else None, batch.spans)
        return query
