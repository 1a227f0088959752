"""Which blocks of rows the CPU path computes, over which window of keys, and what stays hidden inside the window."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .layout import Layout
from .visibility import gap_of, sees

BLOCK = 128  # rows of a tile where the visibility lets tiles be skipped
SCORES = 2**19  # scores of a tile over all its heads: with their gradient they stay in the cache


@dataclass(frozen=True)
class Tile:
    """Rows r0..r1-1 against the keys lo..hi-1.

    hidden: what the rows do not see there, as pairs of a first column and a mask to be added, (b, 1, rows, columns)
        float32 of 0 and -inf. b is 1 or the number of batch rows in the chunk.
    gap: the rows do not see what is at most so many places away, and that is all they do not see; None for others.
    empty: (b, 1, rows, 1) bool, the rows that see nothing, or None.
    """

    r0: int
    r1: int
    lo: int
    hi: int
    hidden: tuple[tuple[int, Tensor], ...]
    gap: int | None
    empty: Tensor | None


@torch.inference_mode(False)  # what is cached may serve training later
def plan(b: int, h: int, n: int, visibility: str, layout: Layout | None) -> list[tuple[slice, tuple[Tile, ...]]]:
    """Chunks of the batch, each with its tiles. Together the tiles hold every row once."""
    ordered = visibility.startswith(("before", "after")) or visibility == "union"
    block = min(n, BLOCK if ordered or layout is not None else max(BLOCK, SCORES // n // BLOCK * BLOCK))
    chunk = max(1, SCORES // (h * block * n))
    chunks = [slice(b0, min(b, b0 + chunk)) for b0 in range(0, b, chunk)]
    if layout is None:
        return [(rows, _whole(n, block, visibility)) for rows in chunks]
    key = visibility, block, chunk
    if key not in layout.plans:
        start, end = layout.start.cpu(), layout.end.cpu()
        layout.plans[key] = [(rows, _tiles(n, block, visibility, start[rows], end[rows])) for rows in chunks]
    return layout.plans[key]


@lru_cache(maxsize=64)
def _whole(n: int, block: int, visibility: str) -> tuple[Tile, ...]:
    """Every row of the batch is one document: the tiles depend on shapes alone."""
    start = torch.zeros(1, n, dtype=torch.int32)
    return _tiles(n, block, visibility, start, start + n)


def _tiles(n: int, block: int, visibility: str, start: Tensor, end: Tensor) -> tuple[Tile, ...]:
    tiles = []
    for r0 in range(0, n, block):
        r1 = min(n, r0 + block)
        lo = int(start[:, r0].min())
        hi = max(int(end[:, r1 - 1].max()), lo + 1)
        if visibility.startswith("before"):
            hi = min(hi, r1)
        elif visibility.startswith("after"):
            lo = max(lo, r0)
        elif visibility == "union":  # over the keys [future; past]
            lo, hi = r0, n + r1
        seen = _seen(n, visibility, start, end, slice(r0, r1), slice(lo, hi))
        empty = ~seen.any(-1, keepdim=True)
        gap = gap_of(visibility)
        if gap is not None and (start[:, r0:r1] > lo).any() | (end[:, r0:r1] < hi).any():
            gap = None
        hidden = tuple(_masks(seen)) if gap is None else ()
        tiles.append(Tile(r0, r1, lo, hi, hidden, gap, empty if empty.any() else None))
    return tuple(tiles)


def _masks(seen: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The columns that hide anything, as one or two stretches: those of a band lie at its two ends."""
    columns = (~seen).any(2).any(0).flatten().nonzero().flatten().tolist()
    if not columns:
        return
    gap = max(range(len(columns)), key=lambda c: columns[c] - columns[c - 1] if c else 0)
    parts = [columns] if gap == 0 else [columns[:gap], columns[gap:]]
    for part in parts:
        hidden = ~seen[..., part[0] : part[-1] + 1]
        yield part[0], torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))


def _seen(n: int, visibility: str, start: Tensor, end: Tensor, rows: slice, window: slice) -> Tensor:
    """(b, 1, rows, window) bool."""
    i = torch.arange(rows.start, rows.stop)[:, None]
    j = torch.arange(window.start, window.stop)[None, :]
    if visibility == "union":
        seen = torch.where(j < n, sees("after_strict", i, j), sees("before_strict", i, j - n))
    else:
        seen = sees(visibility, i, j)
    same = (start[:, rows, None] <= j % n) & (j % n < end[:, rows, None])
    return (seen & same)[:, None]
