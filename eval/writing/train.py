"""Fine-tuning a copy of a checkpoint to write."""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from data.options import check_types
from eval.epochs import best_epoch
from model import MaskedLM
from model.generate import Texts, Writer
from training.machine import precision

Encoded = tuple[list[int], list[int]]
"""The tokens of a source and of its target."""


@dataclass(frozen=True)
class WritingRecipe:
    """How a checkpoint is fine-tuned to write."""

    epochs: int = 5
    """Passes over the training rows; the result is that of the best epoch on dev."""
    batch_size: int = 16
    """Rows in a batch."""
    learning_rate: float = 1e-3
    """The peak learning rate, for AdamW."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises; after them it falls, to zero at the end."""

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.epochs, self.batch_size, self.learning_rate) <= 0 or not 0 <= self.warmup <= 1:
            raise ValueError("epochs, batch_size and learning_rate must be more than 0, and warmup in [0, 1].")


def fine_tuned(
    model: MaskedLM,
    train: Sequence[Encoded],
    dev: Sequence[Encoded],
    recipe: WritingRecipe,
    seed: int,
    pad_id: int,
    *,
    autocast: torch.dtype | None = None,
    progress: Callable[[float, str], None] = lambda share, text: None,
) -> tuple[Writer, float, int]:
    """The writer of the best epoch, its NLL on dev (nats a token of the targets), and the epoch.

    Raises Diverged.
    """
    torch.manual_seed(seed)
    chooser, device = random.Random(seed), next(model.parameters()).device
    writer = Writer(copy.deepcopy(model))
    optimizer = torch.optim.AdamW(writer.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    groups = in_groups(train, recipe.batch_size)

    def loss_of(group: list[int]) -> torch.Tensor:
        texts = Texts.of([train[i] for i in group], pad_id, model.config.mask_id).to(device)
        with precision(device, autocast):
            return writer.loss(texts)

    best = best_epoch(
        writer,
        optimizer,
        lambda: chooser.sample(groups, len(groups)),
        loss_of,
        lambda: -nll(writer, dev, recipe.batch_size, pad_id),
        epochs=recipe.epochs,
        steps=recipe.epochs * len(groups),
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        progress=progress,
    )
    return writer.eval(), -best.score, best.epoch


@torch.no_grad()
def nll(writer: Writer, rows: Sequence[Encoded], batch_size: int, pad_id: int) -> float:
    """Nats a token of the targets. Puts the writer in eval mode."""
    writer.eval()
    device, total, count = next(writer.parameters()).device, 0.0, 0
    for group in in_groups(rows, batch_size):
        texts = Texts.of([rows[i] for i in group], pad_id, writer.model.config.mask_id).to(device)
        total += float(writer.nll(texts).double().sum())
        count += len(texts.targets)
    return total / count


def in_groups(rows: Sequence[Encoded], size: int) -> list[list[int]]:
    """Groups of row numbers, of similar length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    return [order[i : i + size] for i in range(0, len(order), size)]
