"""Fine-tuning a checkpoint on one task: one trainer, and one recipe for all tasks of a benchmark.

A pair is joined as the tokenizer joins documents: BOS a EOS b EOS. Rows of similar length make a batch, which saves most of
the padding. What is read of the model is `encode`, with or without each place's own token, pooled by the first place or the
mean; a dropout and a linear layer make it an answer. The epoch that is best on dev is the one that counts.
"""

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.batch import Batch
from data.batches import padded
from data.options import check_types
from data.tokenizer import Tokenizer
from eval.losses import LOSSES, Loss
from eval.metrics import measure, score
from eval.tasks import Example, Splits, Task
from model import MaskedLM
from training.budget import learning_rate_factor


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is fine-tuned; the same for all tasks."""

    epochs: int = 5
    """Passes over the training rows."""
    batch_size: int = 32
    """Rows in a batch."""
    learning_rate: float = 5e-4
    """The plateau's height, for AdamW. Small models want it ten times as high as BERT-base does."""
    weight_decay: float = 0.01
    """Of matrices."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises; then it falls to zero at the end."""
    dropout: float = 0.1
    """Of the pooled state."""
    encode: Literal["with_self", "without_self"] = "with_self"
    """Whether a state may see its own token. Vanilla has states with it only."""
    pool: Literal["mean", "first"] = "mean"
    """Of the places' states, what represents the text: their mean without specials, or the state of BOS."""
    loss: Literal["ce", "focal", "class_balanced", "logit_adjusted", "dice"] = "ce"
    """For classes of unequal size; see losses.py."""
    max_rows: int = 0
    """Train on no more than so many rows, drawn by the seed; 0 takes all."""

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


@dataclass(frozen=True)
class Row:
    """A row as the model reads it: (N,) token ids, and how many tokens were cut from it."""

    tokens: Tensor
    label: int | float | None
    cut: int


@dataclass
class Outcome:
    """Of one task and seed: metrics on dev by split, the best epoch, rows a second, and predictions for test splits."""

    metrics: dict[str, dict[str, float]]
    best_epoch: int
    tokens_per_second: float
    cut: dict[str, int] = field(default_factory=dict)
    predictions: dict[str, list[float]] = field(default_factory=dict)


def encode_rows(examples: Sequence[Example], tokenizer: Tokenizer, longest: int) -> list[Row]:
    """BOS a EOS, or BOS a EOS b EOS. Too long, the longer text loses its last token until the row fits."""
    rows = []
    texts = tokenizer.encode_batch([text for example in examples for text in example.texts])
    at = 0
    for example in examples:
        parts = [list(ids) for ids in texts[at : at + len(example.texts)]]
        at += len(parts)
        excess = max(0, sum(map(len, parts)) + 1 + len(parts) - longest)
        for _ in range(excess):
            max(parts, key=len).pop()
        ids = [tokenizer.bos_id]
        for part in parts:
            ids += [*part, tokenizer.eos_id]
        rows.append(Row(torch.tensor(ids), example.label, excess))
    return rows


def buckets(rows: Sequence[Row], size: int, shuffle: random.Random | None) -> Iterator[list[int]]:
    """Numbers of rows that make a batch: of similar length, each row once. In random order if `shuffle` is given."""
    order = list(range(len(rows)))
    if shuffle is not None:
        shuffle.shuffle(order)
    pool = (
        50 * size if shuffle is not None else len(order)
    )  # sorted within pools, so that batches still differ by epoch
    batches = []
    for start in range(0, len(order), max(1, pool)):
        near = sorted(order[start : start + pool], key=lambda i: len(rows[i].tokens))
        batches += [near[i : i + size] for i in range(0, len(near), size)]
    if shuffle is not None:
        shuffle.shuffle(batches)
    yield from batches


class Classifier(nn.Module):
    """A pretrained model, a pooled state, and a linear answer: (B, classes), or (B, 1) for a score."""

    def __init__(self, model: MaskedLM, outputs: int, recipe: Recipe, special_ids: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.special_ids = torch.tensor(special_ids)
        self.dropout = nn.Dropout(recipe.dropout)
        self.answer = nn.Linear(model.config.d_model, outputs)
        nn.init.normal_(self.answer.weight, std=model.config.initializer_std)
        nn.init.zeros_(self.answer.bias)

    def pooled(self, batch: Batch) -> Tensor:
        """(B, D). In pre-norm the last states are not normalised; the LM head's norm does it here too."""
        states = self.model.head.norm_in(self.model.encode(batch, with_self=self.recipe.encode == "with_self"))
        if self.recipe.pool == "first":
            return states[:, 0]
        words = ~torch.isin(batch.tokens, self.special_ids.to(batch.tokens.device))
        if batch.documents is not None:
            words &= batch.documents >= 0
        weights = words.to(states.dtype)
        weights = torch.where(words.any(1, keepdim=True), weights, 1.0 / weights.shape[1])  # a text without a word
        return (states * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)

    def forward(self, batch: Batch) -> Tensor:
        return self.answer(self.dropout(self.pooled(batch)))


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
    train = splits.train
    train = chooser.sample(train, recipe.max_rows) if 0 < recipe.max_rows < len(train) else train
    sets = {
        split: encode_rows(rows, tokenizer, model.config.max_length)
        for split, rows in ({"train": train} | splits.dev | splits.test).items()
    }
    classifier = Classifier(copy.deepcopy(model), len(task.labels) or 1, recipe, tokenizer.special_ids).to(device)
    loss_of = _loss(task, recipe, sets["train"], device)
    optimizer = _optimizer(classifier, recipe)
    steps = recipe.epochs * -(-len(sets["train"]) // recipe.batch_size)
    step, tokens, seconds = 0, 0, 0.0
    best: tuple[float, int, dict[str, dict[str, float]], dict] | None = None
    for epoch in range(recipe.epochs):
        classifier.train()
        started = time.perf_counter()
        for numbers in buckets(sets["train"], recipe.batch_size, chooser):
            rows = [sets["train"][i] for i in numbers]
            batch = padded([row.tokens for row in rows], tokenizer.pad_id).to(device)
            with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                answers = classifier(batch)
            loss = loss_of(answers.float(), torch.tensor([row.label for row in rows], device=device))
            loss.backward()
            nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * learning_rate_factor(
                    step / steps, recipe.warmup, 1 - recipe.warmup
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step, tokens = step + 1, tokens + batch.tokens.numel()
            if step % 20 == 0:
                progress(step / steps, f"loss {loss.item():.3f}")
        seconds += time.perf_counter() - started
        metrics = {split: _measured(classifier, task, sets[split], tokenizer, autocast) for split in splits.dev}
        here = sum(score(found, task.metrics) for found in metrics.values()) / len(metrics)
        progress(step / steps, f"epoch {epoch + 1}: {here:.1f}")
        if best is None or here > best[0]:
            best = here, epoch + 1, metrics, copy.deepcopy(classifier.state_dict())
    _, best_epoch, metrics, weights = best
    classifier.load_state_dict(weights)
    predictions = {split: _answers(classifier, task, sets[split], tokenizer, autocast) for split in splits.test}
    cut = {split: sum(row.cut > 0 for row in rows) for split, rows in sets.items()}
    return Outcome(metrics, best_epoch, tokens / seconds, cut, predictions)


def _loss(task: Task, recipe: Recipe, rows: Sequence[Row], device: torch.device) -> Loss:
    if task.regression:
        return lambda answers, truth: F.mse_loss(answers[:, 0], truth.float())
    counts = torch.bincount(torch.tensor([row.label for row in rows]), minlength=len(task.labels)).to(device)
    return LOSSES[recipe.loss](counts)


def _optimizer(classifier: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; norms, biases and tables are not decayed."""
    tables = {id(m.weight) for m in classifier.modules() if isinstance(m, nn.Embedding)}
    decayed, plain = [], []
    for p in classifier.parameters():
        (decayed if p.ndim >= 2 and id(p) not in tables else plain).append(p)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-8, fused=True)


@torch.no_grad()
def _answers(classifier: Classifier, task: Task, rows: Sequence[Row], tokenizer: Tokenizer, autocast) -> list[float]:
    """The class's number, or the score, of each row, in order."""
    classifier.eval()
    device = next(classifier.parameters()).device
    found: list[float] = [0.0] * len(rows)
    for numbers in buckets(rows, 4 * classifier.recipe.batch_size, None):
        batch = padded([rows[i].tokens for i in numbers], tokenizer.pad_id).to(device)
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            answers = classifier(batch).float()
        chosen = answers[:, 0] if task.regression else answers.argmax(-1)
        for i, value in zip(numbers, chosen.tolist()):
            found[i] = value
    return found


def _measured(
    classifier: Classifier, task: Task, rows: Sequence[Row], tokenizer: Tokenizer, autocast
) -> dict[str, float]:
    answers = _answers(classifier, task, rows, tokenizer, autocast)
    return measure(task.metrics, [row.label for row in rows], answers)
