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
class PlacesByRow:
    """Some places of a (B, N) batch, row by row, as many in each: slots (B, M) int64, the place in its row; a row that has fewer
    repeats place 0. order: (P,) int64, where among the slots, counted through the batch, each of the P places stands."""

    slots: Tensor
    order: Tensor

    @classmethod
    def of(cls, places: Tensor, rows: int, length: int) -> "PlacesByRow":
        """Of (P,) places counted through the batch, in rising order. On the meta device: as if rows had as many each."""
        if places.is_meta:
            return cls(places.view(rows, -1), places)
        row = places // length
        count = torch.bincount(row, minlength=rows)
        most = int(count.max()) if len(places) else 0
        order = torch.arange(len(places), device=places.device) - (count.cumsum(0) - count)[row] + most * row
        slots = places.new_zeros(rows * most)
        slots[order] = places - row * length
        return cls(slots.view(rows, most), order)


@dataclass(frozen=True)
class Batch:
    """A batch of B windows of N tokens.

    tokens:     (B, N) int64, the true tokens.
    documents:  (B, N) int32, which document of its row each place belongs to, -1 for padding. Places of a document
                are contiguous. None says that every row is one whole document without padding, which is what lets
                kernels skip the document mask.
    corrupted:  (B, N) int64, what a masked model reads instead of `tokens`; None for models that predict every place.
    masked:     (B, N) bool, the places a masked model predicts.
    spans:      what a place must not see besides itself, for models that predict every place, and in leave-one-out for all;
                None: nothing.
    samples:    the number of each row in the order of the data, from which dropout is drawn; None draws it anyhow.
    seed:       of the order of the data: what a model draws for a row depends on it and on the row's number.
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
        """Where the document of each place begins and ends. Made once; on a GPU, before the batch goes there."""
        return None if self.documents is None else layout_of(self.documents)

    @cached_property
    def places(self) -> Tensor | None:
        """(M,) int64, the places that a pass predicts, counted through the batch, row by row; None: every place.

        The masked ones, or without a mask all that are no padding. Made once, as `layout` is.
        """
        if self.masked is not None:
            return self.masked.flatten().nonzero()[:, 0]
        if self.documents is None:
            return None
        places = (self.documents >= 0).flatten().nonzero()[:, 0]
        return None if len(places) == self.documents.numel() else places

    @cached_property
    def by_row(self) -> PlacesByRow | None:
        """`places` of a masked batch, row by row. Made once, as `layout` is."""
        return None if self.masked is None else PlacesByRow.of(self.places, *self.tokens.shape)

    def hiding(self, first: Tensor, last: Tensor) -> "Batch":
        """The same with what each place must not see, first_i .. last_i (B, N); see `spans_of`, which refuses what cannot be."""
        return replace(self, spans=spans_of(first, last).to(self.tokens.device))

    @property
    def predicted(self) -> int:
        """How many places a pass predicts."""
        return self.tokens.numel() if self.places is None else len(self.places)

    def to(self, device: torch.device | str) -> "Batch":
        """On `device`, with what was made of its contents: nothing there has to read them again, and so to wait."""
        _ = self.layout, self.places, self.by_row
        if torch.device(device) == self.tokens.device:
            return self
        return self._each(lambda x: x.to(device, non_blocking=True), lambda ranges: ranges.to(device))

    def pin_memory(self) -> "Batch":
        return self._each(Tensor.pin_memory, lambda ranges: ranges.pin_memory())

    def _each(self, of_tensor: Callable[[Tensor], Tensor], of_ranges: Callable[[Any], Any]) -> "Batch":
        made: dict[str, Any] = {}
        made["layout"] = None if self.layout is None else of_ranges(self.layout)
        made["places"] = None if self.places is None else of_tensor(self.places)
        found = self.by_row
        made["by_row"] = None if found is None else PlacesByRow(of_tensor(found.slots), of_tensor(found.order))
        names = ("tokens", "documents", "corrupted", "masked")
        fields = {n: of_tensor(x) for n in names if (x := getattr(self, n)) is not None}
        moved = replace(self, **fields, spans=None if self.spans is None else of_ranges(self.spans))
        vars(moved).update(made)
        return moved


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """Rows of their own lengths, each a document, as one batch with padding at their ends."""
    length = max(map(len, rows))
    tokens = torch.full((len(rows), length), pad_id)
    documents = torch.full((len(rows), length), -1, dtype=torch.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], documents[i, : len(row)] = torch.as_tensor(row), 0
    return Batch(tokens, documents if bool((documents < 0).any()) else None)
