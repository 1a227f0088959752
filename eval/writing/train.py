"""Fine-tuning a copy of a checkpoint to write."""

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from data.options import check_types
from model import MaskedLM
from model.generate import Texts, Writer
from training.budget import learning_rate_factor
from training.machine import precision

Encoded = tuple[list[int], list[int]]
"""The tokens of a source and of its target."""


@dataclass(frozen=True)
class WritingRecipe:
    """How a checkpoint is fine-tuned to write."""

    epochs: int = 5
    """Passes over the training rows; the one that is best on dev counts."""
    batch_size: int = 16
    """Rows in a batch."""
    learning_rate: float = 1e-3
    """The plateau's height, for AdamW."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises; then it falls to zero at the end."""

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

    Raises ValueError where the loss becomes no number.
    """
    torch.manual_seed(seed)
    chooser, device = random.Random(seed), next(model.parameters()).device
    writer = Writer(copy.deepcopy(model))
    optimizer = torch.optim.AdamW(writer.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    groups = in_groups(train, recipe.batch_size)
    steps, step = recipe.epochs * len(groups), 0
    best: tuple[float, int, dict] = (math.inf, 0, {})
    for epoch in range(1, recipe.epochs + 1):
        writer.train()
        for group in chooser.sample(groups, len(groups)):
            texts = Texts.of([train[i] for i in group], pad_id, model.config.mask_id).to(device)
            with precision(device, autocast):
                loss = writer.loss(texts)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(writer.parameters(), 1.0)
            for settings in optimizer.param_groups:
                settings["lr"] = recipe.learning_rate * learning_rate_factor(
                    step / steps, recipe.warmup, 1 - recipe.warmup
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 20 == 0:
                progress(step / steps, f"loss {loss.item():.3f}")
        found = nll(writer, dev, recipe.batch_size, pad_id)
        if not math.isfinite(found):
            raise ValueError(f"the fine-tuning has diverged in epoch {epoch}; take a lower learning rate.")
        progress(step / steps, f"epoch {epoch}: {found:.3f} nats")
        if found < best[0]:
            best = found, epoch, copy.deepcopy(writer.state_dict())
    writer.load_state_dict(best[2])
    return writer.eval(), best[0], best[1]


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
    """Numbers of rows of like length, together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    return [order[i : i + size] for i in range(0, len(order), size)]
