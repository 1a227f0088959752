"""Which keys a row sees: the one place where this is written down.

| visibility    | row i sees key j    |        | visibility    | row i sees key j |
|---------------|---------------------|--------|---------------|------------------|
| full          | every j             |        | exclude_self  | j != i           |
| before        | j <= i              |        | before_strict | j < i            |
| after         | j >= i              |        | after_strict  | j > i            |
| rank          | rank_j <= rank_i    |        | rank_strict   | rank_j < rank_i  |

Two streams: the content row uses the inclusive visibility, the query row of the same place its strict counterpart.
Union: keys j < i come from the past set, keys j > i from the future set, and one softmax runs over both.
Documents are islands: no visibility reaches another document, and padding (document -1) neither sees nor is seen.
"""

import torch
from torch import Tensor

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

# What the (content, query) rows of a two-stream call see.
TWO_STREAM = {
    "exclude_self": ("full", "exclude_self"),
    "before": ("before", "before_strict"),
    "after": ("after", "after_strict"),
    "rank": ("rank", "rank_strict"),
}


def sees(visibility: str, i: Tensor, j: Tensor) -> Tensor:
    """Row i sees key j of the same document, elementwise; i and j are places, or ranks for a rank visibility."""
    match visibility:
        case "full":
            return (i == i) & (j == j)
        case "exclude_self":
            return i != j
        case "before" | "rank":
            return j <= i
        case "before_strict" | "rank_strict":
            return j < i
        case "after":
            return j >= i
        case "after_strict":
            return j > i
    raise ValueError(f"visibility was {visibility!r}; it must be one of {', '.join(VISIBILITIES)}")


def visible_NN(visibility: str, n: int, device: torch.device | str = "cpu") -> Tensor:
    """(N, N) bool: row i sees key j, for one document of n places; for rank visibilities, in the order of ranks."""
    place = torch.arange(n, device=device)
    return sees(visibility, place[:, None], place[None, :])


def visible_BNN(visibility: str, documents_BN: Tensor, rank_BN: Tensor | None = None) -> Tensor:
    """(B, N, N) bool: row i sees key j in the same row of the batch."""
    n = documents_BN.shape[1]
    place = torch.arange(n, device=documents_BN.device).expand_as(documents_BN)
    order = place if rank_BN is None or not visibility.startswith("rank") else rank_BN
    seen = sees(visibility, order[:, :, None], order[:, None, :])
    same = documents_BN[:, :, None] == documents_BN[:, None, :]
    return seen & same & (documents_BN >= 0)[:, :, None]
