"""Words of Chinese text, which has no spaces: where they begin, and vocabularies of words or of characters.

A dictionary of words with frequencies f (jieba's, or your own) is a unigram model: the best segmentation of a stretch of
Chinese has the largest sum of log f - log total over its words. This is what `jieba.cut(HMM=False)` computes. So a
SentencePiece model with these words and scores cuts text in the same way, several times as fast, and does not need jieba. Words
as tokens follow WoBERT (Su Jianlin, 2020): frequent words are tokens, other words are spelt in characters, and other characters
in bytes.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from data.extras import needs
from data.text import lines_of, read_text
from data.tokenizer import SPECIALS, Tokenizer, alphabet, check_vocabulary

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_STRETCH = re.compile(rf"([{HAN}]+)|[^\W_{HAN}]+")  # of Chinese characters, or of other letters and digits
proto: Any = sentencepiece_model_pb2  # whose classes protobuf makes when it is imported
_LEAST_CHINESE = 0.01  # of the characters of a text that words are looked for in
_CODES = (range(0x3400, 0x4DC0), range(0x4E00, 0xA000))

Kind = Literal["subwords", "words", "characters"]
Dictionary = dict[str, int]


def read_dictionary(path: Path | None = None) -> Dictionary:
    """Words and their frequencies, from a file with `word frequency` on each line (what follows is ignored); by default
    jieba's.

    Raises FileNotFoundError, or ValueError: jieba is not installed, or a line is not of this form.
    """
    if path is None:
        needs("jieba", "a dictionary of Chinese words", "requirements-more.txt")
        import jieba

        path = Path(jieba.__file__).parent / "dict.txt"
    found: Dictionary = {}
    for number, line in enumerate(lines_of(read_text(path.expanduser())), 1):
        word, *rest = line.split(" ")
        if not word or not rest or not (rest[0].isascii() and rest[0].isdigit()):
            raise ValueError(
                f"{path}, line {number}: found {line[:40]!r}; expected a word, a space and its frequency, a whole number."
            )
        found[word] = found.get(word, 0) + int(rest[0])
    if not any(re.match(f"[{HAN}]", word) for word in found):
        raise ValueError(f"{path}: no Chinese word in it; expected lines of a word, a space and its frequency.")
    return found


class Segmenter:
    """Cuts text into words by a dictionary. In other scripts a word is a run of letters and digits. A space belongs to what
    follows."""

    def __init__(self, dictionary: Dictionary):
        self.total = sum(dictionary.values())
        scores = dict.fromkeys((chr(code) for codes in _CODES for code in codes), self._score(1))
        scores |= {word: self._score(f) for word, f in dictionary.items() if re.fullmatch(f"[{HAN}]+", word)}
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=unigram(scores, dummy=False))
        self.scores = scores

    def _score(self, frequency: int) -> float:
        return math.log(max(1, frequency)) - math.log(self.total)

    def words(self, text: str, threads: int = 1) -> Iterator[tuple[int, str]]:
        """(position, word) for each word of Chinese or of other letters and digits; punctuation is left out."""
        found = [(match.start(), match[0], bool(match[1])) for match in _STRETCH.finditer(text)]
        cut = iter(
            self._processor.encode([s for _, s, han in found if han], out_type=str, num_threads=threads)
            if any(han for *_, han in found)
            else ()
        )
        for begin, stretch, han in found:
            for word in next(cut) if han else (stretch,):
                yield begin, word
                begin += len(word)

    def starts(self, text: str, threads: int = 1) -> np.ndarray:
        """(characters,) bool: where a word begins. Any character but letters and digits is a word of its own."""
        starts = np.ones(len(text) + 1, bool)
        for begin, word in self.words(text, threads):
            starts[begin + 1 : begin + len(word)] = False
        space = np.array([character == " " for character in text], bool)
        starts[1:][space] = False  # what follows a space continues it, as the pieces of a tokenizer do
        return starts[:-1]


def vocabulary(
    lines: Iterable[str], vocab_size: int, kind: Literal["words", "characters"], segmenter: Segmenter
) -> Tokenizer:
    """A tokenizer of at most `vocab_size` pieces: bytes, the frequent characters of `lines`, and their most frequent words.
    With kind = "words" characters take at most half of the pieces; with kind = "characters" only words of other scripts are
    taken.

    Words are chosen by their frequency in `lines` and scored by their frequency in the dictionary, so that text is cut as by
    the dictionary. Raises ValueError if `lines` hold hardly any Chinese, or the size is too small.
    """
    check_vocabulary(vocab_size)
    lines = list(lines)
    characters = Counter("".join(lines))
    chinese = sum(count for character, count in characters.items() if re.match(f"[{HAN}]", character))
    if chinese < _LEAST_CHINESE * characters.total() or not chinese:
        raise ValueError(
            f"{chinese:,} of {characters.total():,} characters of this text are Chinese; a vocabulary of Chinese {kind} is made "
            "of Chinese text; use --tokenizer-kind subwords."
        )
    room = vocab_size - len(SPECIALS) - 256
    letters = ["▁", *(c for c in alphabet(characters, room if kind == "characters" else room // 2) if c not in " \n▁")]
    words: Counter[str] = Counter()
    for line in lines:
        words.update(word for _, word in segmenter.words(line) if len(word) > 1)
    wanted = (w for w, _ in words.most_common() if kind == "words" or not re.match(f"[{HAN}]", w))
    pieces = [*letters, *islice(wanted, max(0, room - len(letters)))]
    seen = math.log(characters.total())
    own = {p: math.log(max(1, characters[p] if len(p) == 1 else words[p])) - seen for p in pieces}
    return Tokenizer(unigram({p: segmenter.scores.get(p, own[p]) for p in pieces[: max(1, room)]}, dummy=True))


def unigram(scores: dict[str, float], dummy: bool) -> bytes:
    """A unigram model of the specials, the bytes and these pieces. dummy: whether a space is put before a text."""
    model = proto.ModelProto()
    kinds = proto.ModelProto.SentencePiece
    model.pieces.add(piece=SPECIALS[0], type=kinds.CONTROL)
    for number, name in enumerate(SPECIALS[1:], 1):
        model.pieces.add(piece=name, type=kinds.UNKNOWN if number == 4 else kinds.CONTROL)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", type=kinds.BYTE)
    for piece, score in scores.items():
        model.pieces.add(piece=piece, score=score)
    t, n = model.trainer_spec, model.normalizer_spec
    t.model_type, t.byte_fallback, t.vocab_size = proto.TrainerSpec.UNIGRAM, True, len(model.pieces)
    t.pad_id, t.bos_id, t.eos_id, t.unk_id = 0, 1, 2, 4
    t.pad_piece, t.bos_piece, t.eos_piece, t.unk_piece = (SPECIALS[i] for i in (0, 1, 2, 4))
    t.control_symbols.append(SPECIALS[3])
    n.name, n.add_dummy_prefix, n.remove_extra_whitespaces, n.escape_whitespaces = "identity", dummy, False, True
    return model.SerializeToString()


def token_starts(tokenizer: Tokenizer, ids: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(tokens,) bool: which tokens of an encoded text begin at the beginning of a word. starts: the text's `Segmenter.starts`.

    A token that reaches into the next word joins both: the next token begins no word unless one begins there.
    """
    lengths = tokenizer.characters[ids]
    begins = lengths.cumsum() - lengths - 1  # the first space of an encoding stands before the text
    found = np.append(starts, False)[begins.clip(0)] & (lengths > 0)  # the last bytes of a character begin nothing
    found[:1] = True
    return found
