"""Vanilla masked language modelling (BERT, Devlin et al. 2019): one stream, [MASK]s in the input, full visibility.

The baseline that everything is compared with. A pass predicts the masked places only. Masking rate after Wettig et al.
2023 (arXiv 2202.08005): 15% is BERT's, 40% is often better, and plain [MASK] beats 80/10/10.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from data.batch import Batch
from data.batches import Masking
from model.architectures.base import Architecture
from model.config import ModelConfig
from model.layers import Block

LEAVE_ONE_OUT_TOKENS = 16_384  # tokens a forward pass may hold when each place needs a copy of its sentence


class Vanilla(Architecture):
    @dataclass(frozen=True)
    class Options:
        masking_rate: float = 0.3
        final_masking_rate: float | None = None
        masking_scheme: Literal["mask", "bert"] = "mask"

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
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = block.self_attention(x, "full", batch.layout, places if i == last else None)
        return x

    def leave_one_out(self, batch: Batch, places: Tensor, words: Tensor | None = None) -> tuple[Tensor, int]:
        """One copy of the sentence for each place, that place (or its word) masked: as many passes as places."""
        (rows, length), count = batch.tokens.shape, places.shape[1]
        place = places.reshape(-1)  # (B*P,)
        row = torch.arange(rows, device=place.device).repeat_interleave(count)
        hidden = []
        for row_c, place_c in zip(*(x.split(max(1, LEAVE_ONE_OUT_TOKENS // length)) for x in (row, place))):
            copies = batch.tokens[row_c]
            if words is None:
                copies = copies.scatter(1, place_c[:, None], self.config.mask_id)
            else:
                own = words[row_c]
                copies = copies.masked_fill(own == own.gather(1, place_c[:, None]), self.config.mask_id)
            documents = None if batch.documents is None else batch.documents[row_c]
            one_each = torch.arange(len(place_c), device=place.device) * length + place_c
            hidden.append(self.predict(replace(batch, tokens=copies, corrupted=copies, documents=documents), one_each))
        return torch.cat(hidden).view(rows, count, -1), count
