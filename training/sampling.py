"""Batches are a pure function of (seed, step): nothing has to be saved, and a resumed run reads the same data."""

from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Literal, Protocol

import numpy as np
import torch

from data.masking import Masking
from data.permutation import hash64, permute
from data.shards import Shards
from data.vocabulary import Vocabulary
from data.words import NOTHING, Hiding, Words
from kernels.attention import Spans
from model.batch import Batch

SHORTEST = 8  # tokens of a window; from here on every window holds an ordinary token to mask

# Independent streams of randomness under one seed.
_ORDER, _OFFSET, _HELD_OUT = 0, 1, 3  # 2 is that of data/masking.py


Part = Literal["dev", "test"]


class Source(Protocol):
    """What a contestant trains on: `Batches`, or a substitute for them."""

    @property
    def batch_size(self) -> int: ...

    @property
    def sequence_length(self) -> int: ...

    def at(self, step: int, masking: Masking | None = None) -> Batch: ...


@dataclass(frozen=True)
class Batches:
    """Windows of `sequence_length` tokens over packed documents, in an order that `seed` decides.

    In each epoch the stream of tokens, seen as a circle, is cut into tokens // sequence_length windows from a random
    position on, and the windows come in a random order: each token appears once, but for the fewer than sequence_length
    that are left over, which are others in each epoch. The tokens at a step do not depend on `masking` or on what is hidden.

    hiding: what is hidden of the `words` from their own positions (`Batch.spans`).
    """

    shards: Shards
    batch_size: int
    sequence_length: int
    seed: int = 0
    masking: Masking | None = None
    words: Words | None = None
    hiding: Hiding = NOTHING

    def __post_init__(self):
        if self.words is None and (self.hiding or (self.masking is not None and self.masking.words)):
            raise ValueError("words are to be hidden and none were given; give Batches the corpus's Words")
        _check_window(self.sequence_length)
        if self.batch_size < 1 or self.seed < 0:
            raise ValueError(f"found batch size {self.batch_size} and seed {self.seed}, expected at least 1 and 0")
        needed = self.batch_size * self.sequence_length
        if self.shards.tokens < needed:
            raise ValueError(
                f"the corpus is smaller than one batch: {self.shards.folder} holds {self.shards.tokens:,} tokens, a "
                f"batch of {self.batch_size} x {self.sequence_length} takes {needed:,}; take a larger corpus, a "
                f"smaller batch or shorter sequences"
            )

    @property
    def windows_per_epoch(self) -> int:
        return self.shards.tokens // self.sequence_length

    def at(self, step: int, masking: Masking | EllipsisType | None = ...) -> Batch:
        """The batch of step 0, 1, 2, ...: tokens (B, N) and, with masking, what a masked model reads and predicts.

        masking: instead of the one that the batches were made with, for a rate that changes on the way; None masks nothing.
        """
        samples = step * self.batch_size + np.arange(self.batch_size)
        starts = self._starts(samples)
        tokens = self.shards.windows(starts, self.sequence_length)
        begins = self.shards.word_starts(starts, self.sequence_length)
        batch = replace(_batch(tokens, self.shards.vocabulary), samples=tuple(samples.tolist()), seed=self.seed)
        if self.hiding and self.words is not None:
            first, last = self.words.hidden(tokens, self.hiding, self.seed, samples, begins)
            batch = replace(batch, spans=Spans(torch.from_numpy(first).int(), torch.from_numpy(last).int()))
        masking = self.masking if masking is ... else masking
        if masking is None:
            return batch
        corrupted, masked = masking.apply(tokens, self.shards.vocabulary, self.seed, samples, self.words, begins)
        return replace(batch, corrupted=torch.from_numpy(corrupted), masked=torch.from_numpy(masked))

    def _starts(self, sample: np.ndarray) -> np.ndarray:
        """Positions in the stream at which these windows, counted from the start of training, begin."""
        epochs, positions = np.divmod(sample, self.windows_per_epoch)
        starts = np.empty_like(sample)
        for epoch in np.unique(epochs).tolist():
            now = epochs == epoch
            window = permute(positions[now], self.windows_per_epoch, hash64(self.seed, _ORDER, epoch))
            offset = hash64(self.seed, _OFFSET, epoch) % self.shards.tokens
            starts[now] = offset + window * self.sequence_length
        return starts


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows: a batch without masking, and which document of the shards each position belongs to, (W, N).

    begins: (W, N) bool, which tokens begin a word, where that was found in the text; None: the tokens themselves say it.
    """

    batch: Batch
    document: np.ndarray
    begins: np.ndarray | None = None


def held_out_windows(shards: Shards, sequence_length: int, part: Part, count: int, seed: int = 0) -> HeldOut:
    """At most `count` windows that do not overlap, from one half of the held-out documents; the same for the same
    arguments.

    dev is the first half of the documents by tokens, for choosing settings and for curves; test is the second, for what
    is reported. No document lies in both, unless halves would be lopsided: see `Shards.middle`.

    Raises ValueError if the half does not fill a single window.
    """
    _check_window(sequence_length)
    cut, _ = shards.middle()
    first, last = (0, cut) if part == "dev" else (cut, shards.tokens)
    available = (last - first) // sequence_length
    if available < 1:
        raise ValueError(
            f"{shards.folder} holds {shards.tokens:,} tokens, of which {last - first:,} are for {part}: not one window "
            f"of {sequence_length}; take shorter ones, a larger corpus, or hold out more with --held-out"
        )
    count = min(count, available)
    starts = first + permute(np.arange(count), available, hash64(seed, _HELD_OUT)) * sequence_length
    batch = _batch(shards.windows(starts, sequence_length), shards.vocabulary)
    document = shards.document_of(starts[:, None] + np.arange(sequence_length))
    return HeldOut(batch, document, shards.word_starts(starts, sequence_length))


def _batch(tokens: np.ndarray, vocabulary: Vocabulary) -> Batch:
    """(B, N) windows with their documents, numbered from 0 in each row; BOS is where a document begins."""
    documents = np.cumsum(tokens == vocabulary.bos_id, axis=1, dtype=np.int32)
    documents -= documents[:, :1].copy()
    single = not documents[:, -1].any()
    return Batch(torch.from_numpy(tokens), None if single else torch.from_numpy(documents))


def _check_window(sequence_length: int) -> None:
    if sequence_length < SHORTEST:
        raise ValueError(f"found a sequence length of {sequence_length}, expected at least {SHORTEST} tokens")
