"""AdamW, or Muon on the matrices that the architecture names with AdamW on the rest."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from data.options import check_types
from model import MaskedLM
from model.neighbours import SpanEnds
from training.muon import Muon
from training.ranks import ALONE, Ranks
from training.sharding import gathered_state, is_sharded, scattered_state, whole
from training.weissi import Weissi


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon with AdamW."""

    name: Literal["muon", "adamw"] = "muon"
    """muon (Jordan et al. 2024) serves the architecture's matrices and AdamW the rest; adamw serves all."""
    learning_rate: float | None = None
    """The peak learning rate; by default the one that each architecture was tuned to (docs/tuning.md). Both optimisers use it,
    since Muon's steps are scaled to the length of AdamW's."""
    weight_decay: float = 0.05
    """Weight decay of the matrices; norms, biases and tables are not decayed."""
    regulariser: Literal["weight_decay", "weissi"] = "weight_decay"
    """What `weight_decay` shrinks: each matrix, or the product of two that are used as a product alone (weissi.py)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of AdamW's two running averages."""
    momentum: float = 0.95
    """Momentum of Muon."""
    warmup: float = 0.02
    """Share of the budget in which the learning rate rises."""
    decay: float = 0.5
    """Share of the budget, at its end, in which the learning rate falls to zero."""
    clip: float = 1.0
    """Gradients with a larger norm are scaled down to this one; 0 turns this off."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise ValueError(f"The learning rate is {self.learning_rate}; it must be more than 0.")
        if not (0 <= self.warmup <= 1 and 0 <= self.decay <= 1 and self.warmup + self.decay <= 1):
            raise ValueError(
                f"warmup {self.warmup} and decay {self.decay} are shares of the budget; "
                "each must lie in [0, 1] and their sum too."
            )
        if self.clip < 0 or self.weight_decay < 0:
            raise ValueError(f"clip {self.clip} and weight_decay {self.weight_decay} must not be negative.")
        if not all(0 <= x < 1 for x in (*self.betas, self.momentum)):
            raise ValueError(f"betas {self.betas} and momentum {self.momentum} must lie in [0, 1).")


class Optimizers:
    """The optimisers of one model, stepped and saved together."""

    def __init__(self, model: MaskedLM, config: OptimizerConfig, ranks: Ranks = ALONE) -> None:
        self.config = config
        self.parameters = list(model.parameters())
        matrices = list(model.architecture.matrices()) if config.name == "muon" else []
        muon = {id(p) for p in matrices}
        rest = [p for p in self.parameters if id(p) not in muon]
        # Norms, biases and embedding rows are not decayed: decay is for weights that multiply activations.
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        tables |= {id(m.table) for m in model.modules() if isinstance(m, SpanEnds)}
        decayed = [p for p in rest if p.ndim >= 2 and id(p) not in tables]
        plain = [p for p in rest if p.ndim < 2 or id(p) in tables]
        self.weissi = None
        if config.regulariser == "weissi":
            if is_sharded(model):
                raise ValueError(
                    "regulariser=weissi needs whole matrices and --shard keeps them in shards; take one of the two."
                )
            self.weissi = Weissi(model, [*matrices, *decayed], config.weight_decay)
        decay = config.weight_decay if self.weissi is None else 0.0
        groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
        how = {"foreach": True} if is_sharded(model) else {"fused": True}
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=config.betas, eps=1e-8, **how)
        ]
        if matrices:
            self.optimizers.append(
                Muon(
                    matrices,
                    lr=0.0,
                    weight_decay=decay,
                    momentum=config.momentum,
                    adjust_lr_fn="match_rms_adamw",
                    ranks=ranks,
                )
            )

    def step(self, learning_rate: float) -> torch.Tensor:
        """Clip, step, clear. Returns the gradient norm before clipping, not read from the device."""
        clip = self.config.clip or float("inf")
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, clip, foreach=True))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        if self.weissi is not None:
            self.weissi.step(learning_rate)
        for p in self.parameters:
            p.grad = None
        return norm

    def state_dict(self) -> list[dict]:
        """Whole, also of a sharded model; then every rank calls it."""
        return [gathered_state(optimizer.state_dict()) for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            optimizer.load_state_dict(scattered_state(state, parameters))

    def state_bytes(self) -> int:
        """What the optimiser states will hold: two fp32 moments under AdamW, one under Muon."""
        muon = {id(p) for o in self.optimizers[1:] for group in o.param_groups for p in group["params"]}
        return sum(p.numel() * (4 if id(p) in muon else 8) for p in self.parameters)
