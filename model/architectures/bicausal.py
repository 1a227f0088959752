"""Content as deep as it may be: a tower for each direction, and keys that hold their neighbours on the far side.

    forward   f_j from e_i for i <= j      backward  b_j from e_i for i >= j        `depth` causal layers of `width`
    layer l   g_i <- Block_l(g_i, one softmax over  K_l p_j + K'_l f_j for j < i,  K_l q_j + K'_l b_j for j > i; values alike)
              p_j = e_j + sum_t c_t e_(j-t),  q_j = e_j + sum_t c'_t e_(j+t)        t = 1 .. taps, in `convolved` layers

What a query reads before it knows nothing of what stands later, and the other way round, so nothing leaks however deep the
towers are. Attention costs no more than T-TA's. Both directions are one batch of 2B rows through the same weights (`tied`), a
learned vector telling them apart, half of them read backwards. `width=0` has no towers: one-sided convolutions alone.

    near      queries start from their neighbours, as in `local`
    start     queries start from f_(i-1) and b_(i+1) too
    level     layer l reads the towers' layer l instead of their last
    causal    weight, at the beginning, of the towers' own losses (f_j predicts the next token, b_j the one before), which falls
              to zero at half of the budget, after free language modelling (Wang et al. 2023, arXiv 2303.14342)
    words     the share of the words that are hidden whole, as in `local`: a query then reads before and after its word, and in a
              share `rest` of these words the tokens of its word before it
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.words import Hiding
from kernels.attention import union_attention
from kernels.attention.layout import Layout
from kernels.one_sided import one_sided
from model.architectures.base import Architecture, flat_positions
from model.batch import Batch
from model.config import ModelConfig
from model.head import Head
from model.layers import Blocks, by_layer, make_norm, projected
from model.neighbours import Near, SpanEnds, query_start

Towers = tuple[list[Tensor], list[Tensor]]
"""After each layer, (B, N, W) forward states and backward states, normalised."""


class Bicausal(Architecture):
    @dataclass(frozen=True)
    class Options:
        near: int = 3
        taps: int = 3
        convolved: int | None = None
        width: int = 32
        depth: int = 3
        heads: int = 1
        tied: bool = True
        start: bool = True
        level: bool = False
        causal: float = 0.0
        words: float = 0.0
        rest: float = 0.0

        def __post_init__(self) -> None:
            Hiding(self.words, self.rest)
            if min(self.near, self.taps) < 0:
                raise ValueError(f"near is {self.near} and taps is {self.taps}; they must be 0 (off) or more.")
            if self.width and (self.width < 2 or self.heads < 1 or self.width % (2 * self.heads)):
                raise ValueError(
                    f"width is {self.width}; it must divide into {self.heads} heads of even width, or be 0 for no towers."
                )
            if self.depth < 1 or self.causal < 0 or (self.causal and not self.width):
                raise ValueError(
                    f"depth {self.depth} must be at least 1, and causal {self.causal} not negative, and 0 without towers."
                )

    learning_rate = 4.5e-3
    added_options = (("words", 0.0), ("rest", 0.0))
    removed_options = (("sides", "one"), ("values", 0), ("grams", 0))

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        o, d, layers = self.options, config.d_model, config.n_layers
        n = min(2, layers) if o.convolved is None else o.convolved
        if not 1 <= n <= layers:
            raise ValueError(f"convolved is {n}; it must be from 1 to the {layers} layers (taps=0 convolves none).")
        self.hiding = Hiding(o.words, o.rest)
        self.blocks = Blocks.of(config, layers)
        self.neighbours = Near(config, o.near) if o.near else None
        self.ends = SpanEnds(config) if o.words else None
        self.convolved = n if o.taps else 0  # the first layers
        self.tap_weights = nn.Parameter(torch.zeros(2, o.taps, 2 * n * d)) if o.taps else None
        self.begin: nn.Linear | None = None
        self.guess: nn.Linear | None = None
        self.keys_have_two_sources = bool(o.width)
        if o.width:
            self._build_towers(config)

    def _build_towers(self, config: ModelConfig) -> None:
        o, d, layers = self.options, config.d_model, config.n_layers
        narrow = dict[str, Any](d_model=o.width, n_heads=o.heads, n_layers=o.depth, d_ff=0, d_embed=0, dropout=0.0)
        shape = dataclasses.replace(config, architecture="tower", options=(), **narrow)
        self.narrow = nn.Linear(d, o.width, bias=False)
        self.direction = nn.Parameter(torch.randn(2, o.width) * config.initializer_std)
        self.towers = nn.ModuleList(Blocks.of(shape, o.depth) for _ in range(1 if o.tied else 2))
        self.norm = make_norm(config, o.width)
        self.widen = nn.Linear(o.width, 2 * layers * d, bias=False)  # keys of all layers, then their values
        self.begin = nn.Linear(2 * o.width, d, bias=False) if o.start else None
        self.guess = nn.Linear(o.width, d, bias=config.bias) if o.causal else None

    def phase(self, fraction: float) -> float:
        """The towers' own losses are charged while they act."""
        return 0.0 if self.options.causal and fraction < 0.5 else 1.0

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        return self.query_stream(content, self.directions(content, batch), batch, positions)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        return self.query_stream(content, self.directions(content, batch), batch, with_self=with_self)

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        return self.predict(batch, flat_positions(batch, positions)).view(*positions.shape, -1), 1

    def query_stream(
        self,
        content: Tensor,
        towers: Towers | None,
        batch: Batch,
        positions: Tensor | None = None,
        with_self: bool = False,
    ) -> Tensor:
        """The query stream over content (B, N, D) and the towers. with_self: the position's own embedding joins its start."""
        query = query_start(self, content, batch)
        if self.begin is not None and towers is not None:
            query = query + self.begin(self.starts(towers, batch))
        if with_self:
            query = query + content
        raw = projected(self.blocks, content)
        sides = [
            by_layer(self.blocks, self._of_side(raw, n, side, towers, batch.layout))
            for n, side in enumerate(("past", "future"))
        ]
        last = len(self.blocks) - 1
        for i, (block, past, future) in enumerate(zip(self.blocks, *sides)):
            q = block.queries(query, content.shape[:2])
            read = union_attention(q, *past, *future, documents=batch.layout, spans=batch.spans)
            query = block.update(query, read, positions if i == last else None)
        return query

    def directions(self, content: Tensor, batch: Batch) -> Towers | None:
        if not self.options.width:
            return None
        x, layout = self.narrow(content), batch.layout
        ahead, back = x + self.direction[0], (x + self.direction[1]).flip(1)
        mirrored = None if layout is None else mirror(layout)
        if self.options.tied:
            both = None
            if layout is not None and mirrored is not None:
                both = Layout(torch.cat([layout.start, mirrored.start]), torch.cat([layout.end, mirrored.end]))
            states = [s.chunk(2) for s in self._climb(self.towers[0], torch.cat([ahead, back]), both)]
            ahead_states, back_states = [a for a, _ in states], [b for _, b in states]
        else:
            ahead_states = self._climb(self.towers[0], ahead, layout)
            back_states = self._climb(self.towers[1], back, mirrored)
        return [self.norm(s) for s in ahead_states], [self.norm(s).flip(1) for s in back_states]

    @staticmethod
    def _climb(tower: nn.Module, x: Tensor, layout: Layout | None) -> list[Tensor]:
        states = []
        for block in cast(Blocks, tower):
            x = block.self_attention(x, "before", layout)
            states.append(x)
        return states

    def starts(self, towers: Towers, batch: Batch) -> Tensor:
        """[f of the nearest position before i, or before its span, b of the nearest after]; 0 where there is none."""
        length, layout = batch.tokens.shape[1], batch.layout
        position = torch.arange(length, device=batch.tokens.device).expand_as(batch.tokens)
        first, last = (
            (position, position) if batch.spans is None else (batch.spans.first.long(), batch.spans.last.long())
        )
        start, end = (0, length) if layout is None else (layout.start, layout.end)
        parts = []
        for states, at, none in (
            (towers[0][-1], first - 1, first <= start),
            (towers[1][-1], last + 1, last + 1 >= end),
        ):
            index = at.clamp(0, length - 1)[..., None].expand(-1, -1, states.shape[-1])
            parts.append(states.gather(1, index).masked_fill(none[..., None], 0.0))
        return torch.cat(parts, -1)

    def _of_side(self, raw: Tensor, n: int, side: str, towers: Towers | None, layout: Layout | None) -> Tensor:
        """raw (B, N, 2 L D), the channels of the layers that are convolved convolved, plus what the tower of this side says."""
        if self.tap_weights is not None:
            width = self.convolved * self.config.d_model
            (k, k_rest), (v, v_rest) = (x.tensor_split([width], -1) for x in raw.chunk(2, -1))
            k, v = one_sided(torch.cat([k, v], -1), self.tap_weights[n], side, layout).chunk(2, -1)
            raw = torch.cat([k, k_rest, v, v_rest], -1)
        return raw if towers is None else raw + self._wide(towers[n])

    def _wide(self, states: list[Tensor]) -> Tensor:
        """(B, N, 2 L D) as `projected` lays it out: of the last states, or of each layer's own."""
        if not self.options.level:
            return self.widen(states[-1])
        layers = len(self.blocks)
        weights = self.widen.weight.view(2, layers, -1, self.options.width)
        found = [F.linear(states[min(n, len(states) - 1)], weights[:, n].flatten(0, 1)) for n in range(layers)]
        return torch.stack([x.unflatten(-1, (2, -1)) for x in found], 3).flatten(2)  # (B, N, 2, L, D)

    def loss(self, batch: Batch, head: Head) -> Tensor:
        # Compiled code is made anew for each fraction that it reads; without these losses it reads none.
        weight = self.options.causal and self.options.causal * max(0.0, 1.0 - 2.0 * self.fraction)
        if not weight or self.guess is None:
            return super().loss(batch, head)
        content = self.embedding(batch.tokens, batch.documents)
        towers = self.directions(content, batch)
        assert towers is not None  # these losses are theirs
        states, targets = self.query_stream(content, towers, batch, batch.positions), batch.tokens.flatten()
        if batch.positions is not None:
            targets = targets.index_select(0, batch.positions)
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


def mirror(layout: Layout) -> Layout:
    """The layout of the same rows read backwards."""
    length = layout.shape[1]
    start, end = length - layout.end.flip(1), length - layout.start.flip(1)
    none = (start == end).int()  # padding: the empty range at its own position
    return Layout(start - none, end - none)
