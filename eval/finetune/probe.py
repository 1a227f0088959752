"""A linear probe: nothing of the model is trained, a linear model reads its pooled states. Minutes on a CPU."""

import random
import time
from collections.abc import Sequence

import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.tokenizer import Tokenizer
from eval.epochs import Diverged
from eval.finetune.metrics import measure
from eval.finetune.rows import alternatives, compared, states_of
from eval.finetune.tasks import Example, Splits, Task
from eval.finetune.train import Classifier, Outcome, Recipe, longest, training_rows
from model import MaskedLM
from model.batch import Batch
from training.machine import precision


def features(
    model: MaskedLM, tokenizer: Tokenizer, examples: Sequence[Example], recipe: Recipe, autocast: torch.dtype | None
) -> tuple[torch.Tensor, int]:
    """(rows, F), and how many texts were cut. F: the pooled state of a text; of a pair a, b, |a - b| and a b, each text encoded
    by itself. A row for each choice where there are choices."""
    classifier = Classifier(model, 1, recipe, tokenizer.special_ids).to(next(model.parameters()).device).eval()
    device = next(model.parameters()).device
    texts = [one for example in examples for one in alternatives(example)]

    def read(batch: Batch) -> torch.Tensor:
        with precision(device, autocast):
            return classifier.pooled(batch)

    count = longest(model, recipe)
    found = [states_of(read, [one[i] for one in texts], tokenizer, count, device) for i in range(len(texts[0]))]
    parts = [states for states, _ in found]
    return compared(*parts) if len(parts) == 2 else parts[0], sum(cut for _, cut in found)


def probe(
    model: MaskedLM,
    tokenizer: Tokenizer,
    task: Task,
    splits: Splits,
    recipe: Recipe,
    seed: int,
    *,
    autocast: torch.dtype | None = None,
    progress: object = None,
) -> Outcome:
    """As `finetune.fine_tune`, with the model left as it is. The seed draws the rows, if not all are taken; the fit has
    one solution.

    Raises ValueError for tasks of spans, which no linear model of a pooled state could answer.
    """
    if task.form == "span":
        raise ValueError(f"{task.name} asks for spans, which a probe of pooled states cannot find; fine-tune instead.")
    train = training_rows(splits.train, task, recipe, random.Random(seed))
    started = time.perf_counter()
    estimator = make_pipeline(
        StandardScaler(), Ridge(10.0) if task.form == "score" else LogisticRegression(max_iter=200, C=0.1)
    )
    read, cut = features(model, tokenizer, train, recipe, autocast)
    cuts = {"train": cut}
    if not torch.isfinite(read).all():
        raise Diverged(f"{task.name}: the checkpoint's states are not numbers; it has diverged.")
    estimator.fit(read, targets(train))
    tokens = sum(map(len, tokenizer.encode_batch([text for example in train for text in example.texts])))
    speed = tokens / (time.perf_counter() - started)
    answers = {}
    for split, rows in (splits.dev | splits.test | splits.extra).items():
        read, cuts[split] = features(model, tokenizer, rows, recipe, autocast) if rows else (torch.empty(0), 0)
        answers[split] = predict(estimator, read, rows) if rows else []
    names = (*task.metrics, *task.also)
    metrics = {s: measure(names, [example.label for example in rows], answers[s]) for s, rows in splits.dev.items()}
    return Outcome(metrics, 0, speed, cuts, {s: answers[s] for s in splits.test | splits.extra})


def targets(examples: Sequence[Example]) -> list:
    """What an estimator of rows is fitted to: labels, or for each choice whether it is the right one."""
    return [
        t for e in examples for t in ([int(i == e.label) for i in range(len(e.choices))] if e.choices else [e.label])
    ]


def predict(estimator, rows, examples: Sequence[Example]) -> list:
    """An answer for each example; of choices the one that is likeliest right."""
    if not examples[0].choices:
        return [x.item() for x in estimator.predict(rows)]
    likely, found = iter(estimator.predict_proba(rows)[:, -1].tolist()), []
    for example in examples:
        own = [next(likely) for _ in example.choices]
        found.append(own.index(max(own)))
    return found
