"""Which documents are held out for validation: decided by their content, so that it streams and never changes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.corpora import Corpus

MINIMUM = 16_000  # bytes of the held-out part: about four thousand tokens of English, and of Chinese too
DOCUMENTS = 16  # held out at least, eight for dev and eight for test, unless this is more than
_FOR_DOCUMENTS = 0.1  # of the corpus
_LARGEST_SHARE = 0.2  # of the corpus; if more would be needed it is too small to be split
_BUCKETS = 1 << 16
_CUT = 1 << 16  # characters of a document


class SidedPart(NamedTuple):
    """A part of a document, whether it is held out, and whether it is the first of its document."""

    text: str
    held_out: bool
    first: bool


@dataclass(frozen=True)
class Split:
    """Documents whose hash falls into the first `threshold` of 2**16 buckets are held out.

    by_part: whether a part of an over-long document counts as a document of its own; otherwise all parts follow the
             first, so that whole documents are held out.
    cut:     parts have at most this many characters.
    train_bytes, held_out_bytes: what falls to each side, in UTF-8.
    characters: of both sides.
    """

    threshold: int
    by_part: bool
    cut: int
    train_bytes: int
    held_out_bytes: int
    characters: int

    def __call__(self, corpus: Corpus) -> Iterator[SidedPart]:
        """Each part of each document of the corpus, in order."""
        held_out = False
        for part in corpus.parts(self.cut):
            first = part.first or self.by_part
            if first:
                held_out = _bucket(part.text.encode()) < self.threshold
            yield SidedPart(part.text, held_out, first)


def find_split(corpus: Corpus, fraction: float) -> Split:
    """Hold out `fraction` of the bytes of `corpus` (0: nothing), and at least MINIMUM; O(1) memory, at most two passes.

    If this is fewer than DOCUMENTS documents more is held out, up to a tenth of the corpus, since errors are estimated from the
    spread between documents. Whole documents are held out if they are less than a fifth of the corpus. Otherwise it has too
    few of them, as in one long book, and parts of documents are held out, smaller ones if need be.

    Raises ValueError for a corpus that is too small to be split.
    """
    for cut in (_CUT, _CUT // 32):
        by_document, by_part, documents, characters = _survey(corpus, cut)
        total = int(by_part.sum())
        wanted = max(MINIMUM, round(fraction * total)) if fraction else 0
        for sizes in (by_document, by_part):
            cumulative = np.concatenate([[0], sizes.cumsum()])
            threshold = int(np.searchsorted(cumulative, wanted))
            if fraction and sizes is by_document:
                enough = int(np.searchsorted(np.concatenate([[0], documents.cumsum()]), DOCUMENTS))
                most = int(np.searchsorted(cumulative, _FOR_DOCUMENTS * total, side="right")) - 1
                threshold = max(threshold, min(enough, most))
            if threshold <= _BUCKETS and cumulative[threshold] <= _LARGEST_SHARE * total:
                held_out = int(cumulative[threshold])
                return Split(threshold, sizes is by_part, cut, total - held_out, held_out, characters)
    raise ValueError(
        f"{corpus.name}: the corpus is too small or too uniform to be split: it holds {total:,} bytes of text, of "
        f"which at least {wanted:,} and at most {_LARGEST_SHARE:.0%} are to be held out for validation; take a larger "
        f"corpus, or name another one to validate on with --validation"
    )


def _survey(corpus: Corpus, cut: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Bytes in each bucket, by document and by part, documents in each, and characters in all."""
    by_document, by_part, documents = np.zeros((3, _BUCKETS), np.int64)
    bucket = characters = 0
    for part in corpus.parts(cut):
        content = part.text.encode()
        own = _bucket(content)
        bucket = own if part.first else bucket
        documents[bucket] += part.first
        by_document[bucket] += len(content)
        by_part[own] += len(content)
        characters += len(part.text)
    return by_document, by_part, documents, characters


def _bucket(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=2).digest(), "little")
