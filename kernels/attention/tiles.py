"""Which blocks of rows the CPU path computes, over which window of keys, and what stays hidden inside the window."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .layout import Layout
from .visibility import visible_NN

BLOCK = 128  # rows of a tile when the visibility lets tiles be skipped
SCRATCH = 2**19  # scores in flight, in elements: a chunk of the batch is chosen so that a tile stays in the cache


@dataclass(frozen=True)
class Tile:
    """Rows r0..r1-1 against the keys lo..hi-1.

    hidden: (column, mask) pairs; mask (b, 1, rows, columns) bool says what the rows do not see, from that column on.
    empty:  (b, 1, rows, 1) bool, the rows that see nothing, or None. b is 1 or the number of batch rows in the chunk.
    """

    r0: int
    r1: int
    lo: int
    hi: int
    hidden: tuple[tuple[int, Tensor], ...]
    empty: Tensor | None


def plan(b: int, h: int, n: int, visibility: str, layout: Layout | None) -> Iterator[tuple[slice, list[Tile]]]:
    """Chunks of the batch, each with its tiles. Together the tiles hold every row once."""
    block = n if layout is None and visibility in ("full", "exclude_self") else min(n, BLOCK)
    chunk = max(1, SCRATCH // (h * block * n))
    for b0 in range(0, b, chunk):
        rows = slice(b0, min(b, b0 + chunk))
        if layout is None:
            yield rows, list(_whole(n, block, visibility))
        else:
            yield rows, _packed(n, block, visibility, layout.start[rows], layout.end[rows])


@lru_cache(maxsize=256)
def _whole(n: int, block: int, visibility: str) -> tuple[Tile, ...]:
    start = torch.zeros(1, n, dtype=torch.int32)
    return tuple(_packed(n, block, visibility, start, start + n))


def _packed(n: int, block: int, visibility: str, start: Tensor, end: Tensor) -> list[Tile]:
    tiles = []
    for r0 in range(0, n, block):
        r1 = min(n, r0 + block)
        lo, hi = int(start[:, r0].min()), max(int(end[:, r1 - 1].max()), int(start[:, r0].min()) + 1)
        if visibility.startswith("before"):
            hi = min(hi, r1)
        elif visibility.startswith("after"):
            lo = max(lo, r0)
        elif visibility == "union":
            lo, hi = r0, n + r1
        seen = _seen(n, visibility, start, end, slice(r0, r1), slice(lo, hi))
        empty = ~seen.any(-1, keepdim=True)
        tiles.append(Tile(r0, r1, lo, hi, ((0, ~seen),), empty if empty.any() else None))
    return tiles


def _seen(n: int, visibility: str, start: Tensor, end: Tensor, rows: slice, window: slice) -> Tensor:
    """(b, 1, rows, window) bool."""
    if visibility == "union":
        seen = torch.cat([visible_NN("after_strict", n), visible_NN("before_strict", n)], 1)
    else:
        seen = visible_NN(visibility, n)
    place = torch.arange(window.start, window.stop)[None, None, :] % n
    same = (start[:, rows, None] <= place) & (place < end[:, rows, None])
    return (seen[rows, window] & same)[:, None]
