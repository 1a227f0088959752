"""Documents and ranks, checked once and turned into what kernels need.

A kernel asks one question about documents: which places may the row at place i see at all? The answer is a half-open
range [start_i, end_i). Both ends never decrease along a row of the batch, so a tile of rows r0..r1-1 needs the keys
start[r0]..end[r1-1] only, and by symmetry a tile of keys is read by the rows of the same range. Padding has the empty
range at its own place.

Checking and building read the contents of the tensors, which on a GPU waits for the device. Both happen once for each
tensor object (and again if it is written to in place), so that the layers of a model share the work: pass the same
tensor to every layer.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class Layout:
    """start, end: (B, N) int32, contiguous: the places of the document that place belongs to.

    plans: what the CPU path made of it, for each visibility; see `tiles.py`.
    """

    start: Tensor
    end: Tensor
    plans: dict = field(default_factory=dict, compare=False)


_layouts = WeakTensorKeyDictionary()  # documents -> (what it was, Layout)
_orders = WeakTensorKeyDictionary()  # rank -> (what it and the documents were, order, slot)


@torch.inference_mode(False)  # what is cached may serve training later
def layout_of(documents: Tensor) -> Layout:
    """The ranges of every place.

    Raises:
        ValueError: an id below -1, or an id that comes back after another one.
    """
    known = _layouts.get(documents)
    if known is not None and _unchanged(documents, known[0]):
        return known[1]
    layout = _build(documents)
    _layouts[documents] = (_fingerprint(documents), layout)
    return layout


@torch.inference_mode(False)
def rank_order(rank: Tensor, documents: Tensor | None) -> tuple[Tensor, Tensor]:
    """order, slot: (B, N) int64. Place order[s] stands at slot s once every document is sorted by rank.

    Documents keep their ranges, padding stays where it is, and slot is the inverse: order[slot[i]] = i.

    Raises:
        ValueError: the ranks of a document of n places are no permutation of 0..n-1.
    """
    known = _orders.get(rank)
    if known is not None and known[0] is documents and _unchanged(rank, known[1]) and _unchanged(documents, known[2]):
        return known[3]
    place = torch.arange(rank.shape[1], device=rank.device).expand(rank.shape)
    if documents is None:
        start, length, slot = 0, rank.shape[1], rank.to(torch.int64, copy=True)  # a view would keep its own key alive
    else:
        layout = layout_of(documents)
        start, length = layout.start, layout.end - layout.start
        slot = torch.where(documents >= 0, start + rank.long(), place)
    outside = (rank < 0) | (rank >= length)
    if documents is not None:
        outside &= documents >= 0
    order = torch.full_like(slot, -1)
    if not outside.any():
        order.scatter_(1, slot, place)
    if outside.any() or (order < 0).any():
        row = int((outside | (order < 0)).any(1).nonzero()[0])
        raise ValueError(
            f"rank was {rank[row].tolist()} in row {row} of the batch; within a document of n places it must be a "
            "permutation of 0..n-1"
        )
    found = (order, slot)
    _orders[rank] = (documents, _fingerprint(rank), _fingerprint(documents), found)
    return found


def _build(documents: Tensor) -> Layout:
    b, n = documents.shape
    place = torch.arange(n, device=documents.device).expand(b, n)
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
            f"documents had the id {bad_id} at separate places of row {bad_row}; the places of a document must be "
            "contiguous"
        )
    start = torch.where(first, place, 0).cummax(1).values
    last = torch.ones_like(first)
    last[:, :-1] = first[:, 1:]
    end = torch.where(last, place + 1, n).flip(1).cummin(1).values.flip(1)
    start, end = torch.where(padding, place, start), torch.where(padding, place, end)
    return Layout(start.int().contiguous(), end.int().contiguous())


def _fingerprint(x: Tensor | None) -> int | Tensor:
    if x is None:
        return 0
    return x.clone() if x.is_inference() else x._version  # inference tensors count no versions


def _unchanged(x: Tensor | None, fingerprint: int | Tensor) -> bool:
    if x is None:
        return True
    if isinstance(fingerprint, Tensor):
        return torch.equal(x, fingerprint)
    return not x.is_inference() and x._version == fingerprint
