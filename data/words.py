"""Words as spans of tokens: which tokens belong together, and which words a training pass hides.

Words are separated by spaces, or were found in Chinese by `--words jieba` when the corpus was prepared. In text without either a
whole sentence would be one word; so a stretch of more than LONGEST tokens is cut at random into spans of geometric length
(SpanBERT, Joshi et al. 2020, arXiv 1907.10529).
"""

from dataclasses import dataclass

import numpy as np

from data.permutation import hash64, uniform

LONGEST = 8  # tokens of a word; English has hardly a longer one at 4,096 pieces
CUT = 0.5  # chance of a span to end after each token: spans of two tokens on average

_CUTS, _WORDS = 4, 5  # streams of randomness beside those of data/masking.py and training/sampling.py


@dataclass(frozen=True)
class Hiding:
    """Which words a training pass hides.

    words: the share of the words that are hidden, each of their tokens with others of its word; of all other tokens only the
           position itself is hidden.
    rest:  of these words, the share of which each token sees those before it in the word: hidden are the token itself and the
           rest of the word after it, as when a word is predicted by the chain rule. Of the others the whole word is hidden.
    """

    words: float = 0.0
    rest: float = 0.0

    def __post_init__(self) -> None:
        for name, value, of in (
            ("words", self.words, "of the words that are hidden, from 0 (off) to 1"),
            ("rest", self.rest, "of the hidden words whose earlier tokens are seen, from 0 (none) to 1"),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it is the share {of}.")

    def __bool__(self) -> bool:
        return self.words > 0


NOTHING = Hiding()


def word_bounds(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """first, last (B, N) int64: the word around each position, given where words start (B, N) bool."""
    length = starts.shape[1]
    position = np.arange(length)
    starts = starts | (position == 0)
    first = np.maximum.accumulate(np.where(starts, position, 0), axis=1)
    ends = np.ones_like(starts)
    ends[:, :-1] = starts[:, 1:]
    last = np.minimum.accumulate(np.where(ends, position, length)[:, ::-1], axis=1)[:, ::-1]
    return first, np.ascontiguousarray(last)


def word_starts(
    tokens: np.ndarray, begins: np.ndarray, special_ids: tuple[int, ...], documents: np.ndarray | None = None
) -> np.ndarray:
    """(B, N) bool: where a word starts. A special token, and the first token of a document, start words of their own.

    Args:
        tokens: (B, N).
        begins: (B, N) bool, which tokens begin a word: `Shards.word_starts`, or `Tokenizer.starts_word` of the tokens.
        documents: (B, N), the document of each position.
    """
    special = np.isin(tokens, special_ids)
    starts = begins | special
    starts[:, 1:] |= special[:, :-1]
    if documents is not None:
        starts[:, 1:] |= documents[:, 1:] != documents[:, :-1]
    return starts


@dataclass(frozen=True)
class Words:
    """The words of a corpus's windows, for training: a pure function of (seed, sample).

    starts_word: (V,) bool, of the tokenizer.
    special_ids: tokens that are words of their own.
    """

    starts_word: np.ndarray
    special_ids: tuple[int, ...]

    def bounds(
        self, tokens: np.ndarray, seed: int, samples: np.ndarray, begins: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """first, last (B, N): the word of each position, or the span, where nothing tells words apart. samples: (B,) of each row;
        begins: (B, N) which tokens begin a word, where that was found in the text."""
        starts = word_starts(tokens, self.starts_word[tokens] if begins is None else begins, self.special_ids)
        first, last = word_bounds(starts)
        long = last - first >= LONGEST
        if long.any():
            index = samples[:, None] * tokens.shape[1] + np.arange(tokens.shape[1])
            first, last = word_bounds(starts | (long & (uniform(hash64(seed, _CUTS), index) < CUT)))
        return first, last

    def hidden(
        self, tokens: np.ndarray, hiding: Hiding, seed: int, samples: np.ndarray, begins: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """first, last (B, N): what is hidden from each position. Which words are hidden does not depend on `hiding.rest`."""
        first, last = self.bounds(tokens, seed, samples, begins)
        position = np.arange(tokens.shape[1])
        lot = uniform(hash64(seed, _WORDS), samples[:, None] * tokens.shape[1] + first)  # one for each word
        hide, rest = lot < hiding.words, lot < hiding.words * hiding.rest
        return np.where(hide & ~rest, first, position), np.where(hide, last, position)
