"""What tests/training/test_ranks.py starts with torchrun: each architecture trained over ranks, and beside it by rank 0 alone.

    torchrun --nproc-per-node=W tests/training/ranks_worker.py OUT STEPS ACCUMULATE DTYPE whole|shard ARCHITECTURE ...

OUT gets for each architecture and optimiser the largest difference of a weight, and whether all bits are the same.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import tests.conftest  # noqa: F401  (the environment of tests)
from model import MaskedLM
from tests.model.models import tiny_model
from tests.training.test_contestant import SomeBatches
from training import muon
from training.budget import Budget
from training.contestant import Contestant
from training.entry import Entry
from training.optimizer import OptimizerConfig
from training.ranks import ALONE, Ranks
from training.sharding import gathered


def trained(
    architecture: str, optimizer: str, ranks: Ranks, steps: int, accumulate: int, precision: torch.dtype, sharded: bool
) -> MaskedLM:
    model = start(architecture).to(precision).train()
    batches = SomeBatches(model.architecture.masking is not None)
    budget = Budget("tokens", accumulate * 24 * steps)  # 24 tokens a batch
    config = OptimizerConfig(name=optimizer)
    contestant = Contestant(
        Entry.parse(architecture),
        0,
        model,
        config,
        batches,
        budget,
        accumulate=accumulate,
        ranks=ranks,
        sharded=sharded,
    )
    while not contestant.finished:
        contestant.train(0.0, until=1.0)
    assert contestant.progress.step == steps
    contestant.parallel = None
    return gathered(model)


def start(architecture: str) -> MaskedLM:
    entry = Entry.parse(architecture)
    return tiny_model(entry.architecture, options=entry.options)


def main() -> None:
    out, steps, accumulate, name, how, *architectures = sys.argv[1:]
    sharded = how == "shard"
    ranks, found, precision = Ranks.of_environment(), {}, getattr(torch, name)
    ranks.join()
    muon.has_fast_bf16 = lambda device: False  # Newton-Schulz in float32: bf16 has 3 digits
    for architecture in architectures:
        for optimizer in ("adamw", "muon"):
            ours = trained(architecture, optimizer, ranks, int(steps), int(accumulate), precision, sharded)
            if ranks.first:
                alone = trained(architecture, optimizer, ALONE, int(steps), int(accumulate), precision, sharded)
                pairs = list(zip(ours.parameters(), alone.parameters(), strict=True))
                most = max(float((a - b).detach().abs().max()) for a, b in pairs)
                moved = max(
                    float((a - b).detach().abs().max())
                    for a, b in zip(alone.parameters(), start(architecture).parameters())
                )
                found[f"{architecture}, {optimizer}"] = [most, all(torch.equal(a, b) for a, b in pairs), moved]
    if ranks.first:
        Path(out).write_text(json.dumps(found))
    ranks.leave()


if __name__ == "__main__":
    main()
