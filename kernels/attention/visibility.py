"""Which keys a row sees: the one place where this is written down.

| visibility    | row i sees key j    |        | visibility    | row i sees key j |
|---------------|---------------------|--------|---------------|------------------|
| full          | every j             |        | exclude_self  | j != i           |
| before        | j <= i              |        | before_strict | j < i            |
| after         | j >= i              |        | after_strict  | j > i            |
| rank          | rank_j <= rank_i    |        | rank_strict   | rank_j < rank_i  |
| beyond_N      | abs(i - j) > N      |        |               |                  |

Two streams: the content row uses the inclusive visibility, the query row of the same position its strict counterpart.
beyond_N, for a number N from 0, is for keys that hold their own N neighbours on each side; beyond_0 is exclude_self.
Union: keys j < i come from the past set, keys j > i from the future set, and one softmax runs over both.
Spans widen what these three hide: with first_i <= i <= last_i (see `spans.py`), exclude_self and beyond_N see j < first_i - N
and j > last_i + N, and a union past keys j < first_i and future keys j > last_i. Without spans both ends are i.
Documents are islands: no visibility reaches another document, and padding (document -1) neither sees nor is seen.
"""

import torch
from torch import Tensor

from .spans import Spans

VISIBILITIES = (
    "full",
    "exclude_self",
    "before",
    "before_strict",
    "after",
    "after_strict",
    "rank",
    "rank_strict",
)
BEYOND = "beyond_"

# What the (content, query) rows of a two-stream call see.
TWO_STREAM = {
    "exclude_self": ("full", "exclude_self"),
    "before": ("before", "before_strict"),
    "after": ("after", "after_strict"),
    "rank": ("rank", "rank_strict"),
}


def gap_of(visibility: str) -> int | None:
    """The positions on each side that a row does not see, itself apart, for exclude_self and beyond_N; None for the others."""
    if visibility == "exclude_self":
        return 0
    number = visibility.removeprefix(BEYOND)
    return int(number) if number != visibility and number.isascii() and number.isdigit() else None


def is_visibility(name: str) -> bool:
    return name in VISIBILITIES or gap_of(name) is not None


def takes_spans(visibility: str) -> bool:
    return gap_of(visibility) is not None or visibility == "union"


def sees(visibility: str, i: Tensor, j: Tensor, last: Tensor | None = None) -> Tensor:
    """Row i sees key j of the same document, elementwise; i and j are positions, or ranks for a rank visibility.

    last: the end of the row's hidden span, i being its beginning; without it both are i.
    """
    gap = gap_of(visibility)
    if gap is not None:
        return (j < i - gap) | (j > (i if last is None else last) + gap)
    match visibility:
        case "full":
            return (i == i) & (j == j)
        case "before" | "rank":
            return j <= i
        case "before_strict" | "rank_strict":
            return j < i
        case "after":
            return j >= i
        case "after_strict":
            return j > i
    raise ValueError(unknown(visibility))


def unknown(visibility: str) -> str:
    return f"visibility was {visibility!r}; it must be one of {', '.join(VISIBILITIES)}, {BEYOND}N (a number)"


def visible_NN(visibility: str, n: int, device: torch.device | str = "cpu") -> Tensor:
    """(N, N) bool: row i sees key j, for one document of n positions; for rank visibilities, in the order of ranks."""
    position = torch.arange(n, device=device)
    return sees(visibility, position[:, None], position[None, :])


def visible_BNN(
    visibility: str, documents_BN: Tensor, rank_BN: Tensor | None = None, spans: Spans | None = None
) -> Tensor:
    """(B, N, N) bool: row i sees key j in the same row of the batch."""
    n = documents_BN.shape[1]
    position = torch.arange(n, device=documents_BN.device).expand_as(documents_BN)
    if spans is None:
        order = position if rank_BN is None or not visibility.startswith("rank") else rank_BN
        seen = sees(visibility, order[:, :, None], order[:, None, :])
    else:
        own = spans.last if visibility.startswith("after") else spans.first
        seen = sees(visibility, own[:, :, None], position[:, None, :], spans.last[:, :, None])
    same = documents_BN[:, :, None] == documents_BN[:, None, :]
    return seen & same & (documents_BN >= 0)[:, :, None]
