"""Causal first: next-token prediction for a share of the budget, then masked prediction (Gisserot-Boukhlef et al. 2025, arXiv
2507.00994: the best of its models at fixed compute).

For the first `share` of the budget every position predicts the next token of its document under a causal visibility: every
token gives a loss, from one side. Then the model is vanilla, with vanilla's options. The rate follows the share of the budget as
ever, so both parts are under one schedule, annealed once. FLOPs are counted as the part at hand needs them.
"""

from dataclasses import dataclass

from torch import Tensor

from data.masking import Masking
from model.architectures.vanilla import Vanilla
from model.batch import Batch
from model.config import ModelConfig
from model.head import Head


class CausalFirst(Vanilla):
    added_options = ()
    removed_options = ()

    @dataclass(frozen=True)
    class Options(Vanilla.Options):
        share: float = 0.3

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.share < 1:
                raise ValueError(
                    f"share is {self.share}; the causal part's share of the budget must lie between 0 and 1."
                )

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if self.neighbours is not None or self.tap_weights is not None:
            raise ValueError(
                "near and taps read what stands after a position, which the causal part must not; leave them off."
            )

    def phase(self, fraction: float) -> float:
        return 0.0 if fraction < self.options.share else 1.0

    def masking_at(self, fraction: float) -> Masking | None:
        return super().masking_at(fraction) if self.phase(fraction) else None

    def loss(self, batch: Batch, head: Head) -> Tensor:
        if batch.masked is not None:
            return super().loss(batch, head)
        x = self.embedding(batch.tokens, batch.documents)
        for block in self.blocks:
            x = block.self_attention(x, "before", batch.layout)
        here, following = x[:, :-1], batch.tokens[:, 1:]
        if batch.documents is None:
            return head.loss(here.flatten(0, 1), following.flatten())
        same = (batch.documents[:, 1:] == batch.documents[:, :-1]) & (batch.documents[:, 1:] >= 0)
        at = same.flatten().nonzero()[:, 0]
        return head.loss(here.flatten(0, 1).index_select(0, at), following.flatten().index_select(0, at))
