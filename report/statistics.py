"""The two statistics of every comparison: the spread between seeds, and a mean whose error is clustered by document."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, and the sample standard deviation between them (None for a single seed)."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def text(self, form: str = ".3f") -> str:
        return f"{self.mean:{form}}" + (f" ± {self.deviation:{form}}" if self.deviation is not None else "")


def clustered_mean(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float | None]:
    """Mean over all places, and its standard error from the spread between documents (None for a single one).

    sums, counts: over the places of each document; neighbours in a document are no independent witnesses. A ratio of
    sums: var = G/(G-1) sum_c (sum_c - mean count_c)^2 / count^2 (Cochran 1977, section 2.11).
    """
    total = sum(counts)
    mean = sum(sums) / total
    if len(sums) < 2:
        return mean, None
    squares = sum((s - mean * n) ** 2 for s, n in zip(sums, counts))
    return mean, math.sqrt(len(sums) / (len(sums) - 1) * squares) / total
