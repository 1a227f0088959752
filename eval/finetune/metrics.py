"""The metrics of GLUE and CLUE, by scikit-learn and scipy, as the benchmarks define them. All in percent."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from eval.finetune.spans import exact, overlap


def _correlation(measure: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    def measured(truth: np.ndarray, predicted: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant prediction has no correlation: that is 0 here
            value = float(measure(truth, predicted)[0])
        constant = np.ptp(truth) == 0 or np.ptp(predicted) == 0
        return 0.0 if math.isnan(value) and constant else value

    return measured


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy_score,
    "f1": lambda truth, predicted: f1_score(truth, predicted, zero_division=0.0),  # of class 1: MRPC, QQP
    "macro_f1": lambda truth, predicted: f1_score(truth, predicted, average="macro", zero_division=0.0),
    "mcc": matthews_corrcoef,
    "pearson": _correlation(pearsonr),
    "spearman": _correlation(spearmanr),
    "em": lambda truth, predicted: float(np.mean([exact(t, p) for t, p in zip(truth, predicted)])),
    "span_f1": lambda truth, predicted: float(np.mean([overlap(t, p) for t, p in zip(truth, predicted)])),
}
OF_TEXTS = ("em", "span_f1")


def measure(names: Sequence[str], truth: Sequence, predicted: Sequence) -> dict[str, float]:
    """Each metric of predictions against the truth, x 100.

    Raises ValueError if there are no predictions, or if they are not numbers, as those of a model that diverged.
    """
    if not len(truth):
        raise ValueError("there is nothing to measure: no rows; expected the official split.")
    if not set(names) & set(OF_TEXTS):
        numbers = np.asarray(predicted)
        if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            raise ValueError("predictions are not numbers: the model has diverged.")
    return {name: 100.0 * float(METRICS[name](truth, predicted)) for name in names}


def score(measured: dict[str, float], names: Sequence[str]) -> float:
    """The task's score: the mean of its metrics."""
    return sum(measured[name] for name in names) / len(names)
