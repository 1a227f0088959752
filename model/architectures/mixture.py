"""Rows of a causal language model beside rows of a masked one (GPT-BERT: Charpentier and Samuel 2024, arXiv 2410.24159).

The first rows of a batch, a share of them, predict the next token at every position under a causal visibility; the others are
masked. As in the paper, masked rows too predict a token from the position before it (`shift`), so that both kinds of row ask the
same of a state. The first token of a document has no position before it and is predicted from its own. `share_of_loss` is the
weight of the causal rows' mean.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data.masking import Masking
from model.architectures.causal_first import CausalFirst
from model.architectures.vanilla import Vanilla
from model.batch import Batch, PositionsByRow
from model.head import Head


class Mixture(CausalFirst):
    @dataclass(frozen=True)
    class Options(CausalFirst.Options):
        share: float = 0.25
        share_of_loss: float = 0.25
        shift: bool = True

    def phase(self, fraction: float) -> float:
        return 0.0

    def masking_at(self, fraction: float) -> Masking | None:
        return Vanilla.masking_at(self, fraction)

    def narrowed(self, tokens: Tensor, batch: Batch, own: PositionsByRow) -> Tensor:
        """The states that predict some positions: with `shift` those of the positions before them."""
        if not self.options.shift:
            return super().narrowed(tokens, batch, own)
        before = (own.slots - 1).clamp_min(0)
        if batch.documents is not None:
            same = batch.documents.gather(1, before) == batch.documents.gather(1, own.slots)
            before = torch.where(same, before, own.slots)
        return super().narrowed(tokens, batch, PositionsByRow(before, own.order))

    def loss(self, batch: Batch, head: Head) -> Tensor:
        count = round(self.options.share * len(batch.tokens))

        def rows(some: slice) -> Batch:
            return replace(
                batch,
                tokens=batch.tokens[some],
                documents=None if batch.documents is None else batch.documents[some],
                samples=None if batch.samples is None else batch.samples[some],
                corrupted=None,
                masked=None,
            )

        causal = super().loss(rows(slice(0, count)), head)
        rest = rows(slice(count, None))
        flat = batch.masked[count:].flatten()
        at = batch.positions[: batch.by_row.slots[count:].numel()] if flat.is_meta else flat.nonzero()[:, 0]
        states = self.narrowed(batch.corrupted[count:], rest, PositionsByRow.of(at, *rest.tokens.shape))
        masked = head.loss(states, rest.tokens.flatten().index_select(0, at))
        weight = self.options.share_of_loss
        return weight * causal + (1 - weight) * masked
