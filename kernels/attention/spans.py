"""Hidden spans: what a row must not see beside the position itself, checked once and handed to kernels as two integers a row.

A whole word, the rest of a word, a random stretch: all say that row i sees nothing of first_i .. last_i, which hold i. Neither
end decreases along a row of the batch, so the ends of a tile speak for all its rows, as they do for documents.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .layout import Memory

_known = Memory()


@dataclass(frozen=True)
class Spans:
    """first, last: (B, N) int32, contiguous, first_i <= i <= last_i, neither decreasing along a row. Made by `spans_of`.

    plans: what the CPU path made of it, for each visibility; see `tiles.py`.
    """

    first: Tensor
    last: Tensor
    plans: dict = field(default_factory=dict, compare=False)

    @property
    def shape(self) -> torch.Size:
        return self.first.shape

    @property
    def device(self) -> torch.device:
        return self.first.device

    def to(self, device: torch.device | str) -> "Spans":
        """On `device`, without a wait when that is a GPU and these spans lie in pinned memory."""
        if torch.device(device) == self.device:
            return self
        return Spans(self.first.to(device, non_blocking=True), self.last.to(device, non_blocking=True))

    def pin_memory(self) -> "Spans":
        return Spans(self.first.pin_memory(), self.last.pin_memory())

    def hidden_NN(self) -> Tensor:
        """(B, N, N) bool: row i must not see key j. For code without a kernel, and for tests."""
        position = torch.arange(self.shape[1], device=self.device)
        return (position >= self.first[..., None]) & (position <= self.last[..., None])


def spans_of(first: Tensor, last: Tensor) -> Spans:
    """Checked spans from (B, N) integers.

    Raises:
        ValueError: shapes that differ, a span that does not hold its own position, an end that decreases along a row.
    """
    if first.shape != last.shape or first.dim() != 2:
        raise ValueError(f"first had shape {tuple(first.shape)} and last {tuple(last.shape)}; both must be (B, N)")
    position = torch.arange(first.shape[1], device=first.device)
    if ((first > position) | (last < position) | (first < 0) | (last >= len(position))).any():
        row, at = ((first > position) | (last < position) | (first < 0) | (last >= len(position))).nonzero()[0].tolist()
        raise ValueError(
            f"the span of position {at} in row {row} was {int(first[row, at])}..{int(last[row, at])}; it must hold its position "
            f"and lie within 0..{len(position) - 1}"
        )
    for name, x in (("first", first), ("last", last)):
        if (x[:, 1:] < x[:, :-1]).any():
            row, at = (x[:, 1:] < x[:, :-1]).nonzero()[0].tolist()
            raise ValueError(
                f"{name} fell from {int(x[row, at])} to {int(x[row, at + 1])} at position {at + 1} of row {row}; the ends of "
                "spans must not decrease along a row"
            )
    return Spans(first.int().contiguous(), last.int().contiguous())


def remembered_spans(first: Tensor | None, last: Tensor | None) -> Spans | None:
    """The spans with these ends, with the plans made for them before: operators pass their tensors alone."""
    return None if first is None else _known.recall(Spans, first, last)
