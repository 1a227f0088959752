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
from model.layers import Block, block_flops

LEAVE_ONE_OUT_TOKENS = 16_384  # tokens a forward pass may hold when each place needs a copy of its sentence


class Vanilla(Architecture):
    @dataclass(frozen=True)
    class Options:
        masking_rate: float = 0.3
        masking_scheme: Literal["mask", "bert"] = "mask"

        def __post_init__(self) -> None:
            self.masking()  # refuses what cannot be

        def masking(self) -> Masking:
            return Masking(self.masking_rate, self.masking_scheme)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.masking = self.options.masking()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))

    def predict(self, batch: Batch) -> Tensor:
        if batch.corrupted is None:
            raise ValueError("vanilla predicts masked places and this batch has none; build it with a Masking.")
        return self.stream(batch.corrupted, batch.documents)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        if not with_self:
            raise ValueError("vanilla has no states without self for a whole sentence; use with_self=True.")
        return self.stream(batch.tokens, batch.documents)

    def stream(self, tokens: Tensor, documents: Tensor | None) -> Tensor:
        x = self.embedding(tokens, documents)  # (B, N, D)
        for block in self.blocks:
            k, v = block.keys_values(block.read(x))
            x = block(x, k, v, "full", documents)
        return x

    def leave_one_out(self, batch: Batch, places: Tensor) -> tuple[Tensor, int]:
        """One copy of the sentence for each place, that place masked: as many passes as places."""
        (rows, length), count = batch.tokens.shape, places.shape[1]
        place = places.reshape(-1)  # (B*P,)
        row = torch.arange(rows, device=place.device).repeat_interleave(count)
        hidden = []
        for row_c, place_c in zip(*(x.split(max(1, LEAVE_ONE_OUT_TOKENS // length)) for x in (row, place))):
            copies = batch.tokens[row_c].scatter(1, place_c[:, None], self.config.mask_id)
            documents = None if batch.documents is None else batch.documents[row_c]
            x = self.predict(replace(batch, tokens=copies, corrupted=copies, documents=documents, masked=None))
            hidden.append(x[torch.arange(len(place_c), device=x.device), place_c])
        return torch.cat(hidden).view(rows, count, -1), count

    def flops_per_token(self, sequence_length: int) -> float:
        config = self.config
        widen = 2.0 * config.d_embed * config.d_model if config.d_embed < config.d_model else 0.0
        return widen + config.n_layers * block_flops(config, sequence_length)
