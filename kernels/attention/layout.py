"""Documents and ranks, checked once and turned into what kernels need.

A kernel asks one question about documents: which positions may the row at position i see at all? The answer is a half-open
range [start_i, end_i). Both ends never decrease along a row of the batch, so a tile of rows r0..r1-1 needs the keys
start[r0]..end[r1-1] only, and by symmetry a tile of keys is read by the rows of the same range. Padding has the empty
range at its own position.

Checking and building read the contents of the tensors. On a CPU the last few are remembered by their bytes, so that the
layers of a model share the work and no write to the tensor, however it is made, can go unnoticed. On a GPU reading waits
for the device: make the layout before the step, `layout_of(documents).to(device)`, and give it to every layer in place
of the documents.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

REMEMBERED = 32  # layouts, and orders of ranks: several batches of a race, each with its layers


@dataclass(frozen=True)
class Layout:
    """start, end: (B, N) int32, contiguous: the positions of the document that position belongs to.

    plans: what the CPU path made of it, for each visibility; see `tiles.py`.
    """

    start: Tensor
    end: Tensor
    plans: dict = field(default_factory=dict, compare=False)

    @property
    def shape(self) -> torch.Size:
        return self.start.shape

    @property
    def device(self) -> torch.device:
        return self.start.device

    def to(self, device: torch.device | str) -> "Layout":
        """On `device`, without a wait when that is a GPU and this layout lies in pinned memory."""
        if torch.device(device) == self.device:
            return self
        return Layout(self.start.to(device, non_blocking=True), self.end.to(device, non_blocking=True))

    def pin_memory(self) -> "Layout":
        return Layout(self.start.pin_memory(), self.end.pin_memory())


class Memory:
    """The last few results of a function of tensors, found again by the bytes of the tensors."""

    def __init__(self) -> None:
        self.known: OrderedDict[tuple, Any] = OrderedDict()

    def recall(self, make: Callable[..., Any], *tensors: Tensor | None) -> Any:
        if any(x is not None and x.device.type != "cpu" for x in tensors):
            return make(*tensors)
        key = tuple(x if x is None else (x.shape, x.dtype, x.contiguous().numpy().tobytes()) for x in tensors)
        if key in self.known:
            self.known.move_to_end(key)
        else:
            with torch.inference_mode(False):  # what is remembered may serve training later
                self.known[key] = make(*tensors)
            if len(self.known) > REMEMBERED:
                self.known.popitem(last=False)
        return self.known[key]


_layouts, _orders, _parts = Memory(), Memory(), Memory()


def layout_of(documents: Tensor | Layout) -> Layout:
    """The ranges of every position.

    Raises:
        ValueError: an id below -1, or an id that comes back after another one.
    """
    return documents if isinstance(documents, Layout) else _layouts.recall(_build, documents)


def remembered(start: Tensor | None, end: Tensor | None) -> Layout | None:
    """The layout of these ranges with the plans made for it before: operators pass its tensors alone."""
    return None if start is None else _parts.recall(Layout, start, end)


def rank_order(rank: Tensor, documents: Tensor | Layout | None) -> tuple[Tensor, Tensor]:
    """order, slot: (B, N) int64. Position order[s] stands at slot s once every document is sorted by rank.

    Documents keep their ranges, padding stays where it is, and slot is the inverse: order[slot[i]] = i.

    Raises:
        ValueError: the ranks of a document of n positions are not a permutation of 0..n-1 (on a GPU: an assertion there).
    """
    if isinstance(documents, Layout):
        return _order_in(rank, documents)
    return _orders.recall(lambda r, d: _order_in(r, None if d is None else layout_of(d)), rank, documents)


def _order_in(rank: Tensor, layout: Layout | None) -> tuple[Tensor, Tensor]:
    position = torch.arange(rank.shape[1], device=rank.device).expand(rank.shape)
    if layout is None:
        slot = rank.to(torch.int64, copy=True)
        outside = (rank < 0) | (rank >= rank.shape[1])
    else:
        length = layout.end - layout.start
        real = length > 0  # the range of padding is empty
        slot = torch.where(real, layout.start + rank.long(), position)
        outside = real & ((rank < 0) | (rank >= length))
    order = torch.full_like(slot, -1)
    if rank.device.type == "meta":  # shapes alone: nothing to check
        return order, slot
    if rank.device.type != "cpu":
        return _order_without_waiting(order, slot, position, outside), slot
    if not outside.any():
        order.scatter_(1, slot, position)
    if outside.any() or (order < 0).any():
        row = int((outside | (order < 0)).any(1).nonzero()[0])
        raise ValueError(
            f"rank was {rank[row].tolist()} in row {row} of the batch; within a document of n positions it must be a "
            "permutation of 0..n-1"
        )
    return order, slot


def _order_without_waiting(order: Tensor, slot: Tensor, position: Tensor, outside: Tensor) -> Tensor:
    """On a GPU the result is not read back: ranks that are not a permutation end the program by an assertion on the device."""
    order.scatter_(1, slot.clamp(0, slot.shape[1] - 1), position)
    right = ~(outside | (order < 0)).any()
    torch._assert_async(right, "the ranks of a document of n positions must be a permutation of 0..n-1")
    return order


def _build(documents: Tensor) -> Layout:
    b, n = documents.shape
    position = torch.arange(n, device=documents.device).expand(b, n)
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    padding = documents < 0
    opens = first & ~padding
    lowest = int(documents.min()) if documents.numel() else 0
    if lowest < -1:
        raise ValueError(f"documents held the id {lowest}; ids must be 0 or more, or -1 for padding")
    row = torch.arange(b, device=documents.device)[:, None].expand(b, n)
    runs = torch.stack([row[opens], documents[opens].long()], 1)
    distinct, count = torch.unique(runs, dim=0, return_counts=True)
    if (count > 1).any():
        bad_row, bad_id = distinct[count > 1][0].tolist()
        raise ValueError(
            f"documents had the id {bad_id} at separate positions of row {bad_row}; the positions of a document must be "
            "contiguous"
        )
    start = torch.where(first, position, 0).cummax(1).values
    last = torch.ones_like(first)
    last[:, :-1] = first[:, 1:]
    end = torch.where(last, position + 1, n).flip(1).cummin(1).values.flip(1)
    start, end = torch.where(padding, position, start), torch.where(padding, position, end)
    return Layout(start.int().contiguous(), end.int().contiguous())
