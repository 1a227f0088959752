"""Where the time of a training step goes: `python -m training.profile [--options of pretrain.py]` (make profile)."""

import time

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from training.config import PretrainConfig
from training.contestant import Contestant
from training.dry_run import RandomBatches
from training.entry import Entry
from training.machine import keep_freed_memory, matmul_rate
from training.making import make_contestant, resolve_device

STEPS = 5

# The first kind whose word occurs in an operator's name is what that operator's own time counts as.
KINDS = (
    ("attention's and all other matrix products", ("mm", "linear", "conv")),
    ("softmax, exp and sums over keys or vocabulary", ("softmax", "exp", "logsumexp", "amax", "sum", "max", "gather")),
    ("norms", ("layer_norm",)),
    ("activations", ("gelu", "silu", "tanh")),
    ("copies and casts", ("copy", "cat", "contiguous", "clone", "fill", "zero", "empty")),
    ("optimiser's own arithmetic", ("adam", "foreach", "lerp", "norm", "sqrt", "div")),
    ("other elementwise work", ("add", "mul", "sub", "roll", "where", "scatter", "index", "embedding")),
)


def kind_of(operator: str) -> str:
    name = operator.removeprefix("aten::").lower()
    return next((kind for kind, words in KINDS if any(word in name for word in words)), "everything else")


def profile_contestant(contestant: Contestant, console: Console) -> None:
    """Print throughput, its share of the matrix-multiply rate, and own time by kind and by operator."""
    contestant.warm_up()
    rates = [matmul_rate(contestant.device, torch.float32, seconds=0.3)]
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        contestant.step(1e-4)
        seconds.append(time.perf_counter() - start)
    rates.append(matmul_rate(contestant.device, torch.float32, seconds=0.3))
    step = sorted(seconds)[STEPS // 2]
    rate = contestant.flops_per_step / step
    console.print(
        f"\n[bold]{contestant.label}[/]: {step * 1e3:.0f} ms a step, "
        f"{contestant.tokens_per_step / step:,.0f} tokens/s, "
        f"{rate / 1e9:,.0f} GFLOP/s, {rate / max(rates):.0%} of the fp32 matrix-multiply rate "
        f"({max(rates) / 1e9:,.0f} GFLOP/s)",
        highlight=False,
    )
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            contestant.step(1e-4)
    events = [event for event in profiler.key_averages() if event.self_cpu_time_total > 0]
    total = sum(event.self_cpu_time_total for event in events)
    by_kind: dict[str, float] = {}
    for event in events:
        by_kind[kind_of(event.key)] = by_kind.get(kind_of(event.key), 0.0) + event.self_cpu_time_total
    table = Table("kind", "share", "operators that take most of it")
    for kind, time_spent in sorted(by_kind.items(), key=lambda item: -item[1]):
        own = sorted((e for e in events if kind_of(e.key) == kind), key=lambda e: -e.self_cpu_time_total)
        names = ", ".join(f"{e.key.removeprefix('aten::')} {e.self_cpu_time_total / total:.0%}" for e in own[:4])
        table.add_row(kind, f"{time_spent / total:.0%}", names)
    console.print(table)


def main() -> None:
    config = tyro.cli(PretrainConfig, description=__doc__)
    keep_freed_memory()
    for text in config.architectures:
        contestant = make_contestant(
            config,
            Entry.parse(text),
            config.seeds[0],
            resolve_device(config.device),
            vocab_size=config.data.pieces,
            mask_id=3,
            batches=lambda model, seed: RandomBatches(config, model),
        )
        profile_contestant(contestant, Console())


if __name__ == "__main__":
    main()
