"""Which blocks of rows the CPU path computes, over which window of keys, and what stays hidden inside the window."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from .layout import Layout
from .spans import Spans
from .visibility import gap_of, sees

BLOCK = 128  # rows of a tile where the visibility lets tiles be skipped
SCORES = 2**19  # scores of a tile over all its heads: with their gradient they stay in the cache


@dataclass(frozen=True)
class Tile:
    """Rows r0..r1-1 against the keys lo..hi-1.

    hidden: what the rows do not see there, as pairs of a first column and a mask to be added, (b, 1, rows, columns)
        float32 of 0 and -inf. b is 1 or the number of batch rows in the chunk.
    gap: if the only hidden keys are those at most this many positions away, that number; otherwise None.
    empty: (b, 1, rows, 1) bool, the rows that see nothing, or None.
    spanned: what hidden spans hide beside all that: positions in the scores (b heads, rows, columns), counted through, int64.
    """

    r0: int
    r1: int
    lo: int
    hi: int
    hidden: tuple[tuple[int, Tensor], ...]
    gap: int | None
    empty: Tensor | None
    spanned: Tensor | None = None


@torch.inference_mode(False)  # what is cached may serve training later
def plan(
    b: int, h: int, n: int, visibility: str, layout: Layout | None, spans: Spans | None = None
) -> list[tuple[slice, tuple[Tile, ...]]]:
    """Chunks of the batch, each with its tiles. Together the tiles hold every row once."""
    if spans is None:
        return _plan(b, h, n, visibility, layout)
    key = visibility, h, n
    if key not in spans.plans or spans.plans[key][0] is not layout:
        spans.plans[key] = layout, _spanned(_plan(b, h, n, visibility, layout), h, n, visibility, layout, spans)
    return spans.plans[key][1]


def _plan(b: int, h: int, n: int, visibility: str, layout: Layout | None) -> list[tuple[slice, tuple[Tile, ...]]]:
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


def _spanned(steps, h: int, n: int, visibility: str, layout: Layout | None, spans: Spans):
    """A plan made without spans, with what they hide beside it. Few rows hide more than their own position, and these little."""
    gap, union = gap_of(visibility) or 0, visibility == "union"
    first, last = spans.first.cpu().long() - gap, spans.last.cpu().long() + gap
    start = torch.zeros_like(first) if layout is None else layout.start.cpu()
    end = start + n if layout is None else layout.end.cpu()
    nothing = (start >= first) & (end <= last + 1)
    found = []
    for rows, tiles in steps:
        own = []
        for tile in tiles:
            here = slice(tile.r0, tile.r1)
            position = torch.arange(tile.r0, tile.r1)
            low, high = first[rows, here], last[rows, here]
            before = _run_of(low, (position - gap).expand_as(low), n if union else 0, tile, h)
            after = _run_of((position + gap + 1).expand_as(high), high + 1, 0, tile, h)
            empty = nothing[rows, None, here, None]
            own.append(replace(tile, spanned=torch.cat([before, after]), empty=empty if empty.any() else None))
        found.append((rows, tuple(own)))
    return found


def _run_of(start: Tensor, stop: Tensor, offset: int, tile: Tile, h: int) -> Tensor:
    """Where the keys start..stop-1 (b, rows) of a set that begins at column `offset` stand in the tile's scores, of all heads."""
    columns = tile.hi - tile.lo
    start = (start + offset - tile.lo).clamp(0, columns)
    count = ((stop + offset - tile.lo).clamp(0, columns) - start).clamp_min(0).flatten()
    row = torch.arange(len(count)).repeat_interleave(count)
    step = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    batch, r = row // start.shape[1], row % start.shape[1]
    head = torch.arange(h)[:, None]
    return (((batch * h + head) * start.shape[1] + r) * columns + start.flatten()[row] + step).flatten()


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
