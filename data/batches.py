"""Batches as a pure function of (seed, step): nothing to save, and a resumed run reads the same bits."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from data.batch import Batch
from data.permutation import hash64, permute
from data.shards import Shards
from data.tokenizer import Vocabulary

_SHORTEST = 8  # tokens of a window; from here on every window holds an ordinary token to mask

# Independent streams of randomness under one seed.
_ORDER, _OFFSET, _MASKING, _HELD_OUT = range(4)


@dataclass(frozen=True)
class Masking:
    """How a masked model's input is corrupted.

    rate:   the share of a window's places that is masked and predicted; the same number, round(rate N), in every row.
    scheme: "mask" puts [MASK] there; "bert" [MASK] on 80%, a random ordinary token on 10%, the token itself on 10%
            (Devlin et al., 2019, section 3.1).

    Specials are never masked.
    """

    rate: float = 0.15
    scheme: Literal["mask", "bert"] = "mask"

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise ValueError(f"found a masking rate of {self.rate}, expected one between 0 and 1")
        if self.scheme not in ("mask", "bert"):
            raise ValueError(f"found the masking scheme {self.scheme!r}, expected 'mask' or 'bert'")

    def apply(
        self, tokens: np.ndarray, vocabulary: Vocabulary, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """tokens (B, N) -> corrupted (B, N) and masked (B, N) bool.

        Where some row has fewer ordinary tokens than round(rate N), as among documents of one word, all rows of the
        batch have that many masked.
        """
        is_special = np.zeros(vocabulary.size, bool)
        is_special[list(vocabulary.special_ids)] = True
        special = is_special[tokens]
        scores = random.random(tokens.shape, np.float32)
        scores[special] = 2  # behind every ordinary token
        ordinary = int((~special).sum(1).min())
        count = min(max(1, round(self.rate * tokens.shape[1])), ordinary)
        chosen = np.argpartition(scores, count - 1, axis=1)[:, :count]
        masked = np.zeros(tokens.shape, bool)
        np.put_along_axis(masked, chosen, True, axis=1)
        if self.scheme == "mask":
            return np.where(masked, vocabulary.mask_id, tokens), masked
        ordinary_ids = np.flatnonzero(~is_special)
        drawn = ordinary_ids[random.integers(len(ordinary_ids), size=tokens.shape)]
        lot = random.random(tokens.shape, np.float32)
        replaced = np.where(lot < 0.8, vocabulary.mask_id, np.where(lot < 0.9, drawn, tokens))
        return np.where(masked, replaced, tokens), masked


@dataclass(frozen=True)
class Batches:
    """Windows of `sequence_length` tokens over packed documents, in an order that `seed` decides.

    In each epoch the stream of tokens, seen as a circle, is cut into tokens // sequence_length windows from a random
    place on, and the windows come in a random order: each token appears once, but for the fewer than sequence_length
    that are left over, which are others in each epoch. The tokens at a step do not depend on `masking`.
    """

    shards: Shards
    batch_size: int
    sequence_length: int
    seed: int = 0
    masking: Masking | None = None

    def __post_init__(self):
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

    def at(self, step: int) -> Batch:
        """The batch of step 0, 1, 2, ...: tokens (B, N) and, with `masking`, what a masked model reads and predicts."""
        tokens = self.shards.windows(self._starts(step), self.sequence_length)
        batch = _batch(tokens, self.shards.vocabulary)
        if self.masking is None:
            return batch
        key = np.array([hash64(self.seed, _MASKING), step], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        corrupted, masked = self.masking.apply(tokens, self.shards.vocabulary, random)
        return Batch(batch.tokens, batch.documents, torch.from_numpy(corrupted), torch.from_numpy(masked))

    def _starts(self, step: int) -> np.ndarray:
        """(B,) places in the stream at which the windows of this step start."""
        sample = step * self.batch_size + np.arange(self.batch_size)
        epochs, places = np.divmod(sample, self.windows_per_epoch)
        starts = np.empty_like(sample)
        for epoch in np.unique(epochs).tolist():
            now = epochs == epoch
            window = permute(places[now], self.windows_per_epoch, hash64(self.seed, _ORDER, epoch))
            offset = hash64(self.seed, _OFFSET, epoch) % self.shards.tokens
            starts[now] = offset + window * self.sequence_length
        return starts


def held_out_windows(shards: Shards, sequence_length: int, count: int | None = None, seed: int = 0) -> Batch:
    """`count` windows that do not overlap (None: all there are), the same for the same arguments.

    tokens (count, N) and documents; evaluation masks them as it needs. Raises ValueError if there are fewer.
    """
    _check_window(sequence_length)
    available = shards.tokens // sequence_length
    count = available if count is None else count
    if not 1 <= count <= available:
        raise ValueError(
            f"{shards.folder} holds {shards.tokens:,} tokens, that is {available} windows of {sequence_length}; "
            f"{count} were asked for: take fewer or shorter ones, or hold out more"
        )
    window = permute(np.arange(count), available, hash64(seed, _HELD_OUT))
    return _batch(shards.windows(window * sequence_length, sequence_length), shards.vocabulary)


def _batch(tokens: np.ndarray, vocabulary: Vocabulary) -> Batch:
    """(B, N) windows with their documents, numbered from 0 in each row; BOS is where a document begins."""
    documents = np.cumsum(tokens == vocabulary.bos_id, axis=1, dtype=np.int32)
    documents -= documents[:, :1].copy()
    single = not documents[:, -1].any()
    return Batch(torch.from_numpy(tokens), None if single else torch.from_numpy(documents))


def _check_window(sequence_length: int) -> None:
    if sequence_length < _SHORTEST:
        raise ValueError(f"found a sequence length of {sequence_length}, expected at least {_SHORTEST} tokens")
