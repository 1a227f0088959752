"""Tiny models for tests."""

from typing import Any

import pytest
import torch

from model import MaskedLM, ModelConfig
from model.architectures import REGISTRY
from tests.conftest import MASK, VOCAB

TINY = {"d_model": 32, "n_layers": 3, "n_heads": 2, "max_length": 32, "initializer_std": 0.3}

FAMILY = [pytest.param(name, marks=() if name == "local" else pytest.mark.slow) for name in REGISTRY]
"""Every architecture, for what takes many seconds for each: all but the default are left to `make test-slow`."""


def tiny_config(architecture: str, preset: str = "modern", **overrides: Any) -> ModelConfig:
    return ModelConfig.preset(
        architecture, preset=preset, **{"vocab_size": VOCAB, "mask_id": MASK, **TINY, **overrides}
    )


def tiny_model(architecture: str, preset: str = "modern", **overrides: Any) -> MaskedLM:
    """Wide initial weights, so that every path carries a signal far above rounding."""
    torch.manual_seed(0)
    model = MaskedLM(tiny_config(architecture, preset, **overrides))
    with torch.no_grad():  # biases and norms too, as after training
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.3 * torch.randn_like(p))
    return model.eval()
