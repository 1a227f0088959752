"""Vanilla masked language modelling (BERT, Devlin et al. 2019): one stream, [MASK]s in the input, full visibility.

The baseline that everything is compared with. A pass predicts the masked positions only. Masking rate after Wettig et al.
2023 (arXiv 2202.08005): 15% is BERT's, more is often better, and plain [MASK] beats 80/10/10; 30% by our sweep (docs/tuning.md).

`narrow=k` (NarrowBERT's sparse queries, Li et al., ACL 2023, arXiv 2301.04761): after k layers only the masked positions are
carried on, and read keys and values of what the others were after layer k. With k one less than the number of layers only the
cost changes, since the other positions of the last layer are never read: this is `narrow=0`, plain vanilla.
`near` and `taps` are the tricks of `local`; `words=s` masks whole words in a share s of the rows, and `rest=r` a share r of these
words from a random token to the end.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from data.masking import Masking
from kernels.one_sided import two_sided
from model.architectures.base import Architecture, a_copy_for_each
from model.batch import Batch, PositionsByRow
from model.config import ModelConfig
from model.layers import Blocks
from model.neighbours import Near


class Vanilla(Architecture):
    without_self = False
    passes_each = True
    added_options: tuple[tuple[str, Any], ...] = (("narrow", 0), ("words", 0.0), ("rest", 0.0))
    removed_options: tuple[tuple[str, Any], ...] = (("grams", 0),)

    @dataclass(frozen=True)
    class Options:
        masking_rate: float = 0.3
        final_masking_rate: float | None = None
        masking_scheme: Literal["mask", "bert"] = "mask"
        words: float = 0.0
        rest: float = 0.0
        near: int = 0
        taps: int = 0
        narrow: int = 0

        def __post_init__(self) -> None:
            if min(self.near, self.taps, self.narrow) < 0:
                raise ValueError(
                    f"near is {self.near}, taps is {self.taps} and narrow is {self.narrow}; they must be 0 (off) or more."
                )

        def masking(self, fraction: float = 0.0) -> Masking:
            """Falling (or rising) from the first rate to the final one as the budget is spent, if one is given."""
            start, end = self.masking_rate, self.final_masking_rate
            rate = start if end is None else start + (end - start) * min(1.0, fraction)
            return Masking(rate, self.masking_scheme, self.words, self.rest)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        o = self.options
        if o.narrow >= max(2, config.n_layers):
            raise ValueError(f"narrow is {o.narrow}; it must be less than the {config.n_layers} layers, or 0 (off).")
        self.masking = o.masking()
        o.masking(1.0)  # refuses a final rate that cannot be
        self.wide = o.narrow or config.n_layers - 1  # layers that carry all positions
        self.blocks = Blocks.of(config, config.n_layers)
        # Masked tokens leak nothing, so both sides are convolved for every reader.
        self.neighbours = Near(config, o.near) if o.near else None
        shape = (config.n_layers, 2, o.taps, 2 * config.d_model)
        self.tap_weights = nn.Parameter(torch.zeros(shape)) if o.taps else None

    def masking_at(self, fraction: float) -> Masking | None:
        return self.options.masking(fraction)

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        if batch.corrupted is None:
            raise ValueError("vanilla predicts masked positions and this batch has none; build it with a Masking.")
        shape = batch.tokens.shape
        if positions is None:
            every = PositionsByRow.of(torch.arange(shape.numel(), device=batch.tokens.device), *shape)
            return self.narrowed(batch.corrupted, batch, every).view(*shape, -1)
        own = batch.by_row if positions is batch.positions else None
        return self.narrowed(batch.corrupted, batch, own or PositionsByRow.of(positions, *shape))

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        if not with_self:
            raise ValueError("vanilla has no states without self for a whole sentence; use with_self=True.")
        return self.stream(batch.tokens, batch)

    def _start(self, tokens: Tensor, batch: Batch) -> Tensor:
        x = self.embedding(tokens, batch.documents)  # (B, N, D)
        return x if self.neighbours is None else x + self.neighbours(x, batch.layout)

    def _mix(self, layer: int, batch: Batch):
        return (
            None
            if self.tap_weights is None
            else partial(two_sided, weight=self.tap_weights[layer], documents=batch.layout)
        )

    def stream(self, tokens: Tensor, batch: Batch, layers: int | None = None) -> Tensor:
        """All positions through all layers, or the first so many: (B, N, D)."""
        x = self._start(tokens, batch)
        for i, block in enumerate(self.blocks[:layers]):
            x = block.self_attention(x, "full", batch.layout, mix=self._mix(i, batch))
        return x

    def narrowed(self, tokens: Tensor, batch: Batch, own: PositionsByRow) -> Tensor:
        """The states of some positions, (P, D): all are carried through the wide layers, these alone through the others."""
        wide = self.stream(tokens, batch, self.wide)
        rows, (b, length) = own.slots, tokens.shape
        at = rows + length * torch.arange(b, device=tokens.device)[:, None]
        x = wide.flatten(0, 1).index_select(0, at.flatten()).view(*rows.shape, -1)  # (B, M, D)
        seen = None
        if batch.documents is not None:
            here = batch.documents.gather(1, rows)[:, :, None]
            # What padding reads does not matter, since nothing reads padding.
            seen = (here == batch.documents[:, None]) | (here < 0)
            seen = seen[:, None]
        for i in range(self.wide, len(self.blocks)):
            k, v = self.blocks[i].keys_values(self.blocks[i].read(wide), self._mix(i, batch))
            x = self.blocks[i].some_rows(x, rows, k, v, seen)
        return x.flatten(0, 1).index_select(0, own.order)

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        """One copy of the sentence for each position, that position (and what is hidden from it) masked: a pass for each."""
        states = []
        for copies in a_copy_for_each(batch, positions):
            tokens = copies.batch.tokens.masked_fill(copies.hidden, self.config.mask_id)
            alone = PositionsByRow(
                copies.position[:, None], torch.arange(len(copies.position), device=positions.device)
            )
            states.append(self.narrowed(tokens, copies.batch, alone))
        return torch.cat(states).view(*positions.shape, -1), positions.shape[1]
