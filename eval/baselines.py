"""What has seen no pretraining: the commonest answer, and a bag of words. A number is judged beside these."""

import time
from collections.abc import Callable, Sequence

from scipy.sparse import csr_matrix, hstack
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from eval.finetune import Outcome
from eval.metrics import measure
from eval.tasks import Example, Splits, Task


def _features(vectorizer: TfidfVectorizer, rows: Sequence[Example]) -> csr_matrix:
    """Of a pair also what both have in common, and how much."""
    parts = [vectorizer.transform([row.texts[i] for row in rows]) for i in range(len(rows[0].texts))]
    if len(parts) == 2:
        common = parts[0].multiply(parts[1])
        parts += [common, csr_matrix(common.sum(1))]
    return csr_matrix(hstack(parts))


def majority(task: Task, splits: Splits) -> Outcome:
    return _fitted(task, splits, DummyRegressor() if task.regression else DummyClassifier(), None)


def bag_of_words(task: Task, splits: Splits) -> Outcome:
    """TF-IDF of words, or of characters where words have no spaces, and a linear model."""
    text = " ".join(row.texts[0] for row in splits.train[:100])
    spaced = text.count(" ") > len(text) / 20
    vectorizer = TfidfVectorizer(
        analyzer="word" if spaced else "char", ngram_range=(1, 2), max_features=100_000, sublinear_tf=True
    )
    vectorizer.fit([part for row in splits.train for part in row.texts])
    return _fitted(task, splits, Ridge() if task.regression else LogisticRegression(max_iter=300, C=4.0), vectorizer)


def _fitted(task: Task, splits: Splits, estimator, vectorizer: TfidfVectorizer | None) -> Outcome:
    started = time.perf_counter()

    def features(rows: Sequence[Example]):
        return [[0.0]] * len(rows) if vectorizer is None else _features(vectorizer, rows)

    estimator.fit(features(splits.train), [row.label for row in splits.train])
    metrics = {
        split: measure(task.metrics, [row.label for row in rows], estimator.predict(features(rows)))
        for split, rows in splits.dev.items()
    }
    words = sum(len(text.split()) for row in splits.train for text in row.texts)
    return Outcome(metrics, 1, words / (time.perf_counter() - started))


BASELINES: dict[str, Callable[..., Outcome]] = {"majority": majority, "bag of words": bag_of_words}
