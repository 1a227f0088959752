"""The one structure that travels from data to models and kernels."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from kernels.attention.layout import Layout, layout_of


@dataclass(frozen=True)
class Batch:
    """A batch of B windows of N tokens.

    tokens:     (B, N) int64, the true tokens.
    documents:  (B, N) int32, which document of its row each place belongs to, -1 for padding. Places of a document
                are contiguous. None says that every row is one whole document without padding, which is what lets
                kernels skip the document mask.
    corrupted:  (B, N) int64, what a masked model reads instead of `tokens`; None for models that predict every place.
    masked:     (B, N) bool, the places a masked model predicts.
    samples:    the number of each row in the order of the data, from which dropout is drawn; None draws it anyhow.
    """

    tokens: Tensor
    documents: Tensor | None = None
    corrupted: Tensor | None = None
    masked: Tensor | None = None
    samples: tuple[int, ...] | None = None

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

    @property
    def predicted(self) -> int:
        """How many places a pass predicts."""
        return self.tokens.numel() if self.places is None else len(self.places)

    def to(self, device: torch.device | str) -> "Batch":
        """On `device`, with what was made of its contents: nothing there has to read them again, and so to wait."""
        _ = self.layout, self.places
        if torch.device(device) == self.tokens.device:
            return self
        return self._each(lambda x: x.to(device, non_blocking=True), lambda layout: layout.to(device))

    def pin_memory(self) -> "Batch":
        return self._each(Tensor.pin_memory, Layout.pin_memory)

    def _each(self, of_tensor, of_layout) -> "Batch":
        made = {}
        made["layout"] = None if self.layout is None else of_layout(self.layout)
        made["places"] = None if self.places is None else of_tensor(self.places)
        names = ("tokens", "documents", "corrupted", "masked")
        fields = {n: of_tensor(x) for n in names if (x := getattr(self, n)) is not None}
        moved = replace(self, **fields)
        vars(moved).update(made)
        return moved
