"""Architectures that leak, each by one mistake, and one that looks like them and does not: what the certificate must catch."""

from dataclasses import replace

import torch
from torch import Tensor

from kernels.attention import Spans, attention
from kernels.one_sided import two_sided
from model.architectures.bicausal import Bicausal
from model.architectures.local import Local
from model.architectures.partition import Partition
from model.architectures.permuted import Permuted
from model.architectures.tta import TTA
from model.batch import Batch
from model.config import ModelConfig
from model.layers import by_layer, hoisted_keys_values, projected
from model.neighbours import query_start


class OpenDiagonal(TTA):
    """T-TA that forgot its mask."""

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        return self.query_stream(batch, "full")


class DeepContent(TTA):
    """T-TA whose content is contextual: each layer hides the diagonal, and position i still meets token i through j."""

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = self.embedding.queries(batch.tokens, batch.documents)
        for block in self.blocks:
            k, v = block.keys_values(block.read(content))
            query = block(query, k, v, "exclude_self", batch.documents)
            content = block.self_attention(content, "full", batch.documents)
        return query


class Shifting(TTA):
    """T-TA whose query stream also reads the raw embedding of the position before, put there by `shift`."""

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = self.embedding.queries(batch.tokens, batch.documents) + self.shift(content, batch)
        for block, (k, v) in zip(self.blocks, hoisted_keys_values(self.blocks, content)):
            query = block(query, k, v, "exclude_self", batch.layout)
        return query

    def shift(self, content: Tensor, batch: Batch) -> Tensor:
        """The right one: nothing before the first position, and nothing of another document."""
        before = torch.zeros_like(content)
        before[:, 1:] = content[:, :-1]
        if batch.documents is not None:
            before[:, 1:] *= (batch.documents[:, 1:] == batch.documents[:, :-1])[..., None]
        return before


class WrapAround(Shifting):
    """A shift by the whole row: the position itself, as `roll` by a multiple of the length gives it."""

    def shift(self, content: Tensor, batch: Batch) -> Tensor:
        return content.roll(content.shape[1], dims=1) * (torch.arange(content.shape[1]) == 0)[:, None]


class WindowOffByOne(Shifting):
    """A window of neighbours that begins at the position itself."""

    def shift(self, content: Tensor, batch: Batch) -> Tensor:
        return super().shift(content, batch) + 0.1 * content


class MixedQueries(Shifting):
    """Neighbours mixed inside the query stream, after a layer: they have read what is hidden here."""

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = self.embedding.queries(batch.tokens, batch.documents)
        for block, (k, v) in zip(self.blocks, hoisted_keys_values(self.blocks, content)):
            query = block(query, k, v, "exclude_self", batch.layout)
            query = query + self.shift(query, batch)
        return query


class ConvolvedContent(Shifting):
    """Keys and values that hold the position before theirs: two-sided reading brings a token back to its own position."""

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = self.embedding.queries(batch.tokens, batch.documents)
        mixed = content + self.shift(content, batch)
        for block, (k, v) in zip(self.blocks, hoisted_keys_values(self.blocks, mixed)):
            query = block(query, k, v, "exclude_self", batch.layout)
        return query


class OwnState(Bicausal):
    """Queries that start from their own forward state instead of the one before."""

    def starts(self, towers, batch) -> Tensor:
        return torch.cat([towers[0][-1], towers[1][-1]], -1)


class SwappedTowers(Bicausal):
    """Keys before a position that hold what stands after them."""

    def directions(self, content: Tensor, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        return super().directions(content, batch)[::-1]


class TooNear(Local):
    """Keys that hold two neighbours on each side, read from two positions away. The taps start at zero, which would hide it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.tap_weights)

    def query_stream(self, batch: Batch, positions: Tensor | None = None, *, with_self: bool = False) -> Tensor:
        options, self.options = self.options, replace(self.options, taps=1)
        try:
            return super().query_stream(batch, positions, with_self=with_self)
        finally:
            self.options = options


class Spanned(Local):
    """A local model of which one thing reads other spans than the batch's; its taps do not start at zero."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        torch.nn.init.normal_(self.tap_weights)

    def attended(self, spans: Spans) -> Spans:
        return spans

    def started(self, spans: Spans) -> Spans:
        return spans

    def query_stream(self, batch: Batch, positions: Tensor | None = None, *, with_self: bool = False) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = query_start(self, content, replace(batch, spans=self.started(batch.spans)))
        kv = two_sided(projected(self.blocks, content), self.tap_weights, batch.layout)
        for block, (k, v) in zip(self.blocks, by_layer(self.blocks, kv)):
            query = block(query, k, v, "beyond_2", batch.layout, None, self.attended(batch.spans))
        return query


class SpanOffByOne(Spanned):
    """Attention that hides all of a span but its first position."""

    def attended(self, spans: Spans) -> Spans:
        position = torch.arange(spans.shape[1], dtype=torch.int32)
        return Spans(torch.minimum(spans.first + 1, position), spans.last)


class SpanOffAtItsEnd(Spanned):
    """Attention that hides all of a span but its last position."""

    def attended(self, spans: Spans) -> Spans:
        position = torch.arange(spans.shape[1], dtype=torch.int32)
        return Spans(spans.first, torch.maximum(spans.last - 1, position))


class SpanWithoutTaps(Spanned):
    """Keys read from next to the span: they hold two of its tokens."""

    def attended(self, spans: Spans) -> Spans:
        position = torch.arange(spans.shape[1], dtype=torch.int32)
        return Spans(torch.minimum(spans.first + 2, position), torch.maximum(spans.last - 2, position))


class NearInsideTheSpan(Spanned):
    """Queries that start from the neighbours of the position, not from those of its span."""

    def started(self, spans: Spans) -> Spans:
        position = torch.arange(spans.shape[1], dtype=torch.int32).expand_as(spans.first)
        return Spans(position, position)


class AnotherRowsSpans(Spanned):
    """The spans of the next row of the batch."""

    def attended(self, spans: Spans) -> Spans:
        return Spans(spans.first.roll(1, 0), spans.last.roll(1, 0))

    started = attended


class EqualRanks(Permuted):
    """A query that sees its own rank too."""

    seen = "rank"

    def mixed(self, content: Tensor) -> Tensor:
        return content

    def two_streams(self, batch: Batch, rank: Tensor, positions=None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query, content = self.embedding.queries(batch.tokens, batch.documents).expand_as(content), self.mixed(content)
        for block in self.blocks:
            k, v = block.keys_values(block.read(content))
            asked = attention(
                block.queries(query, content.shape[:2]), k, v, self.seen, documents=batch.layout, rank=rank
            )
            query = block.update(query, asked)
        return query


class NearContent(EqualRanks):
    """Content that holds its neighbours, whatever their ranks: a token comes back through them."""

    seen = "rank_strict"

    def mixed(self, content: Tensor) -> Tensor:
        return content + content.roll(1, 1)


class OwnGroup(Partition):
    """Queries that read both groups."""

    def exchange(self, batch: Batch, group: Tensor, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = self.embedding.queries(batch.tokens, batch.documents)
        for block in self.blocks[self.encoder :]:
            k, v = block.keys_values(block.read(content))
            query = block(query, k, v, "full", batch.layout)
        return query


class MixedGroups(Partition):
    """Content that reads both groups: a token comes back through the other one."""

    def exchange(self, batch: Batch, group: Tensor, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = self.embedding.queries(batch.tokens, batch.documents)
        for block in self.blocks[: self.encoder]:
            content = block.self_attention(content, "full", batch.layout)
        for block in self.blocks[self.encoder :]:
            k, v = block.keys_values(block.read(content))
            asked = block.queries(query, content.shape[:2])
            other = group[:, :, None] != group[:, None, :]
            query = block.update(query.expand_as(content), attention(asked, k, v, other, documents=batch.layout))
        return query


class AcrossDocuments(Shifting):
    """A convolution that forgets where documents end."""

    def shift(self, content: Tensor, batch: Batch) -> Tensor:
        return super().shift(content, replace(batch, documents=None))


SPAN_LEAKS = [SpanOffByOne, SpanOffAtItsEnd, SpanWithoutTaps, NearInsideTheSpan, AnotherRowsSpans]
LEAKS = [OwnGroup, MixedGroups, OwnState, SwappedTowers, EqualRanks, NearContent, TooNear]
LEAKS += [OpenDiagonal, DeepContent, WrapAround, WindowOffByOne, MixedQueries, ConvolvedContent]
