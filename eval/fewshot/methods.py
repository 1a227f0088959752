"""Methods of few-shot learning on one task: zero, linear, pet and ipet. See eval/fewclue.py."""

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from data.options import check_types
from data.tokenizer import Tokenizer
from eval.epochs import best_epoch
from eval.fewshot.cloze import Cloze, Question, all_scores, fill, label_scores
from eval.fewshot.tasks import FewShotData, FewShotTask
from eval.finetune.tasks import Example, Splits, Task
from eval.finetune.train import Recipe, fine_tune
from model import MaskedLM
from training.machine import precision

Method = Literal["zero", "linear", "pet", "ipet"]


@dataclass(frozen=True)
class FewShotRecipe:
    """How a copy of the model is fine-tuned; the same for all tasks, and for pet and linear."""

    epochs: int = 10
    batch_size: int = 8
    learning_rate: float = 2e-3
    pseudo: int = 4
    """Unlabelled rows that ipet adds for each labelled one."""

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.epochs, self.batch_size, self.learning_rate) <= 0 or self.pseudo < 0:
            raise ValueError("epochs, batch_size and learning_rate must be more than 0, and pseudo 0 or more.")


def right(scores: torch.Tensor, questions: Sequence[Question]) -> float:
    """Accuracy x 100."""
    return 100 * sum(int(a) == q.label for a, q in zip(scores.argmax(-1), questions)) / len(questions)


def prior_of(scores: torch.Tensor) -> torch.Tensor:
    """(rows, labels) log-scores -> (labels,): how likely each label's word is on average, whatever the row."""
    return scores.log_softmax(-1).mean(0)


def train_cloze(
    model: MaskedLM,
    tokenizer: Tokenizer,
    train: Sequence[Cloze],
    targets: torch.Tensor,
    dev: Sequence[Cloze],
    recipe: FewShotRecipe,
    seed: int,
    autocast: torch.dtype | None,
    prior: torch.Tensor,
) -> MaskedLM:
    """A copy of `model` that has learned `targets` (rows, labels), probabilities; of the epochs the best on dev.

    prior: (labels,) log-scores that are subtracted from those of every row, here and wherever the copy is used.
    """
    torch.manual_seed(seed)
    draw, model = random.Random(seed), copy.deepcopy(model)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    def batches() -> Iterator[list[int]]:
        order = draw.sample(range(len(train)), len(train))
        return (order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size))

    def loss_of(numbers: list[int]) -> torch.Tensor:
        with precision(device, autocast):
            scores = label_scores(model, tokenizer, [train[i] for i in numbers])
        return F.cross_entropy(scores.float() - prior.to(device), targets[numbers, : scores.shape[1]].to(device))

    def judge() -> float:
        scores = all_scores(model, tokenizer, dev, autocast) - prior
        return sum(int(a) == c.label for a, c in zip(scores.argmax(-1), dev))

    best_epoch(
        model,
        optimizer,
        batches,
        loss_of,
        judge,
        epochs=recipe.epochs,
        steps=recipe.epochs * -(-len(train) // recipe.batch_size),
        learning_rate=recipe.learning_rate,
        later_of_equals=True,  # a few rows tie often
    )
    return model


def run_method(
    method: Method, model: MaskedLM, tokenizer: Tokenizer, task: FewShotTask, data: FewShotData, recipe: FewShotRecipe, seed: int,
    autocast: torch.dtype | None,
) -> float:  # fmt: skip
    if method == "linear":
        return linear(model, tokenizer, task, data, recipe, seed, autocast)

    def clozes(questions: Sequence[Question], pattern: str) -> list[Cloze]:
        return [fill(question, pattern, tokenizer, model.config.max_length) for question in questions]

    def ask(models: Sequence[MaskedLM], questions: Sequence[Question]) -> list[torch.Tensor]:
        pairs = zip(models, task.patterns)
        return [all_scores(m, tokenizer, clozes(questions, p), autocast) for m, p in pairs]

    def vote(scores: Sequence[torch.Tensor], priors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([(s - prior).softmax(-1) for s, prior in zip(scores, priors)]).mean(0)

    def priors_of(scores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.zeros(()) if task.choices else prior_of(s) for s in scores]

    untrained = [model] * len(task.patterns)
    if method == "zero":
        asked = ask(untrained, data.test)
        return right(vote(asked, priors_of(asked)), data.test)
    train, targets = list(data.train), one_hot(data.train)
    priors = priors_of(ask(untrained, train))

    def train_all() -> list[MaskedLM]:
        return [
            train_cloze(model, tokenizer, clozes(train, p), targets, clozes(data.dev, p), recipe, seed, autocast, prior)
            for p, prior in zip(task.patterns, priors)
        ]

    trained = train_all()
    if method == "ipet" and data.unlabelled and recipe.pseudo:
        guessed = vote(ask(trained, data.unlabelled), priors)
        chosen = surest(guessed, recipe.pseudo * len(train))
        train += [data.unlabelled[i] for i in chosen]
        width = max(targets.shape[1], guessed.shape[1])
        parts = (targets, guessed[chosen])
        targets = torch.cat([F.pad(part, (0, width - part.shape[1])) for part in parts])
        trained = train_all()
    return right(vote(ask(trained, data.test), priors), data.test)


def one_hot(questions: Sequence[Question]) -> torch.Tensor:
    return F.one_hot(torch.tensor([q.label for q in questions]), max(len(q.words) for q in questions)).float()


def surest(probabilities: torch.Tensor, count: int) -> list[int]:
    """Rows of which one is surest, as many of each guessed label."""
    sure, label = probabilities.max(-1)
    share = max(1, count // probabilities.shape[1])
    found: list[int] = []
    for n in range(probabilities.shape[1]):
        own = torch.nonzero(label == n)[:, 0]
        found += own[sure[own].argsort(descending=True)[:share]].tolist()
    return found


def linear(model, tokenizer, task: FewShotTask, data: FewShotData, recipe: FewShotRecipe, seed: int, autocast) -> float:
    """Fine-tuning with a new layer on the same rows, epochs, batches and rate."""

    def examples(questions: Sequence[Question]) -> list[Example]:
        if task.choices:
            return [Example(("____".join(q.fields.values()), ""), q.label, i, q.words) for i, q in enumerate(questions)]
        texts = [tuple(q.fields.values()) for q in questions]
        return [
            Example((t[0], " ".join(t[1:])) if t[1:] else t, q.label, i)
            for i, (t, q) in enumerate(zip(texts, questions))
        ]

    labels = () if task.choices else tuple(map(str, range(len(data.train[0].words))))
    asked = Task(task.name, labels, ("a",), "label", ("accuracy",), form="choice" if task.choices else "class")
    splits = Splits(examples(data.train), {"dev": examples(data.dev)}, {"test": examples(data.test)})
    own = Recipe(epochs=recipe.epochs, batch_size=recipe.batch_size, learning_rate=recipe.learning_rate)
    answers = fine_tune(model, tokenizer, asked, splits, own, seed, autocast=autocast).predictions["test"]
    return 100 * sum(a == q.label for a, q in zip(answers, data.test)) / len(data.test)
