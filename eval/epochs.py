"""The loop of every fine-tuning here: a rate that rises and falls, clipped gradients, and the epoch that `judge` finds best."""

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from training.budget import learning_rate_factor

T = TypeVar("T")


class Diverged(ValueError):
    """A fine-tuning whose loss or gradients became NaN or infinite: it has no result."""


@dataclass(frozen=True)
class Best:
    """The epoch, counted from 1, that was best, what `judge` said of it, and the seconds that all steps took."""

    epoch: int
    score: float
    seconds: float


def best_epoch(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[], Iterable[T]],
    loss_of: Callable[[T], Tensor],
    judge: Callable[[], float],
    *,
    epochs: int,
    steps: int,
    learning_rate: float,
    warmup: float = 0.1,
    patience: int = 0,
    later_of_equals: bool = False,
    what: str = "the fine-tuning",
    progress: Callable[[float, str], None] = lambda share, text: None,
) -> Best:
    """Train `module` and leave it with the weights of its best epoch. Only every 20th step waits for the device.

    batches: of one epoch, in its order; steps: of all epochs together. patience: epochs without a better one after which it
    stops, 0 never. later_of_equals: of epochs that are judged alike the last counts, otherwise the first.
    Raises Diverged.
    """
    device = next(module.parameters()).device
    step, seconds = 0, 0.0
    best: tuple[float, int, dict[str, Tensor]] | None = None
    for epoch in range(1, epochs + 1):
        module.train()
        started, worst = time.perf_counter(), torch.zeros(2, device=device)
        for batch in batches():
            loss = loss_of(batch)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            factor = learning_rate_factor(step / steps, warmup, 1 - warmup)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 20 == 0:
                progress(step / steps, f"loss {loss.item():.3f}")
            worst = torch.maximum(worst, torch.stack([loss.detach(), norm]).abs())
        seconds += time.perf_counter() - started
        if not torch.isfinite(worst).all():  # a norm that is not a number has spoilt the weights
            raise Diverged(
                f"{what} has diverged in epoch {epoch} (the loss or a gradient is not a number); take a lower learning rate."
            )
        score = judge()
        progress(step / steps, f"epoch {epoch}: {score:.1f}")
        if best is None or score > best[0] or (later_of_equals and score == best[0]):
            best = score, epoch, copy.deepcopy(module.state_dict())
        if 0 < patience <= epoch - best[1]:
            break
    assert best is not None  # there is at least one epoch
    module.load_state_dict(best[2])
    return Best(best[1], best[0], seconds)
