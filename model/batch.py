"""The one structure that travels from data to models and kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kernels.attention import Spans, spans_of
from kernels.attention.layout import Layout, layout_of


@dataclass(frozen=True)
class PositionsByRow:
    """Some positions of a (B, N) batch, row by row, as many in each: slots (B, M) int64, the position in its row; a row that
    has fewer repeats position 0. order: (P,) int64, where among the slots, counted through the batch, each of the P positions
    stands."""

    slots: Tensor
    order: Tensor

    @classmethod
    def of(cls, positions: Tensor, rows: int, length: int) -> "PositionsByRow":
        """Of (P,) positions counted through the batch, in rising order. On the meta device: as if rows had as many each."""
        if positions.is_meta:
            return cls(positions.view(rows, -1), positions)
        row = positions // length
        count = torch.bincount(row, minlength=rows)
        most = int(count.max()) if len(positions) else 0
        order = torch.arange(len(positions), device=positions.device) - (count.cumsum(0) - count)[row] + most * row
        slots = positions.new_zeros(rows * most)
        slots[order] = positions - row * length
        return cls(slots.view(rows, most), order)


@dataclass(frozen=True)
class Batch:
    """A batch of B windows of N tokens.

    tokens:     (B, N) int64, the true tokens.
    documents:  (B, N) int32, which document of its row each position belongs to, -1 for padding. Positions of a document
                are contiguous. None says that every row is one whole document without padding, which is what lets
                kernels skip the document mask.
    corrupted:  (B, N) int64, what a masked model reads instead of `tokens`; None for models that predict every position.
    masked:     (B, N) bool, the positions a masked model predicts.
    spans:      what a position must not see besides itself, for models that predict every position, and in leave-one-out for all;
                None: nothing.
    samples:    the index of each row in the training order, which seeds its dropout and its random orders; None: dropout is
                drawn from the global generator.
    seed:       of the training order: what a model draws for a row depends on this seed and on the row's index.
    """

    tokens: Tensor
    documents: Tensor | None = None
    corrupted: Tensor | None = None
    masked: Tensor | None = None
    spans: Spans | None = None
    samples: tuple[int, ...] | None = None
    seed: int = 0

    @cached_property
    def layout(self) -> Layout | None:
        """Where the document of each position begins and ends. Made once; on a GPU, before the batch goes there."""
        return None if self.documents is None else layout_of(self.documents)

    @cached_property
    def positions(self) -> Tensor | None:
        """(M,) int64, the positions that a pass predicts, as indices into the flattened batch; None: every position.

        The masked ones; without masking, all but padding. Made once, as `layout` is.
        """
        if self.masked is not None:
            return self.masked.flatten().nonzero()[:, 0]
        if self.documents is None:
            return None
        positions = (self.documents >= 0).flatten().nonzero()[:, 0]
        return None if len(positions) == self.documents.numel() else positions

    @cached_property
    def by_row(self) -> PositionsByRow | None:
        """`positions` of a masked batch, row by row. Made once, as `layout` is."""
        if self.masked is None or self.positions is None:
            return None
        return PositionsByRow.of(self.positions, *self.tokens.shape)

    def hiding(self, first: Tensor, last: Tensor) -> "Batch":
        """The same batch with hidden spans first_i .. last_i (B, N); see `spans_of`, which checks them."""
        return replace(self, spans=spans_of(first, last).to(self.tokens.device))

    @property
    def predicted(self) -> int:
        """How many positions a pass predicts."""
        return self.tokens.numel() if self.positions is None else len(self.positions)

    def to(self, device: torch.device | str) -> "Batch":
        """On `device`, together with what was made of its contents, so that the device need not wait for them to be read
        again."""
        _ = self.layout, self.positions, self.by_row
        if torch.device(device) == self.tokens.device:
            return self
        return self._each(lambda x: x.to(device, non_blocking=True), lambda ranges: ranges.to(device))

    def pin_memory(self) -> "Batch":
        return self._each(Tensor.pin_memory, lambda ranges: ranges.pin_memory())

    def _each(self, of_tensor: Callable[[Tensor], Tensor], of_ranges: Callable[[Any], Any]) -> "Batch":
        made: dict[str, Any] = {}
        made["layout"] = None if self.layout is None else of_ranges(self.layout)
        made["positions"] = None if self.positions is None else of_tensor(self.positions)
        found = self.by_row
        made["by_row"] = None if found is None else PositionsByRow(of_tensor(found.slots), of_tensor(found.order))
        names = ("tokens", "documents", "corrupted", "masked")
        fields: dict[str, Any] = {n: of_tensor(x) for n in names if (x := getattr(self, n)) is not None}
        moved = replace(self, **fields, spans=None if self.spans is None else of_ranges(self.spans))
        vars(moved).update(made)
        return moved


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """Rows of different lengths, each a document, as one batch with padding at their ends."""
    length = max(map(len, rows))
    tokens = torch.full((len(rows), length), pad_id)
    documents = torch.full((len(rows), length), -1, dtype=torch.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], documents[i, : len(row)] = torch.as_tensor(row), 0
    return Batch(tokens, documents if bool((documents < 0).any()) else None)
