"""FLOPs of a training step, counted by PyTorch as the model runs: no architecture writes its own formula.

A multiply-add counts two. Matrix products and attention count, forward and backward; norms, softmax and other elementwise
work do not, nor what a kernel computes a second time instead of keeping it (Kaplan et al. 2020, arXiv 2001.08361).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from kernels.dispatch import as_operators
from model.batch import Batch
from model.config import ModelConfig
from model.masked_lm import MaskedLM


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of a step over a batch, as a function of how many positions it predicts: a straight line."""

    fixed: float
    per_position: float

    def __call__(self, predicted: int) -> float:
        return self.fixed + self.per_position * predicted


@lru_cache(maxsize=64)
def step_flops(config: ModelConfig, rows: int, length: int, fraction: float = 0.0) -> StepFlops:
    """Forward and backward of the loss over a batch (rows, length) without document boundaries, at this share of the budget."""
    few, all_positions = rows, rows * length  # as many in each row
    with torch.device("meta"):
        model = MaskedLM(config)
    model.architecture.fraction = fraction
    if model.architecture.masking_at(fraction) is None:
        return StepFlops(0.0, _count(model, rows, length, None) / all_positions)
    at_few, at_all = (_count(model, rows, length, count) for count in (few, all_positions))
    slope = (at_all - at_few) / (all_positions - few)
    return StepFlops(at_few - slope * few, slope)


def _count(model: MaskedLM, rows: int, length: int, masked: int | None) -> float:
    """On the meta device: shapes alone, no arithmetic."""
    tokens = torch.empty(rows, length, dtype=torch.int64, device="meta")
    batch = Batch(tokens)
    if masked is not None:
        batch = Batch(tokens, corrupted=tokens, masked=tokens.bool())
        vars(batch)["positions"] = torch.empty(masked, dtype=torch.int64, device="meta")
    with as_operators(), FlopCounterMode(display=False) as counter:
        model(batch).backward()
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())
