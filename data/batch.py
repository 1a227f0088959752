"""The one structure that travels from data to models and kernels."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of B windows of N tokens.

    tokens:     (B, N) int64, the true tokens.
    documents:  (B, N) int32, which document of its row each place belongs to, -1 for padding. Places of a document
                are contiguous. None says that every row is one whole document without padding, which is what lets
                kernels skip the document mask.
    corrupted:  (B, N) int64, what a masked model reads instead of `tokens`; None for models that predict every place.
    masked:     (B, N) bool, the places a masked model predicts; the same number in every row unless rows are padded.
    """

    tokens: Tensor
    documents: Tensor | None = None
    corrupted: Tensor | None = None
    masked: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)
