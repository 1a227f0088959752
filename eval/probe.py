"""A linear probe: nothing of the model is trained, a linear model reads its pooled states. Minutes on a CPU."""

import time
from collections.abc import Sequence

import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.batches import padded
from data.tokenizer import Tokenizer
from eval.finetune import Classifier, Outcome, Recipe, buckets, encode_rows
from eval.metrics import measure
from eval.tasks import Example, Splits, Task
from model import MaskedLM


@torch.no_grad()
def features(
    model: MaskedLM, tokenizer: Tokenizer, examples: Sequence[Example], recipe: Recipe, autocast: torch.dtype | None
) -> torch.Tensor:
    """(rows, F): the pooled state of a text; of a pair a, b, |a - b| and a b, each text encoded by itself."""
    classifier = Classifier(model, 1, recipe, tokenizer.special_ids).to(next(model.parameters()).device).eval()
    device = next(model.parameters()).device
    parts = []
    for i in range(len(examples[0].texts)):
        alone = [Example((example.texts[i],), None, example.index) for example in examples]
        rows = encode_rows(alone, tokenizer, model.config.max_length)
        states = torch.empty(len(rows), model.config.d_model)
        for numbers in buckets(rows, 4 * recipe.batch_size, None):
            batch = padded([rows[n].tokens for n in numbers], tokenizer.pad_id).to(device)
            with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                states[numbers] = classifier.pooled(batch).float().cpu()
        parts.append(states)
    if len(parts) == 2:
        parts += [(parts[0] - parts[1]).abs(), parts[0] * parts[1]]
    return torch.cat(parts, 1)


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
    """As `finetune.fine_tune`, with the model left as it is. The seed changes nothing: the fit has one solution."""
    train = splits.train[: recipe.max_rows or None]
    started = time.perf_counter()
    estimator = make_pipeline(
        StandardScaler(), Ridge(10.0) if task.regression else LogisticRegression(max_iter=200, C=0.1)
    )
    estimator.fit(features(model, tokenizer, train, recipe, autocast), [example.label for example in train])
    tokens = sum(map(len, tokenizer.encode_batch([text for example in train for text in example.texts])))
    speed = tokens / (time.perf_counter() - started)
    answers = {
        s: estimator.predict(features(model, tokenizer, rows, recipe, autocast))
        for s, rows in (splits.dev | splits.test).items()
    }
    metrics = {
        s: measure(task.metrics, [example.label for example in rows], answers[s]) for s, rows in splits.dev.items()
    }
    return Outcome(metrics, 0, speed, {}, {s: [float(a) for a in answers[s]] for s in splits.test})
