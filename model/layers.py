"""Embedding, feed-forward and the one Block that every stream of every architecture is made of.

Shapes: B batch, N sequence, H heads, D model width, K head width, E embedding width, F feed-forward width.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from data.permutation import hash64
from kernels.attention import Spans, attention
from kernels.attention.layout import Layout
from model.config import ModelConfig
from model.rotary import document_positions, rotate, rotate_at

_row_generators: ContextVar[Sequence[torch.Generator] | None] = ContextVar("row_generators", default=None)


@contextmanager
def dropout_by_sample(seed: int, samples: Sequence[int] | None, device: torch.device) -> Iterator[None]:
    """Inside, what Dropout drops in a row depends on the row's number in the data, not on the batch it stands in."""
    draws = [torch.Generator(device).manual_seed(hash64(seed, sample) >> 1) for sample in samples or ()]
    token = _row_generators.set(draws or None)
    try:
        yield
    finally:
        _row_generators.reset(token)


class Dropout(nn.Dropout):
    """Of (B, N, D), or of the states (M, D) at some `positions` of a (B, N) batch.

    Inside `dropout_by_sample` each row draws from a generator of its own, for all its positions, read or not.
    """

    def forward(self, x: Tensor, positions: Tensor | None = None, length: int = 0) -> Tensor:
        rows = None if torch.compiler.is_compiling() else _row_generators.get()
        if not self.training or self.p == 0.0 or rows is None:
            return super().forward(x)
        shape = x.shape if positions is None else (len(rows), length, x.shape[-1])
        keep = x.new_empty(shape)
        for row, generator in zip(keep, rows, strict=True):
            row.bernoulli_(1 - self.p, generator=generator)
        keep = keep if positions is None else keep.flatten(0, 1).index_select(0, positions)
        return x * keep.div_(1 - self.p)


def make_norm(config: ModelConfig, width: int) -> nn.LayerNorm:
    # LayerNorm rather than RMSNorm: PyTorch fuses its backward on every device, and quality is the same.
    return nn.LayerNorm(width, eps=config.norm_epsilon, bias=config.bias)


class Embedding(nn.Module):
    """Token table (V, E), widened to D if E < D, plus learned positions if the config says so, normalised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocab_size, config.table_width)
        self.widen = (
            nn.Linear(config.table_width, config.d_model, bias=False) if config.table_width < config.d_model else None
        )
        self.positions = nn.Embedding(config.max_length, config.d_model) if config.positions == "learned" else None
        self.norm = make_norm(config, config.d_model)
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Tensor, documents: Tensor | None = None, begin: int = 0) -> Tensor:
        """(B, N) -> (B, N, D). begin: the position of the first token, where what stands before it was read earlier."""
        length = tokens.shape[1]
        if begin + length > self.config.max_length:
            raise ValueError(
                f"A sequence has {length} tokens and the model reads at most {self.config.max_length}; "
                "cut or split the text, or train with a larger max_length."
            )
        x = self.table(tokens)
        if self.widen is not None:
            x = self.widen(x)
        if self.positions is not None:
            restart = torch.arange(length, device=tokens.device) if documents is None else document_positions(documents)
            x = x + self.positions(restart + begin)
        return self.dropout(self.norm(x))

    def queries(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """Where every query stream starts: [MASK] plus position, whatever the tokens are. (B, N) -> (B, N, D)

        With rotary positions and without dropout all positions start from one vector. Then it is returned once, (1, 1, D), and
        the first layer's norm and queries cost next to nothing.
        """
        if self.positions is None and not (self.training and self.config.dropout):
            tokens, documents = tokens[:1, :1], None
        return self(torch.full_like(tokens, self.config.mask_id), documents)


class FeedForward(nn.Module):
    """GEGLU (Shazeer 2020) or BERT's two-matrix erf-GELU."""

    def __init__(self, config: ModelConfig, width: int, d_ff: int) -> None:
        super().__init__()
        self.gated = config.feed_forward == "gated"
        self.enter = nn.Linear(width, 2 * d_ff if self.gated else d_ff, bias=config.bias)
        self.leave = nn.Linear(d_ff, width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            gate = F.gelu(gate)
            return self.leave(gate * x if torch.is_grad_enabled() else gate.mul_(x))
        return self.leave(F.gelu(x))


class Block(nn.Module):
    """One Transformer layer whose rows may read keys and values of another stream.

    A stream x (B, N, D) is updated by `block(x, k, v, ...)`; k and v come from `block.keys_values(content)`, where
    content is whatever the architecture lets the rows read: `block.read(x)` for self-attention, the raw embeddings for
    T-TA.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_model
        self.n_heads = config.n_heads
        self.rotary = config.positions == "rotary"
        self.pre_norm = config.norm == "pre"
        self.norm_attention, self.norm_feed_forward = make_norm(config, width), make_norm(config, width)
        self.query = nn.Linear(width, width, bias=config.bias)
        self.key = nn.Linear(width, width, bias=config.bias)
        self.value = nn.Linear(width, width, bias=config.bias)
        self.out = nn.Linear(width, width, bias=config.bias)
        self.feed_forward = FeedForward(config, width, config.d_ff)
        self.dropout = Dropout(config.dropout)

    def read(self, x: Tensor) -> Tensor:
        """What attention reads of a stream: normalised in pre-norm, unchanged in post-norm."""
        return self.norm_attention(x) if self.pre_norm else x

    def heads(self, x: Tensor, rotary: bool = False) -> Tensor:  # (B, N, D) -> (B, H, N, K), a view
        x = x.unflatten(-1, (self.n_heads, -1))
        return (rotate(x) if rotary else x).transpose(1, 2)

    def keys_values(self, content: Tensor, mix: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Keys (with their positions) and values of content (B, N, D'), each (B, H, N, K). mix: as in `self_attention`."""
        kv = projected([self], content)
        k, v = (kv if mix is None else mix(kv)).chunk(2, -1)
        return self.heads(k, self.rotary), self.heads(v)

    def queries(self, x: Tensor, shape: torch.Size) -> Tensor:
        """Queries of a stream (B, N, D), or of one vector (1, 1, D) that stands at all positions: (B, H, N, K)."""
        x = self.query(self.read(x))
        if x.shape[1] != shape[1]:
            x = x.expand(-1, shape[1], -1)
        return self.heads(x, self.rotary).expand(shape[0], -1, -1, -1)

    def forward(
        self,
        x: Tensor,
        k: Tensor,
        v: Tensor,
        visibility: str,
        documents: Tensor | Layout | None = None,
        positions: Tensor | None = None,
        spans: Spans | None = None,
    ) -> Tensor:
        """One layer of a stream over keys and values (B, H, N, K). See `update` for `positions`."""
        q = self.queries(x, torch.Size((k.shape[0], k.shape[2])))
        return self.update(x, attention(q, k, v, visibility, documents=documents, spans=spans), positions)

    def some_rows(
        self, x: Tensor, position: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, length: int = 0
    ) -> Tensor:
        """One layer of some rows of a stream, (B, M, D) at `position` (B, M), over keys and values of all, (B, H, N, K).

        seen: (B, 1, M, N) bool, what each row reads; None: everything. length: positions are below it; 0: below N.
        """
        q = self.query(self.read(x)).unflatten(-1, (self.n_heads, -1))
        q = (rotate_at(q, position, length or k.shape[2]) if self.rotary else q).transpose(1, 2)
        return self.update(x, F.scaled_dot_product_attention(q, k, v, seen))

    def self_attention(
        self,
        x: Tensor,
        visibility: str,
        documents: Tensor | Layout | None = None,
        positions: Tensor | None = None,
        mix: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The same where the stream reads itself: one norm, and queries, keys and values in one product.

        mix: what becomes of keys and values, together (B, N, 2 D), before positions turn the keys.
        """
        linears = (self.query, self.key, self.value)
        weight = torch.cat([linear.weight for linear in linears])
        bias = None if self.query.bias is None else torch.cat([linear.bias for linear in linears])
        qkv = F.linear(self.read(x), weight, bias)
        if mix is not None:
            width = x.shape[-1]
            qkv = torch.cat([qkv[..., :width], mix(qkv[..., width:])], -1)
        qkv = qkv.unflatten(-1, (3, self.n_heads, -1))  # (B, N, 3, H, K)
        qk, v = qkv[:, :, :2].flatten(2, 3), qkv[:, :, 2]  # positions turn queries and keys alike
        q, k = (rotate(qk) if self.rotary else qk).transpose(1, 2).chunk(2, 1)
        return self.update(x, attention(q, k, v.transpose(1, 2), visibility, documents=documents), positions)

    def update(self, x: Tensor, attended: Tensor, positions: Tensor | None = None) -> Tensor:
        """The rest of the layer, given what the rows' attention returned: (B, N, D), (B, H, N, K) -> (B, N, D).

        positions: (M,) int64, indices into the flattened batch: only these rows are computed, (M, D). For a last layer of which
        only some positions are read.
        """
        attended = rearrange(attended, "b h n k -> b n (h k)")
        some = (positions, attended.shape[1])
        if positions is not None:
            x = x.expand(attended.shape).flatten(0, 1).index_select(0, positions)
            attended = attended.flatten(0, 1).index_select(0, positions)
        attended = self.dropout(self.out(attended), *some)
        if self.pre_norm:
            x = x + attended
            return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)), *some)
        x = self.norm_attention(x + attended)
        return self.norm_feed_forward(x + self.dropout(self.feed_forward(x), *some))


class Blocks(nn.ModuleList):
    """Layers one above the other: a ModuleList of Blocks that says so."""

    @classmethod
    def of(cls, config: ModelConfig, count: int) -> "Blocks":
        return cls(Block(config) for _ in range(count))

    def __iter__(self) -> Iterator[Block]:
        return cast(Iterator[Block], super().__iter__())

    def __getitem__(self, index: int | slice) -> Any:
        return super().__getitem__(index)


@contextmanager
def recorded(architecture: nn.Module) -> Iterator[list[Tensor]]:
    """What each of `architecture.blocks` makes of its stream, in the order in which they run, while the context is open."""
    found: list[Tensor] = []

    def keep(update: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def kept(*args: Any, **options: Any) -> Tensor:
            found.append(update(*args, **options))
            return found[-1]

        return kept

    blocks: list[Any] = list(cast(Blocks, architecture.blocks))
    for block in blocks:
        block.update = keep(block.update)
    try:
        yield found
    finally:
        for block in blocks:
            del block.update


def hoisted_keys_values(blocks: Blocks, content: Tensor) -> list[tuple[Tensor, Tensor]]:
    """`block.keys_values(content)` of every block in one matrix multiplication.

    Content that no layer changes needs no layer's result, so all keys and values can be had before the first one.
    """
    return by_layer(blocks, projected(blocks, content))


def projected(blocks: Iterable["Block"], content: Tensor) -> Tensor:
    """Keys of all blocks, then their values, of content (B, N, D) side by side and without positions: (B, N, 2 L D)."""
    linears = [block.key for block in blocks] + [block.value for block in blocks]
    bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
    return F.linear(content, torch.cat([linear.weight for linear in linears]), bias)


def by_layer(blocks: Blocks, kv: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(B, N, 2 L D) as `projected` lays it out -> for each block its keys, turned by their positions, and its values."""
    k, v = rearrange(kv, "b n (two l h k) -> two l b n h k", two=2, l=len(blocks), h=blocks[0].n_heads)
    if blocks[0].rotary:
        k = rotate(k)
    return [(k[i].transpose(1, 2), v[i].transpose(1, 2)) for i in range(len(blocks))]


@torch.no_grad()
def initialise(module: nn.Module, config: ModelConfig) -> None:
    """Normal weights, zero biases; in pre-norm, what enters the residual stream is scaled by 1/sqrt(2L) (GPT-2)."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | nn.Embedding):
            residual = config.norm == "pre" and name.endswith((".out", ".leave"))
            std = config.initializer_std / math.sqrt(2 * config.n_layers) if residual else config.initializer_std
            nn.init.normal_(child.weight, std=std)
            if isinstance(bias := getattr(child, "bias", None), Tensor):
                nn.init.zeros_(bias)
