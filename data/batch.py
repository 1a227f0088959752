"""The one structure that travels from data to models and kernels."""

from dataclasses import dataclass, replace
from typing import Literal

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
        moved = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if value is not None
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Masking:
    """How a masked model's input is corrupted.

    rate:    the share of a row's ordinary tokens that is masked and predicted; special tokens never are.
    scheme:  "mask" replaces all of them by [MASK]; "bert" 80% by [MASK], 10% by a random token, 10% not at all.
    """

    rate: float
    scheme: Literal["mask", "bert"] = "mask"

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"The masking rate is {self.rate}; it must lie strictly between 0 and 1.")
        if self.scheme not in ("mask", "bert"):
            raise ValueError(f"The masking scheme is {self.scheme!r}; it must be 'mask' or 'bert'.")
