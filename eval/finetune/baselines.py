"""Baselines without pretraining, to judge results by: the most frequent answer, and a bag of words."""

import re
import time
from collections.abc import Callable, Sequence

from scipy.sparse import csr_matrix, hstack
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from eval.finetune.metrics import measure
from eval.finetune.probe import predict, targets
from eval.finetune.rows import alternatives
from eval.finetune.tasks import Example, Splits, Task
from eval.finetune.train import Outcome


def _features(vectorizer: TfidfVectorizer, rows: Sequence[Example]) -> csr_matrix:
    """For a pair also the words that both have, and their number."""
    texts = [one for row in rows for one in alternatives(row)]
    parts = [vectorizer.transform([one[i] for one in texts]) for i in range(len(texts[0]))]
    if len(parts) == 2:
        common = parts[0].multiply(parts[1])
        parts += [common, csr_matrix(common.sum(1))]
    return csr_matrix(hstack(parts))


def majority(task: Task, splits: Splits) -> Outcome:
    """The most frequent answer. For choices it is the first one, and for spans the empty string."""
    if task.form in ("choice", "span"):
        return Outcome({s: _measured(task, rows, [0 if task.form == "choice" else ""] * len(rows)) for s, rows in
                        splits.dev.items()}, 0, 0.0)  # fmt: skip
    return _fitted(task, splits, DummyRegressor() if task.form == "score" else DummyClassifier(), None)


def bag_of_words(task: Task, splits: Splits) -> Outcome:
    """TF-IDF of words, or of characters where words have no spaces, and a linear model. For spans, the passage's sentence
    that is nearest to the question."""
    texts = [text for row in splits.train for one in alternatives(row) for text in one]
    text = " ".join(texts[:100])
    spaced = text.count(" ") > len(text) / 20
    vectorizer = TfidfVectorizer(
        analyzer="word" if spaced else "char", ngram_range=(1, 2), max_features=100_000, sublinear_tf=True
    )
    vectorizer.fit(texts)
    if task.form == "span":
        found = {s: [_nearest_sentence(vectorizer, *row.texts) for row in rows] for s, rows in splits.dev.items()}
        return Outcome({s: _measured(task, rows, found[s]) for s, rows in splits.dev.items()}, 0, 0.0)
    estimator = Ridge() if task.form == "score" else LogisticRegression(max_iter=300, C=4.0)
    return _fitted(task, splits, estimator, vectorizer)


def _nearest_sentence(vectorizer: TfidfVectorizer, question: str, passage: str) -> str:
    sentences = [s.strip() for s in re.split(r"(?<=[。！？；.!?;])", passage) if s.strip()] or [""]
    likeness = vectorizer.transform(sentences) @ vectorizer.transform([question]).T
    return sentences[int(likeness.toarray().argmax())]


def _measured(task: Task, rows: Sequence[Example], answers: Sequence) -> dict[str, float]:
    return measure((*task.metrics, *task.also), [row.label for row in rows], answers)


def _fitted(task: Task, splits: Splits, estimator, vectorizer: TfidfVectorizer | None) -> Outcome:
    started = time.perf_counter()

    def features(rows: Sequence[Example]):
        return [[0.0]] * len(rows) if vectorizer is None else _features(vectorizer, rows)

    estimator.fit(features(splits.train), targets(splits.train))
    answers = {s: predict(estimator, features(rows), rows) for s, rows in splits.dev.items()}
    words = sum(len(text.split()) for row in splits.train for text in row.texts)
    metrics = {s: _measured(task, rows, answers[s]) for s, rows in splits.dev.items()}
    return Outcome(metrics, 0, words / (time.perf_counter() - started))


BASELINES: dict[str, Callable[..., Outcome]] = {"majority": majority, "bag of words": bag_of_words}
