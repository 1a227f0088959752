"""ELECTRA as it was made (Clark et al. 2020, arXiv 2003.10555): a narrow masked generator, and a discriminator of all positions.

    generator       a vanilla masked model of `generator_width` of the width, which reads the shared table through a product down
                    to its width, and is read through one up to the table's; with its own loss at the masked positions
    replacements    there a token is drawn from what it predicts
    discriminator   an encoder that sees everything, and says at each position whether its token is the true one

    loss = generator's + weight * binary cross-entropy over all positions      (a token drawn right counts as true)

`rtd` has a generator that predicts every position instead. Predictions and leave-one-out are the generator's, as narrow as it is;
what the discriminator learns is measured by fine-tuning. `encode` is the discriminator.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from data.masking import Masking
from model.architectures.base import Architecture
from model.architectures.rtd import RTD
from model.architectures.vanilla import Vanilla
from model.batch import Batch
from model.chance import uniform
from model.config import ModelConfig
from model.head import Head


class Narrowed(nn.Module):
    """The shared embedding, brought down to the generator's width."""

    def __init__(self, embedding: nn.Module, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.shared, self.config = [embedding], config  # in a list: registered in the discriminator, and not here too
        self.down = nn.Linear(config.d_model, width, bias=False)

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        return self.down(self.shared[0](tokens, documents))


class Electra(RTD):
    passes_each = True

    @dataclass(frozen=True)
    class Options:
        generator_width: float = 0.5
        generator_layers: int = 0
        masking_rate: float = 0.3
        weight: float = 50.0

        def __post_init__(self) -> None:
            if not 0 < self.generator_width <= 1 or self.weight < 0 or self.generator_layers < 0:
                raise ValueError(
                    f"generator_width {self.generator_width} must lie in (0, 1], and weight {self.weight} and generator_layers "
                    f"{self.generator_layers} not be negative."
                )

    added_options = ()

    def __init__(self, config: ModelConfig) -> None:
        Architecture.__init__(self, config)
        o, heads = self.options, max(1, round(config.n_heads * self.options.generator_width))
        width = max(2, round(config.d_model * o.generator_width / (2 * heads))) * 2 * heads
        layers = o.generator_layers or max(2, config.n_layers)
        small = {"d_model": width, "n_heads": heads, "n_layers": layers, "d_ff": 0, "d_embed": 0}
        options = (("masking_rate", o.masking_rate),)
        self.generator = Vanilla(dataclasses.replace(config, architecture="vanilla", options=options, **small))
        self.generator.embedding = cast(Any, Narrowed(self.embedding, config, width))
        self.masking: Masking | None = self.generator.masking
        self.up = nn.Linear(width, config.d_model, bias=False)
        self._build_discriminator(config)

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        return self.up(self.generator.predict(batch, positions))

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        states, passes = self.generator.leave_one_out(batch, positions)
        return self.up(states), passes

    def loss(self, batch: Batch, head: Head) -> Tensor:
        positions = batch.positions
        assert positions is not None  # it is a masked batch
        states = self.predict(batch, positions)  # (M, D)
        own = head.loss(states, batch.tokens.flatten().index_select(0, positions))
        with torch.no_grad():
            tokens = self.replaced_tokens(states, batch, head)
        return own + self.options.weight * self.doubt(tokens, batch)

    def replaced_tokens(self, states: Tensor, batch: Batch, head: Head) -> Tensor:
        """(B, N) tokens, those at the masked positions drawn from the generator; what is drawn for a row depends on its sample
        and the seed alone."""
        positions = batch.positions
        assert positions is not None
        summed = head.logits(states).float().softmax(-1).cumsum(-1)  # (M, V)
        chance = uniform(batch, 2).float().flatten().index_select(0, positions)[:, None]
        drawn = torch.searchsorted(summed, chance * summed[:, -1:])[:, 0].clamp_max(summed.shape[-1] - 1)
        return batch.tokens.flatten().index_copy(0, positions, drawn).view(batch.tokens.shape)
