"""Fine-tuning a checkpoint on one task: one trainer, and one recipe for all tasks of a benchmark.

What is read of the model is `encode`, with or without each position's own token, pooled by the first position or the mean (a span
is read of each position); a dropout and a linear layer make it an answer. The epoch that is best on dev is the one that counts.
"""

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from data.options import check_types
from data.tokenizer import Tokenizer
from eval.epochs import Diverged, best_epoch
from eval.finetune.forms import FORMS, Form
from eval.finetune.metrics import measure, score
from eval.finetune.rows import Row, buckets, compared
from eval.finetune.tasks import Example, Splits, Task
from model import MaskedLM
from model.batch import Batch, padded
from training.machine import precision


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is fine-tuned; the same for all tasks."""

    epochs: int = 5
    """Passes over the training rows."""
    batch_size: int = 32
    """Rows in a batch."""
    learning_rate: float = 5e-4
    """The peak learning rate, for AdamW. Small models need one ten times as high as BERT-base."""
    weight_decay: float = 0.01
    """Weight decay of the matrices."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises; after them it falls, to zero at the end."""
    patience: int = 0
    """Stop after this many epochs without a better score on dev; 0 never stops early. The result is always that of the best
    epoch."""
    dropout: float = 0.1
    """Dropout of the pooled state."""
    encode: Literal["with_self", "without_self"] = "with_self"
    """Whether states may see their own token. Vanilla has only states that do."""
    pool: Literal["mean", "first"] = "mean"
    """What represents a text: the mean of its states without special tokens, or the state of BOS."""
    pair: Literal["joint", "apart"] = "joint"
    """How a pair is read. joint: one sequence, BOS a EOS b EOS. apart: each text by itself; the answer is made from both
    states, their difference and their product (Reimers and Gurevych 2019). Choices and spans are always joint."""
    loss: Literal["ce", "focal", "class_balanced", "logit_adjusted", "accuracy", "dice"] = "ce"
    """The loss of classification; most are for classes of unequal size, see losses.py."""
    max_rows: int = 0
    """Most rows to train on, drawn by the seed; 0 takes all."""
    imbalance: float = 1.0
    """Thin the classes of the training rows, by equal ratios, until the largest has this many times the rows of the smallest
    (Cao et al. 2019, arXiv 1906.07413). This shows how losses differ. 1 leaves the rows as they are."""
    max_length: int = 0
    """Most tokens in a row. Longer rows are cut, and their number is reported. 0: as many as the model can read."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0.")
        if not (0 <= self.warmup <= 1 and 0 <= self.dropout < 1 and self.weight_decay >= 0 and self.max_rows >= 0):
            raise ValueError(
                f"warmup {self.warmup} must lie in [0, 1], dropout {self.dropout} in [0, 1), and weight_decay "
                f"{self.weight_decay} and max_rows {self.max_rows} must not be negative."
            )
        if self.imbalance < 1:
            raise ValueError(f"imbalance is {self.imbalance:g}; it must be 1 (off) or more.")
        if self.patience < 0:
            raise ValueError(f"patience is {self.patience}; it must be 0 (off) or more epochs.")
        if self.max_length < 0 or 0 < self.max_length < 16:
            raise ValueError(f"max_length is {self.max_length}; it must be 0 (as the model) or at least 16 tokens.")


@dataclass
class Outcome:
    """Of one task and seed: metrics on dev by split, the best epoch, tokens a second without padding, predictions for test
    splits and extra tasks, and the metrics of the latter where their labels are told."""

    metrics: dict[str, dict[str, float]]
    best_epoch: int
    tokens_per_second: float
    cut: dict[str, int] = field(default_factory=dict)
    predictions: dict[str, list[Any]] = field(default_factory=dict)
    extra: dict[str, dict[str, float]] = field(default_factory=dict)


class Classifier(nn.Module):
    """A pretrained model, a pooled state, and a linear answer: (B, outputs); by_position: (B, N, outputs); apart: from two
    sequences of the batch each, (B / 2, outputs)."""

    def __init__(
        self, model: MaskedLM, outputs: int, recipe: Recipe, special_ids: tuple[int, ...], by_position: bool = False,
        apart: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.recipe, self.by_position, self.apart = model, recipe, by_position, apart
        self.special_ids: Tensor
        self.register_buffer("special_ids", torch.tensor(special_ids), persistent=False)
        self.dropout = nn.Dropout(recipe.dropout)
        self.answer = nn.Linear((4 if apart else 1) * model.config.d_model, outputs)
        nn.init.normal_(self.answer.weight, std=model.config.initializer_std)
        nn.init.zeros_(self.answer.bias)

    def states(self, batch: Batch) -> Tensor:
        """(B, N, D). In pre-norm the last states are not normalised; the LM head's norm does it here too."""
        return self.model.head.norm_in(self.model.encode(batch, with_self=self.recipe.encode == "with_self"))

    def mean(self, states: Tensor, batch: Batch) -> Tensor:
        """(B, N, D) -> (B, D) over the positions of each text but its specials."""
        words = ~torch.isin(batch.tokens, self.special_ids)
        if batch.documents is not None:
            words &= batch.documents >= 0
        weights = words.to(states.dtype)
        weights = torch.where(words.any(1, keepdim=True), weights, 1.0 / weights.shape[1])  # a text without a word
        return (states * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)

    def pooled(self, batch: Batch) -> Tensor:
        """(B, D)."""
        states = self.states(batch)
        return states[:, 0] if self.recipe.pool == "first" else self.mean(states, batch)

    def forward(self, batch: Batch) -> Tensor:
        states = self.states(batch) if self.by_position else self.pooled(batch)
        if self.apart:
            states = compared(states[::2], states[1::2])
        return self.answer(self.dropout(states))


def fine_tune(
    model: MaskedLM,
    tokenizer: Tokenizer,
    task: Task,
    splits: Splits,
    recipe: Recipe,
    seed: int,
    *,
    autocast: torch.dtype | None = None,
    progress: Callable[[float, str], None] = lambda share, text: None,
) -> Outcome:
    """Train a copy of `model` and measure it on each dev split, by the best epoch's weights.

    Raises ValueError for rows without labels where labels are needed.
    """
    for split, rows in {"train": splits.train, **splits.dev}.items():
        if not rows or any(row.label is None for row in rows):
            what = "no rows" if not rows else "rows without a label"
            raise ValueError(f"{task.name}: {split} has {what}; expected the official split.")
    torch.manual_seed(seed)
    chooser = random.Random(seed)
    device = next(model.parameters()).device
    apart = recipe.pair == "apart" and task.form in ("class", "score") and len(splits.train[0].texts) == 2
    form = FORMS[task.form](task, tokenizer, longest(model, recipe), recipe.loss, apart)
    train = training_rows(splits.train, task, recipe, chooser)
    examples = {"train": train} | splits.dev | splits.test | splits.extra
    sets = {split: form.rows(found) for split, found in examples.items()}
    form.prepare(sets["train"], device)
    classifier = Classifier(
        copy.deepcopy(model), form.outputs, recipe, tokenizer.special_ids, form.by_position, apart
    ).to(device)
    optimizer = _optimizer(classifier, recipe)

    def answers(split: str) -> list[Any]:
        return _answers(classifier, form, sets[split], examples[split], tokenizer, autocast)

    tokens, measured = 0, []

    def loss_of(numbers: list[int]) -> Tensor:
        nonlocal tokens
        rows = [sets["train"][i] for i in numbers]
        tokens += sum(len(ids) for row in rows for ids in row.tokens)
        batch = padded([ids for row in rows for ids in row.tokens], tokenizer.pad_id).to(device)
        with precision(device, autocast):
            outputs = classifier(batch)
        return form.loss(outputs.float(), rows)

    def judge() -> float:
        metrics = {split: _measured(task, examples[split], answers(split)) for split in splits.dev}
        measured.append(metrics)
        return sum(score(found, task.metrics) for found in metrics.values()) / len(metrics)

    best = best_epoch(
        classifier,
        optimizer,
        lambda: buckets(sets["train"], recipe.batch_size, chooser),
        loss_of,
        judge,
        epochs=recipe.epochs,
        steps=recipe.epochs * -(-len(sets["train"]) // recipe.batch_size),
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        patience=recipe.patience,
        what=f"{task.name}: the fine-tuning",
        progress=progress,
    )
    predictions = {split: answers(split) for split in splits.test | splits.extra}
    extra = {
        other.name: _measured(other, splits.extra[other.name], predictions[other.name])
        for other in task.extra
        if all(example.label is not None for example in splits.extra.get(other.name, [Example((), None, 0)]))
    }
    cut = {split: len({row.example for row in rows if row.cut}) for split, rows in sets.items()}
    return Outcome(measured[best.epoch - 1], best.epoch, tokens / best.seconds, cut, predictions, extra)


def training_rows(rows: Sequence[Example], task: Task, recipe: Recipe, chooser: random.Random) -> Sequence[Example]:
    """What is trained on: thinned classes, and of these `max_rows` drawn by `chooser`."""
    rows = thinned(rows, task, recipe.imbalance)
    return chooser.sample(rows, recipe.max_rows) if 0 < recipe.max_rows < len(rows) else rows


def thinned(rows: Sequence[Example], task: Task, imbalance: float) -> Sequence[Example]:
    """Of class k of C, in the order of the task's labels, the first n imbalance^(-k / (C - 1)) rows, n being those of the largest
    class; all where there are fewer, and at least one. Raises ValueError if answers are not classes."""
    if imbalance == 1:
        return rows
    if task.form != "class":
        raise ValueError(f"{task.name} has no classes, so imbalance={imbalance:g} cannot thin them; leave it out.")
    counts = Counter(row.label for row in rows)
    steps = max(1, len(task.labels) - 1)
    left = {k: max(1, round(max(counts.values()) * imbalance ** (-k / steps))) for k in range(len(task.labels))}
    kept = []
    for row in rows:
        if left[row.label]:
            left[row.label] -= 1
            kept.append(row)
    return kept


def longest(model: MaskedLM, recipe: Recipe) -> int:
    """Tokens of a row. Raises ValueError where the recipe asks for more than the model can read."""
    config = model.config
    if recipe.max_length > config.max_length and config.positions == "learned":
        raise ValueError(
            f"max_length is {recipe.max_length} and the model has learned {config.max_length} positions; take no more."
        )
    return recipe.max_length or config.max_length


def _optimizer(classifier: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; norms, biases and tables are not decayed."""
    tables = {id(m.weight) for m in classifier.modules() if isinstance(m, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for p in classifier.parameters():
        (decayed if p.ndim >= 2 and id(p) not in tables else plain).append(p)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-8, fused=True)


@torch.no_grad()
def _answers(
    classifier: Classifier, form: Form, rows: Sequence[Row], examples: Sequence[Example], tokenizer: Tokenizer, autocast
) -> list[Any]:
    """An answer for each example, in order."""
    classifier.eval()
    device = next(classifier.parameters()).device
    found: list[Any] = [None] * len(rows)
    for numbers in buckets(rows, 4 * classifier.recipe.batch_size, None):
        own = [rows[i] for i in numbers]
        batch = padded([ids for row in own for ids in row.tokens], tokenizer.pad_id).to(device)
        with precision(device, autocast):
            outputs = classifier(batch).float()
        if not torch.isfinite(outputs).all():
            raise Diverged(
                "the fine-tuning has diverged: what the model answers is not a number; take a lower learning rate."
            )
        for i, answer in zip(numbers, form.read(outputs, own)):
            found[i] = answer
    return form.merge(rows, found, examples)


def _measured(task: Task, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, float]:
    return measure((*task.metrics, *task.also), [example.label for example in examples], answers)
