"""Batches as a pure function of (seed, step): nothing to save, and a resumed run reads the same bits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Literal

import numpy as np
import torch

from data.batch import Batch
from data.permutation import hash64, permute, uniform
from data.shards import Shards
from data.tokenizer import Vocabulary
from data.words import Words
from kernels.attention import Spans

SHORTEST = 8  # tokens of a window; from here on every window holds an ordinary token to mask

# Independent streams of randomness under one seed.
_ORDER, _OFFSET, _MASKING, _HELD_OUT = range(4)


@dataclass(frozen=True)
class Masking:
    """How a masked model's input is corrupted.

    rate:   the share of a window's places that is masked and predicted: round(rate N) of them, or all of its ordinary
            tokens where these are fewer, as among documents of one word.
    scheme: "mask" puts [MASK] there; "bert" [MASK] on 80%, a random ordinary token on 10%, the token itself on 10%
            (Devlin et al., 2019, section 3.1).
    words:  the share of the rows in which whole words are masked (BERT's whole-word masking): words in a random order, as long
            as they fit into the rate.

    Specials are never masked.
    """

    rate: float = 0.15
    scheme: Literal["mask", "bert"] = "mask"
    words: float = 0.0

    def __post_init__(self):
        if isinstance(self.rate, bool) or not isinstance(self.rate, int | float) or not 0 < self.rate < 1:
            raise ValueError(f"found a masking rate of {self.rate!r}, expected a number between 0 and 1")
        if self.scheme not in ("mask", "bert"):
            raise ValueError(f"found the masking scheme {self.scheme!r}, expected 'mask' or 'bert'")
        if not 0 <= self.words <= 1:
            raise ValueError(
                f"found {self.words!r} as the share of rows masked by words, expected a number from 0 to 1"
            )

    def apply(
        self,
        tokens: np.ndarray,
        vocabulary: Vocabulary,
        seed: int,
        samples: np.ndarray,
        words: Words | None = None,
        begins: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """tokens (B, N) -> corrupted (B, N) and masked (B, N) bool.

        samples: (B,) the number of each row in the order of the data. What is drawn for a row depends on the seed and
        on its number alone: not on the batch it stands in, nor on other rows.
        words: needed where whole words are masked; begins: as for `Words.bounds`.
        """
        length = tokens.shape[1]
        is_special = np.zeros(vocabulary.size, bool)
        is_special[list(vocabulary.special_ids)] = True
        special = is_special[tokens]
        index = samples[:, None] * length + np.arange(length)
        scores = uniform(hash64(seed, _MASKING, 0), index)
        scores[special] = 2  # behind every ordinary token
        wanted = max(1, round(self.rate * length))
        order = np.argpartition(scores, min(wanted, length - 1), axis=1)[:, :wanted]  # the lowest, in any order
        masked = np.zeros(tokens.shape, bool)
        np.put_along_axis(masked, order, True, axis=1)
        if self.words:
            by_words = uniform(hash64(seed, _MASKING, 3), samples) < self.words
            masked[by_words] = self._whole_words(scores, words.bounds(tokens, seed, samples, begins), wanted)[by_words]
        masked &= ~special
        if self.scheme == "mask":
            return np.where(masked, vocabulary.mask_id, tokens), masked
        ordinary_ids = np.flatnonzero(~is_special)
        drawn = ordinary_ids[(uniform(hash64(seed, _MASKING, 1), index) * len(ordinary_ids)).astype(np.int64)]
        lot = uniform(hash64(seed, _MASKING, 2), index)
        replaced = np.where(lot < 0.8, vocabulary.mask_id, np.where(lot < 0.9, drawn, tokens))
        return np.where(masked, replaced, tokens), masked

    @staticmethod
    def _whole_words(scores: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], wanted: int) -> np.ndarray:
        """(B, N) bool: the words with the lowest scores of their first tokens, as long as at most `wanted` tokens are masked."""
        first, last = bounds
        of_word = np.take_along_axis(scores, first, 1)
        order = np.argsort(of_word, axis=1, kind="stable")  # tokens of a word side by side
        end = np.take_along_axis(last - np.arange(scores.shape[1]), order, 1) + np.arange(scores.shape[1])
        masked = np.zeros(scores.shape, bool)
        np.put_along_axis(masked, order, end < wanted, axis=1)
        none = ~masked.any(1)  # the first word is longer than all that is wanted: it is masked
        masked[none] = (of_word == of_word.min(1, keepdims=True))[none]
        return masked


@dataclass(frozen=True)
class Batches:
    """Windows of `sequence_length` tokens over packed documents, in an order that `seed` decides.

    In each epoch the stream of tokens, seen as a circle, is cut into tokens // sequence_length windows from a random
    place on, and the windows come in a random order: each token appears once, but for the fewer than sequence_length
    that are left over, which are others in each epoch. The tokens at a step do not depend on `masking` or on what is hidden.

    hidden_words: the share of the `words` that are hidden whole from each of their positions (`Batch.spans`).
    """

    shards: Shards
    batch_size: int
    sequence_length: int
    seed: int = 0
    masking: Masking | None = None
    words: Words | None = None
    hidden_words: float = 0.0

    def __post_init__(self):
        if self.words is None and (self.hidden_words or (self.masking is not None and self.masking.words)):
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
        if self.hidden_words:
            first, last = self.words.hidden(tokens, self.hidden_words, self.seed, samples, begins)
            batch = replace(batch, spans=Spans(torch.from_numpy(first).int(), torch.from_numpy(last).int()))
        masking = self.masking if masking is ... else masking
        if masking is None:
            return batch
        corrupted, masked = masking.apply(tokens, self.shards.vocabulary, self.seed, samples, self.words, begins)
        return replace(batch, corrupted=torch.from_numpy(corrupted), masked=torch.from_numpy(masked))

    def _starts(self, sample: np.ndarray) -> np.ndarray:
        """Places in the stream at which these windows, counted from the start of training, begin."""
        epochs, places = np.divmod(sample, self.windows_per_epoch)
        starts = np.empty_like(sample)
        for epoch in np.unique(epochs).tolist():
            now = epochs == epoch
            window = permute(places[now], self.windows_per_epoch, hash64(self.seed, _ORDER, epoch))
            offset = hash64(self.seed, _OFFSET, epoch) % self.shards.tokens
            starts[now] = offset + window * self.sequence_length
        return starts


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows: a batch without masking, and which document of the shards each place belongs to, (W, N).

    begins: (W, N) bool, which tokens begin a word, where that was found in the text; None: the tokens themselves say it.
    """

    batch: Batch
    document: np.ndarray
    begins: np.ndarray | None = None


def held_out_windows(
    shards: Shards, sequence_length: int, part: Literal["dev", "test"], count: int, seed: int = 0
) -> HeldOut:
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


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """Rows of their own lengths, each a document, as one batch with padding at their ends."""
    length = max(map(len, rows))
    tokens = torch.full((len(rows), length), pad_id)
    documents = torch.full((len(rows), length), -1, dtype=torch.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], documents[i, : len(row)] = torch.as_tensor(row), 0
    return Batch(tokens, documents if bool((documents < 0).any()) else None)


def _batch(tokens: np.ndarray, vocabulary: Vocabulary) -> Batch:
    """(B, N) windows with their documents, numbered from 0 in each row; BOS is where a document begins."""
    documents = np.cumsum(tokens == vocabulary.bos_id, axis=1, dtype=np.int32)
    documents -= documents[:, :1].copy()
    single = not documents[:, -1].any()
    return Batch(torch.from_numpy(tokens), None if single else torch.from_numpy(documents))


def _check_window(sequence_length: int) -> None:
    if sequence_length < SHORTEST:
        raise ValueError(f"found a sequence length of {sequence_length}, expected at least {SHORTEST} tokens")
