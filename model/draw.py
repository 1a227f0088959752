"""The picture of docs/architectures.md, measured from the models: `python -m model.draw docs/architectures.png`.

For each architecture with random weights: on which raw embeddings the keys of its last layer depend (one panel for each set of
keys that it has), and on which a prediction does. A derivative of exactly zero counts as no dependence.
"""

import sys
from unittest.mock import patch

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from kernels.dispatch import use_backend
from model.architectures import REGISTRY
from model.batch import Batch
from model.config import ModelConfig
from model.masked_lm import MaskedLM

LENGTH, MASK = 10, 3
MASKED = (1, 4, 8)  # of vanilla


def dependence(outputs: Tensor, embedded: Tensor) -> Tensor:
    """(N, N) bool: does outputs[i] (N, ..) change with embedded[0, j] (1, N, D)?"""
    rows = []
    for i in range(len(outputs)):
        weights = torch.randn(outputs[i].shape, generator=torch.Generator().manual_seed(i))
        (gradient,) = torch.autograd.grad((outputs[i] * weights).sum(), embedded, retain_graph=True, allow_unused=True)
        rows.append(torch.zeros(LENGTH, dtype=torch.bool) if gradient is None else (gradient[0] != 0).any(-1))
    return torch.stack(rows)


def measure(name: str) -> dict[str, Tensor]:
    """By the panel's name, (N, N) bool."""
    torch.manual_seed(0)
    config = ModelConfig.preset(name, vocab_size=64, mask_id=MASK, d_model=32, n_layers=3, n_heads=2, d_ff=64)
    model = MaskedLM(config)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn_like(p))
    architecture = model.architecture
    tokens = torch.arange(10, 10 + LENGTH)[None]
    masked = torch.zeros(1, LENGTH, dtype=torch.bool)
    batch = Batch(tokens)
    if architecture.masking is not None:
        masked[0, list(MASKED)] = True
        batch = Batch(tokens, corrupted=tokens.masked_fill(masked, MASK), masked=masked)
    seen: list[Tensor] = []
    keys: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple, output: Tensor) -> None:
        if inputs[0].shape == tokens.shape and not bool((inputs[0] == MASK).all()):
            seen.append(output)

    from kernels.attention import api

    def attend(backend, qs, kv, *rest):
        if len(kv[::2]) >= len(keys):  # the last layer's, or of the last layer that has two sets
            keys[:] = kv[::2]
        return original(backend, qs, kv, *rest)

    def attend_masked(q, k, v, *rest):
        keys[:] = [k]
        return by_mask(q, k, v, *rest)

    original, by_mask = api.attend, api._masked
    handle = architecture.embedding.register_forward_hook(keep)
    with patch.object(api, "attend", attend), patch.object(api, "_masked", attend_masked), use_backend("reference"):
        states = architecture.predict(batch)
    handle.remove()
    panels = {}
    for key, label in zip(
        keys, ("keys, for readers after", "keys, for readers before") if len(keys) == 2 else ("keys",)
    ):
        panels[label] = dependence(key[0].transpose(0, 1), seen[0])
    panels["prediction"] = dependence(states[0], seen[0])
    if (
        architecture.masking is not None
    ):  # a masked token's own embedding is [MASK]'s, and the other positions are not predicted
        for panel in panels.values():
            panel[:, masked[0]] = False
        panels["prediction"][~masked[0]] = False
    return panels


def draw(path: str) -> None:
    found = {name: measure(name) for name in REGISTRY}
    lines = ("keys, for readers after", "keys, for readers before", "prediction")
    figure, axes = plt.subplots(3, len(found), figsize=(1.7 * len(found), 5.6))
    for column, (name, panels) in zip(axes.T, found.items()):
        for axis, line in zip(column, lines):
            if line == lines[1] and "keys" in panels:
                axis.axis("off")
                continue
            axis.imshow(panels.get(line, panels.get("keys")), cmap="Greys", vmin=0, vmax=1.4, aspect="equal")
            axis.set_xticks([]), axis.set_yticks([])
            told = line if line in panels else "keys, for all readers"
            axis.set_title(f"{name}\n{told}" if line == lines[0] else told, fontsize=8)
    axes[2, 0].set_ylabel("of position", fontsize=8)
    axes[2, 0].set_xlabel("depends on the token at", fontsize=8)
    axes[0, 0].set_ylabel("of position", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else "docs/architectures.png")
