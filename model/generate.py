"""Generation with a masked language model: source and target are one text, and the target is written from left to right.

After UniLM (Dong et al. 2019, arXiv 1905.03197): the source sees the source, the target the source and its own past.

    tta, local   a query at target position i predicts token i, with everything from i on hidden from it (`Batch.spans`). That is
                 the stretch by which words are hidden, as long as the rest of the text, so training is `predict` as it is: taps
                 and neighbours that would reach beyond i are left out there already. Content is raw: what is cached never
                 changes, and the source costs its keys and values alone.
    vanilla      one stream under that mask, in which the state of token i - 1 predicts token i.

A dialogue has no source: every token of every turn is a target, and reads all before it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.one_sided import two_sided
from model.architectures.local import Local
from model.architectures.tta import TTA
from model.architectures.vanilla import Vanilla
from model.batch import Batch, padded
from model.layers import by_layer, projected
from model.masked_lm import MaskedLM
from model.neighbours import SpanEnds
from model.rotary import rotate_at

TAIL = SpanEnds.FARTHEST  # hidden positions behind a target: without them a query would be told how far its end is


@dataclass(frozen=True)
class Texts:
    """Sources and targets side by side. batch: TAIL positions longer than the texts, padded, with what targets must not see as
    its spans; positions: (M,) of the targets' tokens, counted through the batch; targets: (M,) these tokens; begins: (B, 1) where
    each target begins."""

    batch: Batch
    positions: Tensor
    targets: Tensor
    begins: Tensor

    @classmethod
    def of(cls, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int, mask_id: int) -> "Texts":
        """pairs: tokens of a source, at least one, and of its target. Raises ValueError for an empty one."""
        for number, (source, target) in enumerate(pairs):
            if not source or not target:
                raise ValueError(f"text {number} has no {'target' if source else 'source'}; both must have a token.")
        batch = padded([[*source, *target, *[mask_id] * TAIL] for source, target in pairs], pad_id)
        begins, targets = (torch.tensor([len(text) for text in texts])[:, None] for texts in zip(*pairs))
        position = torch.arange(batch.tokens.shape[1]).expand(batch.tokens.shape)
        ends = begins + targets
        hides = (position >= begins) & (position < ends + TAIL)  # these positions see nothing from themselves on
        batch = batch.hiding(position, torch.where(hides, ends + TAIL - 1, position))
        positions = ((position >= begins) & (position < ends)).flatten().nonzero()[:, 0]
        return cls(batch, positions, batch.tokens.flatten()[positions], begins)

    def to(self, device: torch.device) -> "Texts":
        return Texts(self.batch.to(device), self.positions.to(device), self.targets.to(device), self.begins.to(device))


class Writer(nn.Module):
    """A model as one that writes. `loss` trains it; `begin` starts a text, of which `Written` says what may come next."""

    def __init__(self, model: MaskedLM) -> None:
        """Raises ValueError for an architecture that cannot."""
        super().__init__()
        self.model = model
        architecture = model.architecture
        name = model.config.architecture
        if isinstance(architecture, Vanilla):
            if architecture.neighbours is not None or architecture.tap_weights is not None:
                raise ValueError(
                    "vanilla with near or taps cannot write, since these read what comes next; take one without."
                )
        elif not isinstance(architecture, Local | TTA):
            raise ValueError(f"{name} cannot write; take a checkpoint of local, tta or vanilla.")

    def loss(self, texts: Texts) -> Tensor:
        """Mean cross-entropy of the targets' tokens, in nats."""
        return self.model.head.loss(self.states(texts), texts.targets)

    def nll(self, texts: Texts) -> Tensor:
        """(M,) of each token of the targets, nats."""
        return self.model.head.score(self.states(texts), texts.targets, k=0).nll

    def states(self, texts: Texts) -> Tensor:
        """(M, D), each of what is known before its token."""
        architecture = self.model.architecture
        batch = texts.batch
        if not isinstance(architecture, Vanilla):
            return architecture.predict(batch, texts.positions)
        position = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        seen = (position <= position[:, None]) | (position < texts.begins[:, None])  # (B, N, N)
        if batch.documents is not None:  # padding reads itself, so that no row of the softmax is empty
            seen = seen & ((batch.documents >= 0)[:, None] | (position == position[:, None]))
        x, at = architecture.embedding(batch.tokens, batch.documents), position.expand(batch.tokens.shape)
        for block in architecture.blocks:
            x = block.some_rows(x, at, *block.keys_values(block.read(x)), seen[:, None])
        return x.flatten(0, 1).index_select(0, texts.positions - 1)

    @torch.no_grad()
    def begin(self, source: Sequence[int], copies: int = 1) -> "Written":
        """A text of which `source` stands, in so many copies. Call in eval mode."""
        device = next(self.model.parameters()).device
        tokens = torch.tensor([list(source)], device=device)
        kind = _OneStream if isinstance(self.model.architecture, Vanilla) else _TwoStreams
        written = kind(self.model, tokens)
        written.select(torch.zeros(copies, dtype=torch.long, device=device))
        return written


class Written(ABC):
    """Texts in the making, one a row, with what was computed of them."""

    model: MaskedLM
    architecture: Any  # of tta, local or vanilla what their layers and starts are
    keys: list[Tensor]
    values: list[Tensor]

    @abstractmethod
    def log_probs(self) -> Tensor:
        """(B, V) float32, of the next token."""

    @abstractmethod
    def append(self, tokens: Tensor) -> None:
        """One more token, (B,) int64."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Go on with these rows, (B',), a row as often as it is named."""

    def _scored(self, hidden: Tensor) -> Tensor:
        return self.model.head.logits(hidden).float().log_softmax(-1)

    def _attended(self, layer: int, x: Tensor, position: int) -> Tensor:
        """One layer of one row of each text, (B, 1, D), over what is kept of the layer's keys and values."""
        block, at = self.architecture.blocks[layer], torch.full(x.shape[:2], position, device=x.device)
        return block.some_rows(x, at, self.keys[layer], self.values[layer], None, self.model.config.max_length)

    def _keep(self, layer: int, k: Tensor, v: Tensor, position: int) -> None:
        """One more key and value of a layer, (B, 1, H, K) each."""
        if self.architecture.blocks[layer].rotary:
            k = rotate_at(k, torch.full(k.shape[:2], position, device=k.device), self.model.config.max_length)
        self.keys[layer] = torch.cat([self.keys[layer], k.transpose(1, 2)], 2)
        self.values[layer] = torch.cat([self.values[layer], v.transpose(1, 2)], 2)

    def _position(self, length: int) -> int:
        """The next token's. Raises ValueError beyond the longest text that the model reads."""
        if length >= self.model.config.max_length:
            raise ValueError(
                f"The text has {length} tokens, and the model reads no more; take a shorter source or target."
            )
        return length


class _TwoStreams(Written):
    """tta and local. raw: (B, n, 2 L D) keys and values of content before taps; keys, values: of each layer, of the positions
    that are farther than the taps from the next one, with these convolved."""

    @torch.no_grad()
    def __init__(self, model: MaskedLM, tokens: Tensor) -> None:
        self.model, self.architecture = model, model.architecture
        a = self.architecture
        self.taps: Tensor | None = getattr(a, "tap_weights", None)
        self.near = getattr(a, "neighbours", None)
        self.reach = 0 if self.taps is None else self.taps.shape[1]
        self._position(tokens.shape[1] - 1)
        self.content = a.embedding(tokens)  # (B, n, D)
        self.raw = projected(a.blocks, self.content)
        done = self.raw if self.taps is None else two_sided(self.raw, self.taps)
        layers = by_layer(a.blocks, done)
        known = max(0, tokens.shape[1] - self.reach)
        self.keys, self.values = ([x[:, :, :known] for x in each] for each in zip(*layers))

    @torch.no_grad()
    def log_probs(self) -> Tensor:
        a, length = self.architecture, self._position(self.content.shape[1])
        mask = torch.full((1, 1), self.model.config.mask_id, device=self.content.device)
        x = a.embedding(mask, begin=length).expand(len(self.content), -1, -1)
        if a.ends is not None:
            x = x + a.ends.table[0, 0] + a.ends.table[1, -1]
        if self.near is not None:
            before = F.pad(self.content[:, -self.near.reach :], (0, 0, max(0, self.near.reach - length), 0))
            x = x + self.near.mix(F.pad(before, (0, 0, 0, self.near.reach)).flatten(1))[:, None]
        for layer in range(len(a.blocks)):
            x = self._attended(layer, x, length)
        return self._scored(x[:, 0])

    @torch.no_grad()
    def append(self, tokens: Tensor) -> None:
        a = self.architecture
        content = a.embedding(tokens[:, None], begin=self._position(self.content.shape[1]))
        self.content = torch.cat([self.content, content], 1)
        self.raw = torch.cat([self.raw, projected(a.blocks, content)], 1)
        at = self.raw.shape[1] - 1 - self.reach  # whose neighbours on the far side are all known now
        if at < 0:
            return
        begin = max(0, at - self.reach)
        window = self.raw[:, begin:]
        done = (window if self.taps is None else two_sided(window, self.taps))[:, at - begin]
        kv = done.unflatten(-1, (2, len(a.blocks), a.blocks[0].n_heads, -1))  # (B, 2, L, H, K)
        for layer in range(len(a.blocks)):
            self._keep(layer, kv[:, 0, layer, None], kv[:, 1, layer, None], at)

    def select(self, rows: Tensor) -> None:
        self.content, self.raw = self.content[rows], self.raw[rows]
        self.keys, self.values = [k[rows] for k in self.keys], [v[rows] for v in self.values]


class _OneStream(Written):
    """vanilla. keys, values: of each layer, of all tokens; state: (B, D) of the last one."""

    @torch.no_grad()
    def __init__(self, model: MaskedLM, tokens: Tensor) -> None:
        self.model, self.architecture = model, model.architecture
        a = self.architecture
        self.length = tokens.shape[1]
        self._position(self.length - 1)
        x = a.embedding(tokens)
        position = torch.arange(self.length, device=tokens.device)[None]
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        for block in a.blocks:
            k, v = block.keys_values(block.read(x))
            x = block.some_rows(x, position, k, v, None)
            self.keys.append(k)
            self.values.append(v)
        self.state = x[:, -1]

    def log_probs(self) -> Tensor:
        self._position(self.length)
        with torch.no_grad():
            return self._scored(self.state)

    @torch.no_grad()
    def append(self, tokens: Tensor) -> None:
        a, at = self.architecture, self._position(self.length)
        x = a.embedding(tokens[:, None], begin=at)
        for layer, block in enumerate(a.blocks):
            kv = projected([block], block.read(x)).unflatten(-1, (2, block.n_heads, -1))  # (B, 1, 2, H, K)
            k, v = kv.unbind(2)
            self._keep(layer, k, v, at)
            x = self._attended(layer, x, at)
        self.state, self.length = x[:, 0], at + 1

    def select(self, rows: Tensor) -> None:
        self.state = self.state[rows]
        self.keys, self.values = [k[rows] for k in self.keys], [v[rows] for v in self.values]
