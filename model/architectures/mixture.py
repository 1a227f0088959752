"""Rows of a causal language model beside rows of a masked one (GPT-BERT: Charpentier and Samuel 2024, arXiv 2410.24159).

The first rows of a batch, a share of them, predict the next token at every position under a causal visibility; the others are
vanilla's. `share_of_loss` is the weight of the causal rows' mean; GPT-BERT's masked rows predict from the position before, these
from their own.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from model.architectures.causal_first import CausalFirst
from model.architectures.vanilla import Vanilla
from model.batch import Batch, PositionsByRow
from model.head import Head


class Mixture(CausalFirst):
    @dataclass(frozen=True)
    class Options(CausalFirst.Options):
        share: float = 0.25
        share_of_loss: float = 0.25

    def phase(self, fraction: float) -> float:
        return 0.0

    def masking_at(self, fraction: float):
        return Vanilla.masking_at(self, fraction)

    def loss(self, batch: Batch, head: Head) -> Tensor:
        count = round(self.options.share * len(batch.tokens))

        def rows(some: slice) -> Batch:
            whole = replace(
                batch,
                tokens=batch.tokens[some],
                documents=None if batch.documents is None else batch.documents[some],
                samples=None if batch.samples is None else batch.samples[some],
                corrupted=None,
                masked=None,
            )
            return whole

        causal = super().loss(rows(slice(0, count)), head)
        rest = rows(slice(count, None))
        slots = batch.by_row.slots[count:]
        flat = batch.masked[count:].flatten()
        if flat.is_meta:
            at = batch.positions[: slots.numel()]
            own = PositionsByRow.of(at, *rest.tokens.shape)
        else:
            at = flat.nonzero()[:, 0]
            own = PositionsByRow.of(at, *rest.tokens.shape)
        states = self.narrowed(batch.corrupted[count:], rest, own)
        masked = head.loss(states, rest.tokens.flatten().index_select(0, at))
        weight = self.options.share_of_loss
        return weight * causal + (1 - weight) * masked
