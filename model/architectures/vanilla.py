"""Vanilla masked language modelling (BERT, Devlin et al. 2019): one stream, [MASK]s in the input, full visibility.

The baseline that everything is compared with. A pass predicts the masked places only. Masking rate after Wettig et al.
2023 (arXiv 2202.08005): 15% is BERT's, more is often better, and plain [MASK] beats 80/10/10; 30% by our sweep (docs/tuning.md).
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from data.batch import Batch
from data.batches import Masking
from kernels.one_sided import two_sided
from model.architectures.base import Architecture, a_copy_for_each
from model.config import ModelConfig
from model.grams import Grams
from model.layers import Block
from model.neighbours import Near


class Vanilla(Architecture):
    without_self = False
    passes_each = True
    before = (("grams", 0),)

    @dataclass(frozen=True)
    class Options:
        masking_rate: float = 0.3
        final_masking_rate: float | None = None
        masking_scheme: Literal["mask", "bert"] = "mask"
        near: int = 0
        taps: int = 0
        grams: int = 0

        def __post_init__(self) -> None:
            if min(self.near, self.taps, self.grams) < 0:
                raise ValueError(
                    f"near is {self.near}, taps is {self.taps} and grams is {self.grams}; they must be 0 (off) or more."
                )

        def masking(self, fraction: float = 0.0) -> Masking:
            """Falling (or rising) from the first rate to the final one as the budget is spent, if one is given."""
            start, end = self.masking_rate, self.final_masking_rate
            rate = start if end is None else start + (end - start) * min(1.0, fraction)
            return Masking(rate, self.masking_scheme)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.masking = self.options.masking()
        self.options.masking(1.0)  # refuses a final rate that cannot be
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        # The tricks of `local`, for a comparison without them is worth little. Masked tokens leak nothing, so both sides
        # are convolved for every reader.
        self.near = Near(config, self.options.near) if self.options.near else None
        self.grams = Grams(config, self.options.grams) if self.options.grams else None
        shape = (config.n_layers, 2, self.options.taps, 2 * config.d_model)
        self.taps = nn.Parameter(torch.zeros(shape)) if self.options.taps else None

    def masking_at(self, fraction: float) -> Masking:
        return self.options.masking(fraction)

    def predict(self, batch: Batch, places: Tensor | None = None) -> Tensor:
        if batch.corrupted is None:
            raise ValueError("vanilla predicts masked places and this batch has none; build it with a Masking.")
        return self.stream(batch.corrupted, batch, places)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        if not with_self:
            raise ValueError("vanilla has no states without self for a whole sentence; use with_self=True.")
        return self.stream(batch.tokens, batch)

    def stream(self, tokens: Tensor, batch: Batch, places: Tensor | None = None) -> Tensor:
        """Only `places` of the last layer are computed beyond its attention, if they are given."""
        x = self.embedding(tokens, batch.documents)  # (B, N, D)
        if self.near is not None:
            x = x + self.near(x, batch.layout)
        if self.grams is not None:
            x = x + self.grams(tokens, batch.layout)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            mix = None if self.taps is None else partial(two_sided, weight=self.taps[i], documents=batch.layout)
            x = block.self_attention(x, "full", batch.layout, places if i == last else None, mix)
        return x

    def leave_one_out(self, batch: Batch, places: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, int]:
        """One copy of the sentence for each place, that place (and what is hidden from it) masked: a pass for each."""
        states = []
        for row, place, one_each in a_copy_for_each(batch, places):
            copies = batch.tokens[row]
            if hidden is None:
                copies = copies.scatter(1, place[:, None], self.config.mask_id)
            else:
                copies = copies.masked_fill(hidden[row, place], self.config.mask_id)
            documents = None if batch.documents is None else batch.documents[row]
            states.append(self.predict(replace(batch, tokens=copies, corrupted=copies, documents=documents), one_each))
        return torch.cat(states).view(*places.shape, -1), places.shape[1]
