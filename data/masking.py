"""Masking: what a masked model reads instead of the text, and which tokens it predicts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.permutation import hash64, uniform
from data.vocabulary import Vocabulary
from data.words import Words

_MASKING = 2  # its stream of randomness, beside those of training/sampling.py


@dataclass(frozen=True)
class Masking:
    """How a masked model's input is corrupted.

    rate:   the share of a window's positions that is masked and predicted: round(rate N) of them, or all of its ordinary
            tokens where these are fewer, as among documents of one word.
    scheme: "mask" puts [MASK] there; "bert" [MASK] on 80%, a random ordinary token on 10%, the token itself on 10%
            (Devlin et al., 2019, section 3.1).
    words:  the share of the rows in which whole words are masked (BERT's whole-word masking): words in a random order, as long
            as they fit into the rate.
    rest:   of the words in these rows, the share that is masked from a random one of its tokens to its end, not whole.

    Specials are never masked.
    """

    rate: float = 0.15
    scheme: Literal["mask", "bert"] = "mask"
    words: float = 0.0
    rest: float = 0.0

    def __post_init__(self):
        if isinstance(self.rate, bool) or not isinstance(self.rate, int | float) or not 0 < self.rate < 1:
            raise ValueError(f"found a masking rate of {self.rate!r}, expected a number between 0 and 1")
        if self.scheme not in ("mask", "bert"):
            raise ValueError(f"found the masking scheme {self.scheme!r}, expected 'mask' or 'bert'")
        if not 0 <= self.words <= 1:
            raise ValueError(
                f"found {self.words!r} as the share of rows masked by words, expected a number from 0 to 1"
            )
        if not 0 <= self.rest <= 1:
            raise ValueError(
                f"found {self.rest!r} as the share of words of which the rest is masked, expected a number from 0 to 1"
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
            assert words is not None
            by_words = uniform(hash64(seed, _MASKING, 3), samples) < self.words
            first, last = words.bounds(tokens, seed, samples, begins)
            start = first
            if self.rest:
                word = samples[:, None] * length + first  # a number for each word
                cut = uniform(hash64(seed, _MASKING, 5), word)
                cut[uniform(hash64(seed, _MASKING, 4), word) >= self.rest] = 0.0
                start = first + (cut * (last - first + 1)).astype(np.int64)
            masked[by_words] = self._whole_words(scores, first, last, start, wanted)[by_words]
        masked &= ~special
        if self.scheme == "mask":
            return np.where(masked, vocabulary.mask_id, tokens), masked
        ordinary_ids = np.flatnonzero(~is_special)
        drawn = ordinary_ids[(uniform(hash64(seed, _MASKING, 1), index) * len(ordinary_ids)).astype(np.int64)]
        lot = uniform(hash64(seed, _MASKING, 2), index)
        replaced = np.where(lot < 0.8, vocabulary.mask_id, np.where(lot < 0.9, drawn, tokens))
        return np.where(masked, replaced, tokens), masked

    @staticmethod
    def _whole_words(
        scores: np.ndarray, first: np.ndarray, last: np.ndarray, start: np.ndarray, wanted: int
    ) -> np.ndarray:
        """(B, N) bool: the words with the lowest scores of their first tokens, each from `start` on, as long as at most `wanted`
        tokens are masked."""
        of_word = np.take_along_axis(scores, first, 1)
        of_word[np.arange(scores.shape[1]) < start] = 3.0  # behind everything
        order = np.argsort(of_word, axis=1, kind="stable")  # tokens of a word side by side
        end = np.take_along_axis(last - np.arange(scores.shape[1]), order, 1) + np.arange(scores.shape[1])
        masked = np.zeros(scores.shape, bool)
        np.put_along_axis(masked, order, end < wanted, axis=1)
        none = ~masked.any(1)  # the first word is longer than all that is wanted: it is masked
        masked[none] = (of_word == of_word.min(1, keepdims=True))[none]
        return masked & (of_word < 3.0)
