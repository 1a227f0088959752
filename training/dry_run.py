"""`pretrain.py --dry-run`: what a run would need. It neither reads the corpus nor trains.

It refuses the same options as a run. Errors in the corpus it cannot see.
"""

import time
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from data.masking import Masking
from data.tokenizer import Tokenizer
from model import MaskedLM
from model.batch import Batch
from training.budget import Budget
from training.config import PretrainConfig
from training.contestant import Contestant
from training.entry import Entry
from training.machine import keep_freed_memory
from training.making import autocast_dtype, make_contestant, resolve_device
from training.memory import some_batch, training_memory_bytes

TIMED_STEPS = 3


class RandomBatches:
    """Stands in for training.sampling.Batches: random tokens of the right shape and masking."""

    def __init__(self, config: PretrainConfig, model: MaskedLM) -> None:
        self.batch_size, self.sequence_length = config.batch_size, config.sequence_length
        self.batch = some_batch(model, self.batch_size, self.sequence_length)

    def at(self, step: int, masking: Masking | None = None) -> Batch:
        return self.batch if masking is not None else replace(self.batch, corrupted=None, masked=None)


def expected_steps(contestant: Contestant, budget: Budget) -> float:
    """Steps until the budget is spent; for wall-clock from a few timed steps."""
    if budget.kind == "flops":
        return budget.amount / contestant.flops_per_step
    if budget.kind == "tokens":
        return budget.amount / contestant.tokens_per_step
    contestant.warm_up()
    start = time.perf_counter()
    for _ in range(TIMED_STEPS):
        contestant.step(0.0)
    if contestant.device.type == "cuda":
        torch.cuda.synchronize(contestant.device)
    return budget.amount / ((time.perf_counter() - start) / TIMED_STEPS)


def dry_run(config: PretrainConfig, console: Console) -> None:
    keep_freed_memory()
    device, budget = resolve_device(config.device), Budget.parse(config.budget)
    table = Table(
        title=f"{config.budget} for each model, batches of {config.batch_size} x {config.sequence_length} tokens"
    )
    for column in ("", "parameters", "FLOPs a token", "predicted", "memory", "steps", "tokens"):
        table.add_column(column, justify="right" if column else "left")
    data = config.data
    vocab_size = Tokenizer.load(data.tokenizer).vocab_size if data.tokenizer else data.pieces
    for text in config.architectures:
        contestant = make_contestant(
            config,
            Entry.parse(text),
            config.seeds[0],
            device,
            vocab_size=vocab_size,
            mask_id=3,
            batches=lambda model, seed: RandomBatches(config, model),
        )
        steps = expected_steps(contestant, budget.times(contestant.entry.share))
        table.add_row(
            text,
            f"{contestant.model.parameter_count() / 1e6:.2f} M",
            f"{contestant.flops_per_step / contestant.tokens_per_step / 1e6:.1f} M",
            f"{contestant.model.architecture.predicted_fraction:.0%}",
            f"{training_memory_bytes(contestant) / 2**20:,.0f} MiB",
            f"{steps:,.0f}",
            f"{steps * contestant.tokens_per_step / 1e6:.2f} M",
        )
    console.print(table)
    precision = "bf16" if autocast_dtype(config.precision, device) else "fp32"
    console.print(f"{len(config.seeds)} seed(s), {precision} on {device}, vocabulary {vocab_size:,}.")
