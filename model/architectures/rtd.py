"""Replaced token detection (ELECTRA: Clark et al. 2020, arXiv 2003.10555) with a generator that predicts every position.

    generator       any registered architecture of fewer layers, on the same table; with its own loss
    replacements    at a share of the positions the token is drawn from what the generator predicts there, all in one pass
    discriminator   an encoder that sees everything, and says at each position whether its token is the true one

    loss = generator's + weight * binary cross-entropy over all positions      (a token drawn right counts as true)

ELECTRA's generator sees [MASK]s where it must guess; an all-position one guesses anywhere from the true text, so which positions
are replaced need not be known beforehand. Predictions and leave-one-out are the generator's: a discriminator predicts no
tokens, and what it has learned is measured by fine-tuning. `encode` is the discriminator.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.words import Hiding
from model.architectures.base import Architecture
from model.batch import Batch
from model.chance import uniform
from model.config import ModelConfig
from model.head import Head
from model.layers import Blocks, make_norm


class RTD(Architecture):
    without_self = False

    @dataclass(frozen=True)
    class Options:
        generator: str = "tta"
        generator_layers: int = 0
        replaced: float = 0.25
        weight: float = 50.0
        words: float = 0.0
        rest: float = 0.0

        def __post_init__(self) -> None:
            Hiding(self.words, self.rest)
            if not 0 < self.replaced < 1 or self.weight < 0 or self.generator_layers < 0:
                raise ValueError(
                    f"replaced {self.replaced} must lie between 0 and 1, weight {self.weight} and generator_layers "
                    f"{self.generator_layers} not be negative."
                )

    added_options: tuple[tuple[str, Any], ...] = (("words", 0.0), ("rest", 0.0))

    def __init__(self, config: ModelConfig) -> None:
        from model.architectures import architecture_class

        super().__init__(config)
        o = self.options
        kind = architecture_class(o.generator)
        if kind.masking is not None or kind is RTD or kind.passes_each:
            raise ValueError(
                f"generator is {o.generator!r}; it must predict every position in one pass, as tta and local do."
            )
        layers = o.generator_layers or max(1, config.n_layers // 2)
        options = (("words", o.words), ("rest", o.rest))
        self.generator = kind(dataclasses.replace(config, architecture=o.generator, n_layers=layers, options=options))
        self.hiding = Hiding(o.words, o.rest)
        self.generator.embedding = self.embedding  # one table, and one norm of it
        self._build_discriminator(config)

    def _build_discriminator(self, config: ModelConfig) -> None:
        self.blocks = Blocks.of(config, config.n_layers)
        self.judge = nn.Sequential(make_norm(config, config.d_model), nn.Linear(config.d_model, 1))

    def matrices(self) -> Iterator[nn.Parameter]:
        """All but the discriminator's output row, which is a vector and cannot be orthogonalised."""
        judge = self.judge[1].weight
        return (p for p in super().matrices() if p is not judge)

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        return self.generator.predict(batch, positions)

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        return self.generator.leave_one_out(batch, positions)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        if not with_self:
            raise ValueError("rtd's discriminator sees every token, its own too; use with_self=True.")
        return self.discriminate(batch.tokens, batch)

    def discriminate(self, tokens: Tensor, batch: Batch) -> Tensor:
        x = self.embedding(tokens, batch.documents)
        for block in self.blocks:
            x = block.self_attention(x, "full", batch.layout)
        return x

    def loss(self, batch: Batch, head: Head) -> Tensor:
        states = self.predict(batch)  # (B, N, D)
        flat, targets = states.flatten(0, 1), batch.tokens.flatten()
        if batch.positions is not None:
            flat, targets = flat.index_select(0, batch.positions), targets.index_select(0, batch.positions)
        own = head.loss(flat, targets)
        with torch.no_grad():
            tokens = self.replacements(states, batch, head)
        return own + self.options.weight * self.doubt(tokens, batch)

    def doubt(self, tokens: Tensor, batch: Batch) -> Tensor:
        """The discriminator's mean cross-entropy over all positions but padding, of whether each token is the true one."""
        judged = self.judge(self.discriminate(tokens, batch)).float()[..., 0]
        each = F.binary_cross_entropy_with_logits(judged, (tokens != batch.tokens).float(), reduction="none")
        if batch.documents is None:
            return each.mean()
        real = batch.documents >= 0  # as weights: choosing would wait for the device
        return (each * real).sum() / real.sum()

    def replacements(self, states: Tensor, batch: Batch, head: Head) -> Tensor:
        """(B, N) tokens, of which a share of each row's real ones is drawn from the generator, never a special. What is drawn
        for a row depends on its sample and the seed alone."""
        length = batch.tokens.shape[1]
        count = max(1, round(self.options.replaced * length))
        order, chance = uniform(batch, 1).float(), uniform(batch, 2).float()
        ordinary = (
            batch.tokens > self.config.mask_id + 1
        )  # specials have the first ids, [UNK] behind [MASK] the last of them
        real = torch.full((len(order), 1), float(length), device=order.device)
        if batch.documents is not None:
            ordinary &= batch.documents >= 0
            real = (batch.documents >= 0).sum(1, keepdim=True).float()
        order = order.masked_fill(~ordinary, -1.0)  # these last
        at = order.topk(count, 1).indices  # (B, M)
        wanted = (self.options.replaced * real).round().clamp_min(1.0)
        chosen_at = ordinary.gather(1, at) & (torch.arange(count, device=at.device) < wanted)
        chosen = states.gather(1, at[..., None].expand(-1, -1, states.shape[-1]))
        summed = head.logits(chosen).float().softmax(-1).cumsum(-1)  # (B, M, V)
        drawn = torch.searchsorted(summed, chance.gather(1, at)[..., None] * summed[..., -1:])[..., 0].clamp_max(
            summed.shape[-1] - 1
        )
        drawn = torch.where(chosen_at, drawn, batch.tokens.gather(1, at))
        return batch.tokens.scatter(1, at, drawn)
