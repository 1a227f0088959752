"""The contract that every architecture keeps."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from data.masking import Masking
from data.options import check_types
from data.words import NOTHING, Hiding
from model.batch import Batch
from model.config import ModelConfig
from model.head import Head
from model.layers import Embedding


class Architecture(nn.Module):
    """From a batch to a hidden state for each position.

    A subclass says what content is and which content a query may read: it builds its layers in `__init__` and offers
    `predict` and `encode`. What `predict` returns at position i must not depend on token i in any way
    (tests/model/test_no_leak.py certifies every registered class); an architecture that cannot promise this for the
    true input masks its input instead, and says how in `masking`. Loss, leave-one-out, what is counted as predicted and
    what Muon serves have defaults here that a subclass may replace. FLOPs are counted, not written down.
    """

    @dataclass(frozen=True)
    class Options:
        """The architecture's own options; a subclass replaces this class."""

    masking: Masking | None = None
    """How batches must be corrupted for `predict`, or None when it reads the true tokens and predicts every position."""

    without_self: bool = True
    """Whether `encode` has states that see all but their own token."""

    passes_each: bool = False
    """Whether leave-one-out needs a pass for each position."""

    learning_rate: float = 3e-3
    """The learning rate where none is given: the best of a sweep (docs/tuning.md)."""

    fraction: float = 0.0
    """The share of the budget that was spent when the step began. Only the trainer sets it."""

    hiding: Hiding = NOTHING
    """What training batches hide of words from their own positions (`Batch.spans`)."""

    keys_have_two_sources: bool = False
    """Whether keys and values of `blocks` are sums of theirs and of what something else makes (training/weissi.py)."""

    added_options: tuple[tuple[str, Any], ...] = ()
    """Options that were added after the first release, each with the value that reproduces a model without it. A checkpoint that
    lacks one of them is read with this value; a checkpoint that lacks any other option is refused."""

    removed_options: tuple[tuple[str, Any], ...] = ()
    """Options that were removed, each with the value that means the same as not having it. A checkpoint that names one with
    this value is read; one with another value is refused."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.options = self.parse_options(dict(config.options))
        self.embedding = Embedding(config)
        self.register_load_state_dict_pre_hook(_renamed)

    @classmethod
    def parse_options(cls, given: dict[str, Any]) -> Any:
        """`Options` from names and values. Raises ValueError for an unknown name or a value of another type."""
        known = {field.name for field in dataclasses.fields(cls.Options)}
        given = {
            name: value for name, value in given.items() if name in known or (name, value) not in cls.removed_options
        }
        if unknown := set(given) - known:
            takes = f"takes {', '.join(sorted(known))}" if known else "takes no options"
            raise ValueError(f"{cls.__name__} has no option {', '.join(sorted(unknown))}; it {takes}.")
        return check_types(cls.Options(**given))

    def masking_at(self, fraction: float) -> Masking | None:
        """`masking` when this share of the budget is spent, for a masking rate that changes during training."""
        return self.masking

    def phase(self, fraction: float) -> float:
        """The share of the budget that stands for `fraction` when FLOPs are counted: a step costs the same at both."""
        return 0.0

    @property
    def predicted_fraction(self) -> float:
        """The share of the positions that one training pass is asked to predict."""
        return 1.0 if self.masking is None else self.masking.rate

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        """(B, N, D): at each position a state independent of that position's token (with `masking`: at the masked positions).

        positions: (M,) int64, indices into the flattened batch: only the states of these, (M, D), for less work.
        """
        raise TypeError(f"{type(self).__name__} does not define predict.")

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        """(B, N, D): at each position a state that may see everything, for fine-tuning and similarity.

        with_self=False asks for the states of `predict` where the architecture has them for the true tokens.
        """
        raise TypeError(f"{type(self).__name__} does not define encode.")

    def loss(self, batch: Batch, head: Head) -> Tensor:
        """Mean cross-entropy in nats over the positions that this pass predicts, `batch.positions` or all."""
        targets = batch.tokens.flatten()
        if batch.positions is None:
            return head.loss(self.predict(batch).flatten(0, 1), targets)
        return head.loss(self.predict(batch, batch.positions), targets.index_select(0, batch.positions))

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        """States of `positions` (B, P), each seeing all other tokens: (B, P, D), and the passes that one sentence took.

        With `batch.spans` a position sees all tokens outside of its span, for example outside of its word. This default serves
        every architecture whose `predict` shows each position all of the others. Raises ValueError if an architecture does not
        predict tokens, or cannot hide more than the position.
        """
        if batch.spans is not None:
            raise ValueError(f"{type(self).__name__} cannot hide more than the position itself.")
        return self.predict(batch, flat_positions(batch, positions)).view(*positions.shape, -1), 1

    @property
    def hides_words(self) -> bool:
        """Whether `leave_one_out` can hide more than the position itself. If not, whole words are not measured."""
        return type(self).leave_one_out is not Architecture.leave_one_out

    def matrices(self) -> Iterator[nn.Parameter]:
        """The weights for Muon: those of every linear layer except the embedding's."""
        own = {id(m) for m in self.embedding.modules()}
        seen: set[int] = set()
        for module in self.modules():
            if isinstance(module, nn.Linear) and id(module) not in own and id(module.weight) not in seen:
                seen.add(id(module.weight))
                yield cast(nn.Parameter, module.weight)


def _renamed(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Reads older checkpoints, in which the modules of `near` and `taps` had the names of these options."""
    for old, new in (("near.mix.weight", "neighbours.mix.weight"), ("taps", "tap_weights")):
        if prefix + old in state:
            state[prefix + new] = state.pop(prefix + old)


def flat_positions(batch: Batch, positions: Tensor) -> Tensor:
    """(B, P) positions in each row -> (B P,) indices into the flattened batch."""
    rows, length = batch.tokens.shape
    return (positions + length * torch.arange(rows, device=positions.device)[:, None]).flatten()


def tokens_of_a_pass(device: torch.device) -> int:
    """The most tokens of one forward pass without gradients, padding and copies included. On a CPU they should stay in the
    cache."""
    return 2_048 if device.type == "cpu" else 65_536


@dataclass(frozen=True)
class Copies:
    """Copies of rows of a batch, (C, N), one for each position that is to be predicted.

    batch:      the copies; nothing in them is masked or hidden yet.
    row, position: (C,) the row of the given batch that a copy is of, and the position that it is for.
    hidden:     (C, N) bool, that position, and what its span hides.
    counted:    (C,) the positions, as indices into the flattened copies.
    """

    batch: Batch
    row: Tensor
    position: Tensor
    hidden: Tensor
    counted: Tensor


def a_copy_for_each(batch: Batch, positions: Tensor) -> Iterator[Copies]:
    """positions (B, P), in groups that fit a pass."""
    length, position = batch.tokens.shape[1], positions.reshape(-1)
    row, every = torch.arange(len(positions), device=position.device), torch.arange(length, device=position.device)
    row = row.repeat_interleave(positions.shape[1])
    group = max(1, tokens_of_a_pass(position.device) // length)
    for rows, own in zip(row.split(group), position.split(group)):
        first = last = own
        if batch.spans is not None:
            first, last = batch.spans.first[rows, own], batch.spans.last[rows, own]
        documents = None if batch.documents is None else batch.documents[rows]
        plain: dict[str, Any] = {"corrupted": None, "masked": None, "spans": None, "samples": None}
        copies = dataclasses.replace(batch, tokens=batch.tokens[rows], documents=documents, **plain)
        hidden = (every >= first[:, None]) & (every <= last[:, None])
        yield Copies(copies, rows, own, hidden, torch.arange(len(own), device=own.device) * length + own)
