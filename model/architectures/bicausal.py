"""Content as deep as it may be: `local` with `sides=one`, plus a tower for each direction.

    forward   f_j from e_i for i <= j      backward  b_j from e_i for i >= j        `depth` causal layers of `width`
    layer l   g_i <- Block_l(g_i, one softmax over  K_l e_j + K'_l f_j for j < i,  K_l e_j + K'_l b_j for j > i; values alike)

What a query reads before it knows nothing of what stands later, and the other way round, so nothing leaks however deep the
towers are. Attention costs no more than T-TA's. Both directions are one batch of 2B rows through the same weights (`tied`), a
learned vector telling them apart, half of them read backwards.

    start     queries start from f_(i-1) and b_(i+1) too
    level     layer l reads the towers' layer l instead of their last
    causal    weight, at the beginning, of the towers' own losses (f_j predicts the next token, b_j the one before), which falls
              to zero at half of the budget, after free language modelling (Wang et al. 2023, arXiv 2303.14342)
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.batch import Batch
from kernels.attention.layout import Layout
from kernels.one_sided import one_sided
from model.architectures.local import Local
from model.config import ModelConfig
from model.head import Head
from model.layers import Block, by_layer, make_norm


class Bicausal(Local):
    @dataclass(frozen=True)
    class Options(Local.Options):
        near: int = 3
        taps: int = 3
        sides: Literal["both", "one"] = "one"
        width: int = 32
        depth: int = 3
        heads: int = 1
        tied: bool = True
        start: bool = True
        level: bool = False
        causal: float = 0.0

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.sides != "one":
                raise ValueError(f"sides is {self.sides!r}; towers are read from one side, so it must be 'one'.")
            if self.width < 2 or self.depth < 1 or self.heads < 1 or self.width % (2 * self.heads) or self.causal < 0:
                raise ValueError(
                    f"width {self.width} must divide into {self.heads} heads of even width, depth {self.depth} be at least 1 "
                    f"and causal {self.causal} not be negative."
                )

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        o, d = self.options, config.d_model
        shape = dataclasses.replace(
            config,
            architecture="tower",
            options=(),
            d_model=o.width,
            n_heads=o.heads,
            d_ff=0,
            d_embed=0,
            n_layers=o.depth,
            dropout=0.0,
        )
        self.narrow = nn.Linear(d, o.width, bias=False)
        self.direction = nn.Parameter(torch.randn(2, o.width) * config.initializer_std)
        self.towers = nn.ModuleList(
            nn.ModuleList(Block(shape) for _ in range(o.depth)) for _ in range(1 if o.tied else 2)
        )
        self.norm = make_norm(config, o.width)
        layers = config.n_layers
        self.widen = nn.Linear(o.width, 2 * layers * d, bias=False)  # keys of all layers, then their values
        self.begin = nn.Linear(2 * o.width, d, bias=False) if o.start else None
        self.guess = nn.Linear(o.width, d, bias=config.bias) if o.causal else None
        self.fraction = 0.0  # of the budget, as the last masking was asked for

    def masking_at(self, fraction: float) -> None:
        self.fraction = fraction

    def directions(self, content: Tensor, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """After each layer, (B, N, W) forward states and backward states, normalised."""
        x, layout = self.narrow(content), batch.layout
        ahead, back = x + self.direction[0], (x + self.direction[1]).flip(1)
        mirrored = None if layout is None else mirror(layout)
        if self.options.tied:
            both = None if layout is None else Layout(*(torch.cat(p) for p in zip(_ends(layout), _ends(mirrored))))
            states = [s.chunk(2) for s in self._climb(self.towers[0], torch.cat([ahead, back]), both)]
            ahead_states, back_states = [a for a, _ in states], [b for _, b in states]
        else:
            ahead_states = self._climb(self.towers[0], ahead, layout)
            back_states = self._climb(self.towers[1], back, mirrored)
        return [self.norm(s) for s in ahead_states], [self.norm(s).flip(1) for s in back_states]

    @staticmethod
    def _climb(tower: nn.ModuleList, x: Tensor, layout: Layout | None) -> list[Tensor]:
        states = []
        for block in tower:
            x = block.self_attention(x, "before", layout)
            states.append(x)
        return states

    def starts(self, towers: tuple[list[Tensor], list[Tensor]], layout: Layout | None, hidden: Tensor | None) -> Tensor:
        """W [f of the nearest place before i, b of the nearest after i], of those that i may see; 0 where there is none."""
        ahead, back = towers[0][-1], towers[1][-1]
        if hidden is None:
            before, after = F.pad(ahead, (0, 0, 1, 0))[:, :-1], F.pad(back, (0, 0, 0, 1))[:, 1:]
            if layout is not None:
                place = torch.arange(ahead.shape[1], device=ahead.device)
                before = before.masked_fill((layout.start >= place)[..., None], 0.0)
                after = after.masked_fill((layout.end <= place + 1)[..., None], 0.0)
            return self.begin(torch.cat([before, after], -1))
        place = torch.arange(ahead.shape[1], device=ahead.device)
        seen = ~hidden
        if layout is not None:
            seen = seen & (place >= layout.start[..., None]) & (place < layout.end[..., None])
        earlier, later = seen & (place < place[:, None]), seen & (place > place[:, None])
        last = torch.where(earlier, place, -1).amax(-1)  # (B, N)
        first = torch.where(later, place, len(place)).amin(-1)
        parts = []
        for states, at, none in ((ahead, last, last < 0), (back, first, first == len(place))):
            index = at.clamp(0, len(place) - 1)[..., None].expand(-1, -1, states.shape[-1])
            parts.append(states.gather(1, index).masked_fill(none[..., None], 0.0))
        return self.begin(torch.cat(parts, -1))

    def query_start(self, content: Tensor, batch: Batch, towers, hidden: Tensor | None) -> Tensor:
        query = super().query_start(content, batch, towers, hidden)
        return query if self.begin is None else query + self.starts(towers, batch.layout, hidden)

    def key_value_sets(self, content: Tensor, batch: Batch, towers, hidden) -> list[list[tuple[Tensor, Tensor]]]:
        raw = self.raw(content, batch, range(len(self.blocks)))
        sides = [
            by_layer(self.blocks, self._convolved(raw, n, side, batch.layout) + self._wide(towers[n]))
            for n, side in enumerate(("past", "future"))
        ]
        return [list(pairs) for pairs in zip(*sides)]

    def _convolved(self, raw: Tensor, n: int, side: str, layout: Layout | None) -> Tensor:
        """raw (B, N, 2 L D) with the channels of the layers that are convolved convolved."""
        if not self.convolved:
            return raw
        width = len(self.convolved) * self.config.d_model
        (k, k_rest), (v, v_rest) = (x.tensor_split([width], -1) for x in raw.chunk(2, -1))
        k, v = one_sided(torch.cat([k, v], -1), self.taps[n], side, layout).chunk(2, -1)
        return torch.cat([k, k_rest, v, v_rest], -1)

    def _wide(self, states: list[Tensor]) -> Tensor:
        """(B, N, 2 L D) as `projected` lays it out: of the last states, or of each layer's own."""
        if not self.options.level:
            return self.widen(states[-1])
        layers = len(self.blocks)
        weights = self.widen.weight.view(2, layers, -1, self.options.width)
        found = [F.linear(states[min(n, len(states) - 1)], weights[:, n].flatten(0, 1)) for n in range(layers)]
        return torch.stack([x.unflatten(-1, (2, -1)) for x in found], 3).flatten(2)  # (B, N, 2, L, D)

    def loss(self, batch: Batch, head: Head) -> Tensor:
        """FLOPs are counted as at the beginning, with the towers' own losses."""
        weight = self.options.causal * max(0.0, 1.0 - 2.0 * self.fraction)
        if not weight:
            return super().loss(batch, head)
        content = self.embedding(batch.tokens, batch.documents)
        towers = self.directions(content, batch)
        states, targets = self.queries_over(content, towers, batch, batch.places, False, None), batch.tokens.flatten()
        if batch.places is not None:
            targets = targets.index_select(0, batch.places)
        own = head.loss(states.reshape(-1, states.shape[-1]), targets)
        ahead, back = (direction[-1] for direction in towers)
        losses = []
        for states, step in ((ahead, 1), (back, -1)):
            here = states[:, :-1] if step == 1 else states[:, 1:]
            wanted = batch.tokens[:, 1:] if step == 1 else batch.tokens[:, :-1]
            if batch.documents is not None:
                same = (batch.documents[:, 1:] == batch.documents[:, :-1]) & (batch.documents[:, 1:] >= 0)
                at = same.flatten().nonzero()[:, 0]
                here, wanted = here.flatten(0, 1)[at], wanted.flatten()[at]
            losses.append(head.loss(self.guess(here.reshape(-1, here.shape[-1])), wanted.reshape(-1)))
        return own + weight * 0.5 * (losses[0] + losses[1])


def _ends(layout: Layout) -> tuple[Tensor, Tensor]:
    return layout.start, layout.end


def mirror(layout: Layout) -> Layout:
    """The layout of the same rows read backwards."""
    length = layout.shape[1]
    start, end = length - layout.end.flip(1), length - layout.start.flip(1)
    none = (start == end).int()  # padding: the empty range at its own place
    return Layout(start - none, end - none)
