"""XLNet's two streams (Yang et al. 2019, arXiv 1906.08237): every position predicted in one pass, each from a part of the others.

A document's positions are put in a random order, another one for each sample. With rank r:

    content   h_i <- Block(h_i, h_j for r_j <= r_i)        starts from embedding(x_i)
    query     g_i <- Block(g_i, h_j for r_j <  r_i)        starts from [MASK] plus position; the same weights

Content is deep, and of the others a position sees half on average. Leave-one-out asks for a position that comes last, and so
needs a pass for each. `near` adds the neighbours' raw embeddings to where queries start, whatever their ranks; content must not
have them, for it would carry a token to positions of lower rank, and from there back.

`words=p`: a share p of the words stand in the order as wholes. Their tokens see those of the word that come before them there, so
that the word is learnt by the chain rule in random orders; near reads beyond the word, and queries are told how far its ends are.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data.words import Hiding
from kernels.attention import Spans, attention, two_stream_attention
from model.architectures.base import Architecture, a_copy_for_each
from model.batch import Batch
from model.chance import uniform
from model.config import ModelConfig
from model.layers import Blocks
from model.neighbours import Near, SpanEnds, query_start


class Permuted(Architecture):
    without_self = False
    passes_each = True
    added_options = (("words", 0.0),)

    @dataclass(frozen=True)
    class Options:
        near: int = 0
        words: float = 0.0

        def __post_init__(self) -> None:
            Hiding(self.words)
            if self.near < 0:
                raise ValueError(f"near is {self.near}; it must be 0 (off) or more.")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = Blocks.of(config, config.n_layers)
        self.neighbours = Near(config, self.options.near) if self.options.near else None
        self.hiding = Hiding(self.options.words)
        self.ends = SpanEnds(config) if self.options.words else None

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        score = uniform(batch)
        if batch.spans is not None:  # a word's score is its first token's, and its tokens come in an order of their own
            score = score.gather(1, batch.spans.first.long()) + 1e-9 * score
        return self.two_streams(batch, ranked(score, batch), positions)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        """The content stream, every position seeing all."""
        if not with_self:
            raise ValueError("permuted has no states without self that see all others; use with_self=True.")
        x = self.embedding(batch.tokens, batch.documents)
        for block in self.blocks:
            x = block.self_attention(x, "full", batch.layout)
        return x

    def two_streams(self, batch: Batch, rank: Tensor, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)  # (B, N, D)
        query = query_start(self, content, batch)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            k, v = block.keys_values(block.read(content))
            asking = block.queries(query, content.shape[:2])
            if i == last:  # the last content is not read
                asked = attention(asking, k, v, "rank_strict", documents=batch.layout, rank=rank)
                return block.update(query.expand_as(content), asked, positions)
            of_content = block.queries(content, content.shape[:2])
            seen, asked = two_stream_attention(of_content, asking, k, v, "rank", documents=batch.layout, rank=rank)
            content, query = block.update(content, seen), block.update(query.expand_as(content), asked)
        raise AssertionError("a model has at least one layer")

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        """A copy for each position, in an order in which it comes after all that it may see, and before what is hidden."""
        score, every = uniform(batch), torch.arange(batch.tokens.shape[1], device=positions.device)
        states = []
        for each in a_copy_for_each(batch, positions):
            spans = None if batch.spans is None else Spans(batch.spans.first[each.row], batch.spans.last[each.row])
            copies, own = replace(each.batch, spans=spans), every == each.position[:, None]  # (C, N)
            # The position itself after the others, and after it what is hidden from it.
            behind = own.double() + 2.0 * (each.hidden & ~own)
            states.append(self.two_streams(copies, ranked(score[each.row] + behind, copies), each.counted))
        return torch.cat(states).view(*positions.shape, -1), positions.shape[1]


def ranked(score: Tensor, batch: Batch) -> Tensor:
    """(B, N) int64: the rank of each position by `score` within its document; 0 at padding."""
    if batch.layout is None or batch.documents is None:
        return score.argsort(1).argsort(1)
    rank = (score + 8.0 * batch.layout.start).argsort(1).argsort(1) - batch.layout.start
    return rank.masked_fill(batch.documents < 0, 0)
