"""From a configuration to contestants: device, precision, model, optimiser and budget of each."""

import dataclasses
from collections.abc import Callable

import torch

from model import MaskedLM, ModelConfig
from training.budget import Budget
from training.config import PretrainConfig
from training.contestant import Contestant
from training.entry import Entry
from training.machine import default_device, has_fast_bf16
from training.ranks import ALONE, Ranks
from training.sampling import Source


def resolve_device(name: str) -> torch.device:
    try:
        device = default_device() if name == "auto" else torch.device(name)
        torch.empty(0, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"The device {name!r} cannot be used here ({str(error).splitlines()[0]}); try auto."
        ) from error


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and has_fast_bf16(device)) else None


def model_config(config: PretrainConfig, entry: Entry, vocab_size: int, mask_id: int) -> ModelConfig:
    shape = {
        "vocab_size": vocab_size,
        "mask_id": mask_id,
        "dropout": config.dropout,
        "d_embed": config.d_embed,
        "max_length": max(512, config.sequence_length),
        "options": entry.options,
    }
    return ModelConfig.preset(
        entry.architecture, size=config.size, preset=config.preset, **{**shape, **dict(entry.model)}
    )


def make_contestant(
    config: PretrainConfig,
    entry: Entry,
    seed: int,
    device: torch.device,
    *,
    vocab_size: int,
    mask_id: int,
    batches: Callable[[MaskedLM, int], Source],
    ranks: Ranks = ALONE,
) -> Contestant:
    """A fresh contestant; `batches(model, seed)` gives its data."""
    torch.manual_seed(seed)
    model = MaskedLM(model_config(config, entry, vocab_size, mask_id)).to(device)
    return Contestant(
        entry,
        seed,
        model,
        dataclasses.replace(config.optimizer, **dict(entry.optimizer)),
        batches(model, seed),
        Budget.parse(config.budget).times(entry.share),
        accumulate=config.accumulate,
        autocast=autocast_dtype(config.precision, device),
        compile_loss=config.compile,
        ranks=ranks,
        sharded=config.shard,
    )
