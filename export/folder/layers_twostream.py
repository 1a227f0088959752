"""Layers of exported twostream models, in plain PyTorch.

Shapes: B batch, N sequence, H heads, D hidden size, K head width, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_twostream import TwoStreamConfig

FARTHEST = 8  # distances to the ends of a hidden stretch are counted to here


def layer_norm(config: TwoStreamConfig, width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=config.layer_norm_eps, bias=config.use_bias)


def rotated(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, half-split form) on (B, N, H, K). The tables are made here, never stored."""
    length, width = x.shape[1], x.shape[3]
    frequency = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device=x.device) / width)
    angle = torch.arange(length, dtype=torch.float64, device=x.device)[:, None] * frequency  # (N, K/2)
    cos, sin = (f(angle).to(x.dtype)[:, None] for f in (torch.cos, torch.sin))
    one, two = x.chunk(2, -1)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


class Embedding(nn.Module):
    """Token table, widened if it is narrow, plus learned positions if there are any, normalised."""

    def __init__(self, config: TwoStreamConfig):
        super().__init__()
        narrow = config.embedding_size < config.hidden_size
        self.table = nn.Embedding(config.vocab_size, config.embedding_size)
        self.widen = nn.Linear(config.embedding_size, config.hidden_size, bias=False) if narrow else None
        learned = config.position_type == "learned"
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        self.norm = layer_norm(config, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:  # (B, N), (B, N) -> (B, N, D)
        x = self.table(tokens)
        x = x if self.widen is None else self.widen(x)
        if self.positions is not None:
            x = x + self.positions((valid.long().cumsum(1) - 1).clamp_min(0))
        return self.dropout(self.norm(x))


class FeedForward(nn.Module):
    def __init__(self, config: TwoStreamConfig):
        super().__init__()
        self.gated = config.feed_forward == "gated"
        inner = config.intermediate_size
        self.enter = nn.Linear(config.hidden_size, 2 * inner if self.gated else inner, bias=config.use_bias)
        self.leave = nn.Linear(inner, config.hidden_size, bias=config.use_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        if not self.gated:
            return self.leave(F.gelu(x))
        gate, x = x.chunk(2, -1)
        return self.leave(F.gelu(gate) * x)


class Block(nn.Module):
    """One Transformer layer whose rows read keys and values of another stream, or of their own."""

    def __init__(self, config: TwoStreamConfig):
        super().__init__()
        width, bias = config.hidden_size, config.use_bias
        self.n_heads, self.rotary = config.num_attention_heads, config.position_type == "rotary"
        self.pre_norm = config.block_norm == "pre"
        self.norm_attention, self.norm_feed_forward = layer_norm(config, width), layer_norm(config, width)
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def read(self, x: Tensor) -> Tensor:
        return self.norm_attention(x) if self.pre_norm else x

    def heads(self, x: Tensor, rotary: bool) -> Tensor:  # (B, N, D) -> (B, H, N, K)
        x = x.unflatten(-1, (self.n_heads, -1))
        return (rotated(x) if rotary else x).transpose(1, 2)

    def forward(self, x: Tensor, kv: Tensor, seen: Tensor) -> Tensor:
        """x: (B, N, D); kv: (B, N, 2 D), keys without their positions, and values; seen: (B, N, N) bool."""
        k, v = kv.chunk(2, -1)
        q, k, v = self.heads(self.query(self.read(x)), self.rotary), self.heads(k, self.rotary), self.heads(v, False)
        some = seen.any(-1, keepdim=True)  # a row that sees nothing reads 0
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=(seen | ~some)[:, None])
        read = read.masked_fill(~some[:, None], 0.0).transpose(1, 2).flatten(2)
        attended = self.dropout(self.out(read))
        if self.pre_norm:
            x = x + attended
            return x + self.dropout(self.feed_forward(self.norm_feed_forward(x)))
        x = self.norm_attention(x + attended)
        return self.norm_feed_forward(x + self.dropout(self.feed_forward(x)))


class Hidden:
    """What positions must not read: first and last (B, N) of each position's hidden stretch, and `open` (B, N), the
    positions that give keys, values and neighbours."""

    def __init__(self, input_ids: Tensor, valid: Tensor, mask_id: int | None):
        position = torch.arange(input_ids.shape[1], device=input_ids.device)
        masked = valid & (input_ids == mask_id) if mask_id is not None else torch.zeros_like(valid)
        run = (~masked).long().cumsum(1)  # the same number for all [MASK]s of a run
        same = masked[:, :, None] & masked[:, None, :] & (run[:, :, None] == run[:, None, :])
        length = input_ids.shape[1]
        own = position.expand_as(input_ids)
        self.first = torch.where(masked, torch.where(same, position, length).amin(-1), own)
        self.last = torch.where(masked, torch.where(same, position, -1).amax(-1), own)
        self.masked, self.open = masked, valid & ~masked

    def seen(self, gap: int) -> Tensor:
        """(B, N, N): keys that are farther than `gap` from the stretch of the row, and open."""
        position = torch.arange(self.open.shape[1], device=self.open.device)
        far = (position < self.first[:, :, None] - gap) | (position > self.last[:, :, None] + gap)
        return far & self.open[:, None, :]


class Near(nn.Module):
    """The `reach` neighbours beyond each side of a position's stretch, through one product; 0 where there is none."""

    def __init__(self, config: TwoStreamConfig):
        super().__init__()
        self.reach = config.near
        self.mix = nn.Linear(2 * self.reach * config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, hidden: Hidden) -> Tensor:  # (B, N, D) -> (B, N, D)
        step = torch.arange(self.reach, device=x.device)
        other = torch.cat([hidden.first[..., None] - self.reach + step, hidden.last[..., None] + 1 + step], -1)
        length, width = x.shape[1:]
        at = other.clamp(0, length - 1).flatten(1)  # (B, 2 N reach)
        given = (other >= 0) & (other < length) & hidden.open.gather(1, at).view_as(other)
        found = x.gather(1, at[..., None].expand(-1, -1, width)).view(*other.shape, width)
        return self.mix(found.masked_fill(~given[..., None], 0.0).flatten(2))


class SpanEnds(nn.Module):
    """How far the ends of its hidden stretch are from a position, as a vector."""

    def __init__(self, config: TwoStreamConfig):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2, FARTHEST + 1, config.hidden_size))

    def forward(self, hidden: Hidden) -> Tensor:
        position = torch.arange(hidden.open.shape[1], device=hidden.open.device)
        before, after = (position - hidden.first).clamp_max(FARTHEST), (hidden.last - position).clamp_max(FARTHEST)
        return F.embedding(before, self.table[0]) + F.embedding(after, self.table[1])


def convolved(x: Tensor, weight: Tensor, open_: Tensor) -> Tensor:
    """x (B, N, C) plus a weighted sum of neighbours on both sides, channel by channel; weight (2, taps, C)."""
    x = x.masked_fill(~open_[..., None], 0.0)
    out, length, taps = x, x.shape[1], weight.shape[1]
    padded = F.pad(x, (0, 0, taps, taps))
    for t in range(1, taps + 1):
        before, after = padded[:, taps - t : taps - t + length], padded[:, taps + t : taps + t + length]
        out = out + before * weight[0, t - 1] + after * weight[1, t - 1]
    return out
