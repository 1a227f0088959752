"""Choosing from n-best lists by two scores and a bonus for length. See eval/rerank.py."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.tokenizer import Tokenizer
from eval.scoring.likelihood import Variant, score
from eval.scoring.nbest import NBest, corpus_gleu, error_rate, gleu_table
from model import MaskedLM

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0)


BONUSES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


class Measure:
    """A measure of choices over a corpus: whether one value is `better` than another, and the best that the lists allow."""

    def __init__(self, lists: Sequence[NBest], metric: str) -> None:
        self.lists, self.metric = lists, metric
        self.table: Any = gleu_table(lists) if metric == "gleu" else error_rate(lists, metric == "cer")

    def of(self, chosen: Sequence[int]) -> float:
        """x 100."""
        if self.metric == "gleu":
            return 100 * corpus_gleu(self.table, chosen)
        edits = np.sum([rows[i] for rows, i in zip(self.table, chosen)], axis=0)
        if not edits[1]:
            raise ValueError("The references hold no words at all; an error rate needs some.")
        return 100 * float(edits[0] / edits[1])

    def better(self, a: float, b: float) -> bool:
        return a > b if self.metric == "gleu" else a < b

    def oracle(self) -> float:
        if self.metric == "gleu":
            return self.of([max(range(len(s)), key=lambda i: sum(_sentence(x) for x in s[i])) for s in self.table])
        return self.of([int(np.argmin(rows[:, 0] / np.maximum(1, rows[:, 1]))) for rows in self.table])


def _sentence(statistics: np.ndarray) -> float:
    return float((statistics[2::2] / np.maximum(1, statistics[3::2])).sum())


def likelihoods(model: MaskedLM, tokenizer: Tokenizer, lists: Sequence[NBest], variant: Variant) -> list[np.ndarray]:
    """The PLL of each hypothesis, each distinct text scored once."""
    texts = list(dict.fromkeys(text for entry in lists for text in entry.texts))
    known = dict(zip(texts, (found.total for found in score(model, tokenizer, texts, variant))))
    if not np.isfinite(list(known.values())).all():
        raise ValueError("a hypothesis has a likelihood that is not a number: the checkpoint has diverged.")
    return [np.array([known[text] for text in entry.texts]) for entry in lists]


def choose(
    lists: Sequence[NBest], pll: Sequence[np.ndarray], weight: float, bonus: float, characters: bool
) -> list[int]:
    """The number of the best hypothesis of each list; the first of equals."""
    chosen = []
    for entry, own in zip(lists, pll):
        lengths = np.array([len(text) if characters else len(text.split()) for text in entry.texts])
        chosen.append(int(np.argmax(np.array(entry.scores) + weight * own + bonus * lengths)))
    return chosen


def sweep(
    lists: Sequence[NBest], pll: Sequence[np.ndarray], measure: Measure, characters: bool
) -> tuple[float, float, float]:
    """(weight, bonus, what they reach). Without scores of the lists' own the weight is 1: only its ratio to the bonus counts."""
    scored = any(score for entry in lists for score in entry.scores)
    weights = WEIGHTS if scored else (1.0,)
    best: tuple[float, float, float] | None = None
    for weight, bonus in itertools.product(weights, BONUSES):
        reached = measure.of(choose(lists, pll, weight, bonus, characters))
        if best is None or measure.better(reached, best[2]):
            best = weight, bonus, reached
    assert best is not None  # there are weights and bonuses
    return best
