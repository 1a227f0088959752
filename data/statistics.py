"""The statistics of every comparison: the spread between seeds, a mean whose error is clustered by document, and a difference
whose interval holds both."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import special  # scipy.stats takes a second to load


def t_quantile(freedom: float) -> float:
    """Of the t distribution: 95% of it lie within ± this many standard errors."""
    return float(special.stdtrit(freedom, 0.975))


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
    """Mean over all positions, and its standard error from the spread between documents (None for a single one).

    sums, counts: over the positions of each document; neighbours in a document are not independent. A ratio of
    sums: var = G/(G-1) sum_c (sum_c - mean count_c)^2 / count^2 (Cochran 1977, section 2.11).
    """
    total = sum(counts)
    mean = sum(sums) / total
    if len(sums) < 2:
        return mean, None
    squares = sum((s - mean * n) ** 2 for s, n in zip(sums, counts))
    return mean, math.sqrt(len(sums) / (len(sums) - 1) * squares) / total


@dataclass(frozen=True)
class Difference:
    """The mean of one contestant minus another's on the same tokens, or words.

    error:      its standard error: the spread between documents, and with several seeds that between these, added up.
    half:       half of its 95% interval, from a t distribution with the degrees of freedom of that sum (Welch 1947). None, as is
                error, with a single document.
    deviation:  the standard deviation between seeds; None for one.
    """

    mean: float
    error: float | None
    half: float | None
    deviation: float | None

    def text(self, form: str = ".3f") -> str:
        """The difference, and after ± half of its 95% interval."""
        return f"{self.mean:+{form}}" + (f" ± {self.half:{form}}" if self.half is not None else "")


def paired_difference(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Difference:
    """Of each seed the clusters of one contestant and of the other ("documents", "counts", "sums"), on the same documents.

    Raises ValueError where these differ: then the two were measured on other text.
    """
    by_seed: list[float] = []
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for ours, theirs in pairs:
        if ours["documents"] != theirs["documents"] or ours["counts"] != theirs["counts"]:
            raise ValueError(
                "two contestants were measured on different text; compare those of one corpus and yardstick"
            )
        for document, count, a, b in zip(ours["documents"], ours["counts"], ours["sums"], theirs["sums"]):
            sums[document] = sums.get(document, 0.0) + a - b
            counts[document] = counts.get(document, 0) + count
        by_seed.append((sum(ours["sums"]) - sum(theirs["sums"])) / sum(ours["counts"]))
    mean, error = clustered_mean(list(sums.values()), list(counts.values()))
    deviation = Spread.of(by_seed).deviation
    if error is None:
        return Difference(mean, None, None, deviation)
    of_documents, of_seeds = error**2, 0.0 if deviation is None else deviation**2 / len(by_seed)
    total = of_documents + of_seeds
    if not total:
        return Difference(mean, 0.0, 0.0, deviation)
    freedom = of_documents**2 / (len(sums) - 1) + (of_seeds**2 / (len(by_seed) - 1) if of_seeds else 0.0)
    half = t_quantile(total**2 / freedom) * math.sqrt(total)
    return Difference(mean, math.sqrt(total), half, deviation)
