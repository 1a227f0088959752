"""What the Triton kernels share: the visibility inside a tile of scores, and which tiles have to be read at all.

Names: t the position of a row; `strict` is 0 where a row sees its own position and 1 where it does not. A tile of two-stream
rows interleaves content and query, row r = 2 t + s, and strict = s. That is all that two streams change.
"""

import triton
import triton.language as tl

FULL: tl.constexpr = tl.constexpr(0)
EXCLUDE_SELF: tl.constexpr = tl.constexpr(1)
BEFORE: tl.constexpr = tl.constexpr(2)
AFTER: tl.constexpr = tl.constexpr(3)

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def bounds(
    t, strict, START, END, FIRST, LAST, n, MODE: tl.constexpr, GAP: tl.constexpr, DOCUMENTS: tl.constexpr,
    SPANS: tl.constexpr,
):  # fmt: skip
    """lower, upper, a, b: the rows at the positions t see the keys lower..upper-1 but for a-GAP..b+GAP. From n on: any."""
    lower, upper = t * 0, t * 0 + n
    if DOCUMENTS:
        lower = tl.load(START + t, mask=t < n, other=0)
        upper = tl.load(END + t, mask=t < n, other=0)
    a, b = t, t
    if SPANS:  # with strict rows alone
        a = tl.load(FIRST + t, mask=t < n, other=0)
        b = tl.load(LAST + t, mask=t < n, other=0)
    if MODE == BEFORE:
        upper = tl.minimum(upper, a + 1 - strict)
    elif MODE == AFTER:
        lower = tl.maximum(lower, b + strict)
    return lower, upper, tl.where(strict == 1, a, -1 - GAP), tl.where(strict == 1, b, -1 - GAP)


@triton.jit
def visible(key, lower, upper, first, last, MODE: tl.constexpr, GAP: tl.constexpr):
    """Which keys the rows see; the four that belong to rows broadcast against the keys."""
    seen = (key >= lower) & (key < upper)
    if MODE == EXCLUDE_SELF:
        seen = seen & ((key < first - GAP) | (key > last + GAP))
    return seen


@triton.jit
def ends_of(first, last, FIRST, LAST, SPANS: tl.constexpr):
    """What the rows first..last hide lies within a..b, as neither end of a span decreases along a row."""
    a, b = first, last
    if SPANS:
        a, b = tl.load(FIRST + first), tl.load(LAST + last)
    return a, b


@triton.jit
def reach(first, last, n, START, END, BLOCK: tl.constexpr, MODE: tl.constexpr, DOCUMENTS: tl.constexpr):
    """lo, hi, a, b: the rows first..last read the keys lo..hi-1, and see all of a..b-1 but for their own position and GAP
    beside it.

    lo is a multiple of BLOCK, the step of the loops. START and END belong to this row of the batch and never decrease
    along it, so the ends of the tile speak for all its rows. Which rows read the keys first..last is the same question
    with BEFORE and AFTER exchanged.
    """
    lo, hi, a, b = 0, n, 0, n
    if DOCUMENTS:
        lo, a = tl.load(START + first), tl.load(START + last)
        hi, b = tl.load(END + last), tl.load(END + first)
    if MODE == BEFORE:
        hi, b = tl.minimum(hi, last + 1), tl.minimum(b, first)
    elif MODE == AFTER:
        lo, a = tl.maximum(lo, first), tl.maximum(a, last + 1)
    return lo // BLOCK * BLOCK, hi, a, b


@triton.jit
def needs_mask(
    at, a, b, first, last, low, high, BLOCK: tl.constexpr, MODE: tl.constexpr, GAP: tl.constexpr, BRANCH: tl.constexpr
):  # fmt: skip
    """Whether the keys at..at+BLOCK-1 are not all seen by rows that see all of a..b-1 but for low-GAP..high+GAP, or the rows
    at..at+BLOCK-1 do not all see the keys first..last, of which they hide low-GAP..high+GAP; without BRANCH, always.

    Rows own the loop: first, last are at, at+BLOCK-1, and a..b is what the rows see. Keys own it: a..b are the rows that see
    the keys, as far as documents and order say.
    """
    if not BRANCH:
        return True
    outside = (at < a) | (at + BLOCK > b)
    if MODE == EXCLUDE_SELF:
        outside = outside | ((first <= high + GAP) & (last >= low - GAP))
    elif MODE == BEFORE:
        outside = outside | (last >= low)
    elif MODE == AFTER:
        outside = outside | (first <= high)
    return outside


@triton.jit
def row_pointers(X0, X1, first, stride, ROWS: tl.constexpr, STREAMS: tl.constexpr):
    """(ROWS, 1) pointers to the rows of a tile: with two streams row 2 t + s is position first + t of stream s."""
    r = tl.arange(0, ROWS)
    base = tl.cast(first, tl.int64) * stride
    if STREAMS == 1:
        return (X0 + base) + (r * stride)[:, None]
    else:
        return tl.where((r % 2 == 0)[:, None], X0 + base, X1 + base) + (r // 2 * stride)[:, None]


@triton.jit
def inside(first, n, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, STREAMS: tl.constexpr):
    """(ROWS, BLOCK_D) bool: a position before n and a column before the head width."""
    r = tl.arange(0, ROWS)
    rows = (r // STREAMS < n - first)[:, None]
    if WIDTH == BLOCK_D:
        return rows
    else:
        return rows & (tl.arange(0, BLOCK_D) < WIDTH)[None, :]


@triton.jit
def load_rows(
    X0, X1, first, n, stride, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, STREAMS: tl.constexpr
):
    """(ROWS, BLOCK_D) of one head, from position `first` on; 0 outside the tensor."""
    pointers = row_pointers(X0, X1, first, stride, ROWS, STREAMS) + tl.arange(0, BLOCK_D)[None, :]
    return tl.load(pointers, mask=inside(first, n, WIDTH, ROWS, BLOCK_D, STREAMS), other=0.0)


@triton.jit
def store_rows(
    X0, X1, x, first, n, stride, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, STREAMS: tl.constexpr
):
    """The inverse of `load_rows`."""
    pointers = row_pointers(X0, X1, first, stride, ROWS, STREAMS) + tl.arange(0, BLOCK_D)[None, :]
    tl.store(pointers, x.to(X0.dtype.element_ty), mask=inside(first, n, WIDTH, ROWS, BLOCK_D, STREAMS))
