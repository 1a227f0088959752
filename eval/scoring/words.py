"""Words of a text, and where the tokens of any tokenizer have them. See eval/words.py."""

import re
from dataclasses import dataclass

import numpy as np

from data.chinese import HAN, Segmenter
from data.tokenizer import Tokenizer
from model.batch import padded
from training.whole_words import WholeWords

WORD = re.compile(
    rf"(?:(?![{HAN}])[^\W_])+(?:['’-][^\W_]+)*"
)  # letters and digits, an apostrophe or a hyphen between them


@dataclass(frozen=True)
class Excerpt:
    """Some characters of a document, and the words that stand whole in it as (begin, end)."""

    text: str
    document: int
    words: tuple[tuple[int, int], ...]


def words_of(text: str, segmenter: Segmenter | None) -> list[tuple[int, int]]:
    """(begin, end) of each: of Chinese alone, or of what stands between spaces."""
    if segmenter is None:
        return [match.span() for match in WORD.finditer(text)]
    return [(a, a + len(word)) for a, word in segmenter.words(text) if re.match(f"[{HAN}]", word)]


@dataclass(frozen=True)
class Drawn:
    """Words, in the order of their excerpts: the excerpt's number, begin, end in it, (K,) each."""

    excerpt: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, excerpts: list[Excerpt], words: int, seed: int) -> "Drawn":
        every = np.array([(n, a, b) for n, e in enumerate(excerpts) for a, b in e.words])
        chosen = np.sort(np.random.default_rng(seed).permutation(len(every))[:words])
        return cls(*every[chosen].T)

    def only(self, which: np.ndarray) -> "Drawn":
        return Drawn(self.excerpt[which], self.begin[which], self.end[which])


class Tokenized:
    """Excerpts as one tokenizer has them, and where each drawn word stands: first, last (K,) among the tokens, BOS counted;
    whole (K,) bool, whether these tokens stand for the word alone, or for it and the space before it."""

    def __init__(self, excerpts: list[Excerpt], drawn: Drawn, tokenizer: Tokenizer):
        self.rows: dict[int, list[int]] = {}
        self.first, self.last = np.zeros((2, len(drawn.excerpt)), np.int64)
        self.whole = np.zeros(len(drawn.excerpt), bool)
        offsets: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for k, (number, begin, end) in enumerate(zip(drawn.excerpt.tolist(), drawn.begin.tolist(), drawn.end.tolist())):
            text = excerpts[number].text
            if number not in offsets:
                triples = np.array(tokenizer.encode_with_offsets(text)).reshape(-1, 3)
                self.rows[number] = [tokenizer.bos_id, *triples[:, 0].tolist(), tokenizer.eos_id]
                offsets[number] = triples[:, 1], triples[:, 2]
            begins, ends = offsets[number]
            own = np.flatnonzero((begins < end) & (ends > begin))
            if len(own):
                self.first[k], self.last[k] = own[0] + 1, own[-1] + 1
                space = begin - (text[begin - 1] == " ")
                self.whole[k] = begins[own].min() >= space and ends[own].max() == end

    def words(self, excerpts: list[Excerpt], drawn: Drawn, which: np.ndarray, pad_id: int) -> WholeWords:
        numbers = sorted(set(drawn.excerpt[which].tolist()))
        row = {number: i for i, number in enumerate(numbers)}
        batch = padded([self.rows[number] for number in numbers], pad_id)
        kept = drawn.only(which)
        return WholeWords(
            batch.tokens,
            batch.documents,
            np.array([row[number] for number in kept.excerpt.tolist()]),
            self.first[which],
            self.last[which],
            kept.end - kept.begin,
            np.array([excerpts[number].document for number in kept.excerpt.tolist()]),
        )
