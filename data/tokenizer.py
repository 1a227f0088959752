"""SentencePiece with bytes to fall back on: every text has an encoding and, U+2581 aside, decodes to itself.

Text is not normalised: no case folding and no NFKC, which would turn Chinese punctuation into ASCII's.
"""

import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from data.vocabulary import Vocabulary

SPECIALS = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[UNK]")  # ids 0 to 4
_SMALLEST = len(SPECIALS) + 256 + 64  # the bytes, and an alphabet
_MASK_NAMES = ("[MASK]", "<mask>", "<MASK>")

_SAMPLE = 8_000_000  # bytes to train on: seconds, and more changes the vocabulary little
_LINE = 1_000  # characters; longer lines are trained on in pieces
_COVERAGE = 0.9999  # of the characters of the sample; rarer ones are spelt in bytes
_LEAST_COVERAGE = 0.98  # what SentencePiece accepts
_THREADS = 4  # fixed, since the number of threads decides the order of summation and so the vocabulary


class Tokenizer:
    """Text to token ids and back. Specials never come out of `encode`, whatever the text spells."""

    def __init__(self, model: bytes, name: str = "the tokenizer"):
        """`model`: the content of a SentencePiece .model file. Raises ValueError for one that lacks the specials."""
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            masks = [self._processor.piece_to_id(piece) for piece in _MASK_NAMES]
            mask_id = next((mask for mask in masks if self._processor.is_control(mask)), -1)
        except (RuntimeError, IndexError):  # IndexError: of an empty or a shortened file, which loads
            raise ValueError(f"{name}: not a SentencePiece model; expected the .model file of spm_train") from None
        self.model = model
        self.vocabulary = Vocabulary(
            size=self._processor.vocab_size(),
            pad_id=self._processor.pad_id(),
            bos_id=self._processor.bos_id(),
            eos_id=self._processor.eos_id(),
            mask_id=mask_id,
            unk_id=self._processor.unk_id(),
        )
        names = [special for special, number in zip(SPECIALS, self.vocabulary.special_ids) if number < 0]
        if names:
            raise ValueError(
                f"{name}: lacks {', '.join(names)}; train it with --pad_id, --bos_id, --eos_id, --unk_id of 0 or more "
                f"and --control_symbols={_MASK_NAMES[0]}"
            )

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """From a .model file. Raises FileNotFoundError or ValueError."""
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such tokenizer; expected a SentencePiece .model file")
        return cls(path.read_bytes(), str(path))

    @classmethod
    def train(cls, lines: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A unigram model (it encodes five times as fast as BPE, and as short) of exactly `vocab_size` pieces.

        `lines` should come from `sample_lines`, since all of them are held in memory.

        Raises ValueError when the text does not support that many pieces.
        """
        lines = [line[start : start + _LINE] for line in lines for start in range(0, len(line), _LINE)]
        check_vocabulary(vocab_size)
        if not any(line.strip() for line in lines):
            raise ValueError("there is no text to train a tokenizer on; expected at least some lines of it")
        model = io.BytesIO()
        specials: dict[str, Any] = {f"{name}_piece": f"[{name.upper()}]" for name in ("pad", "bos", "eos", "unk")}
        specials |= {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 4}
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type="unigram",
                # SentencePiece's own default of 10**6 takes twice as long on Chinese and ends no better.
                seed_sentencepiece_size=max(100_000, 12 * vocab_size),
                vocab_size=vocab_size,
                character_coverage=_coverage(lines, vocab_size),
                byte_fallback=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                max_sentence_length=8 * _LINE,  # bytes
                num_threads=_THREADS,
                minloglevel=3,
                **specials,
                control_symbols=[SPECIALS[3]],  # takes the lowest free id: 3
            )
        except RuntimeError as error:
            raise ValueError(_explanation(str(error), vocab_size, sum(map(len, lines)))) from None
        return cls(model.getvalue())

    def save(self, path: Path) -> None:
        path.write_bytes(self.model)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without BOS and EOS."""
        return self._processor.encode(text)

    def encode_batch(self, texts: list[str], threads: int = 1) -> list[list[int]]:
        return self._processor.encode(texts, num_threads=threads)

    def encode_inside(self, text: str) -> list[int]:
        """Ids of `text` inside a sentence: no space is put before it, as `encode` does at a beginning."""
        start = self._processor.encode("\n")  # no piece reaches beyond a line
        return self._processor.encode("\n" + text)[len(start) :]

    def encode_after_space(self, text: str) -> list[int]:
        """Ids of `text` where a space stands before it, as `encode` takes every beginning."""
        return self.encode(text)

    def starts_of(self, texts: list[str]) -> list[np.ndarray]:
        """For each text: which of its tokens begin a word, words being separated by spaces."""
        found = [self.starts_word[np.array(ids, dtype=np.int64)] for ids in self.encode_batch(texts)]
        for starts in found:
            starts[:1] = True
        return found

    def encode_with_offsets(self, text: str) -> list[tuple[int, int, int]]:
        """(id, begin, end) of each token: it stands for text[begin:end]. The bytes of a character all stand for it; the
        space that is put before a text stands for nothing, text[0:0]."""
        pieces = list(self._processor.encode(text, return_type="proto").pieces)
        character = []  # of each byte of the text, and of its end
        for number, letter in enumerate(text):
            character += [number] * len(letter.encode())
        character.append(len(text))
        found, after = [], (0, 0)
        for piece in reversed(pieces):
            byte = piece.piece.startswith("<0x")  # all but the last byte of a character stand for nothing in the text
            after = after if byte and piece.begin == piece.end == after[0] else (piece.begin, piece.end)
            found.append((piece.id, character[after[0]], character[after[1]]))
        return found[::-1]

    def encode_documents(self, texts: list[str], threads: int = 1) -> list[np.ndarray]:
        """For each text BOS, its ids, EOS, as int32."""
        return self._processor.encode(texts, return_type="numpy", add_bos=True, add_eos=True, num_threads=threads)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; specials are left out."""
        return self._processor.decode([int(i) for i in ids])

    def text_of(self, ids: list[int]) -> str:
        """The text of `ids` inside a sentence: unlike `decode`, a space at its beginning stays."""
        text = self.decode(ids)
        return " " + text if ids and self.pieces(ids[:1])[0].startswith("▁") and not text.startswith(" ") else text

    @cached_property
    def starts_word(self) -> np.ndarray:
        """(V,) bool: pieces that begin with a space, or are white space."""
        return np.array([piece.startswith(("▁", "<0x0A>", "<0x09>")) for piece in self.pieces(range(self.vocab_size))])

    @cached_property
    def characters(self) -> np.ndarray:
        """(V,) int64: how many characters of a text each piece stands for; of the bytes of a character the first does."""
        of_pieces = [
            (0 if int(piece[3:5], 16) & 0xC0 == 0x80 else 1) if self._processor.is_byte(number) else len(piece)
            for number, piece in enumerate(self.pieces(range(self.vocab_size)))
        ]
        counts = np.array(of_pieces)
        counts[list(self.special_ids)] = 0
        return counts

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """What each id stands for, "▁" for a space: for showing, not for decoding."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    @cached_property
    def hash(self) -> str:
        """sha256 of the model: two tokenizers with equal hashes encode alike."""
        return hashlib.sha256(self.model).hexdigest()

    @property
    def vocab_size(self) -> int:
        return self.vocabulary.size

    @property
    def pad_id(self) -> int:
        return self.vocabulary.pad_id

    @property
    def bos_id(self) -> int:
        return self.vocabulary.bos_id

    @property
    def eos_id(self) -> int:
        return self.vocabulary.eos_id

    @property
    def mask_id(self) -> int:
        return self.vocabulary.mask_id

    @property
    def unk_id(self) -> int:
        return self.vocabulary.unk_id

    @property
    def special_ids(self) -> tuple[int, ...]:
        return self.vocabulary.special_ids


def check_vocabulary(vocab_size: int) -> None:
    """Raises ValueError for a vocabulary that is too small to spell."""
    if vocab_size < _SMALLEST:
        raise ValueError(
            f"a vocabulary of {vocab_size} is too small: {len(SPECIALS)} specials and 256 bytes are in it, "
            f"take {_SMALLEST} or more"
        )


def sample_lines(documents: Iterable[str], size: int) -> Iterator[str]:
    """About _SAMPLE bytes of lines, drawn from `documents`, which hold `size` bytes in all.

    A line is taken or not by a hash of its text: the same text gives the same sample, and memory stays bounded.
    """
    share = int(min(1.0, _SAMPLE / max(size, 1)) * 2**32)
    for document in documents:
        for line in document.split("\n"):
            for start in range(0, len(line), _LINE):
                piece = line[start : start + _LINE]
                if zlib.crc32(piece.encode()) < share:
                    yield piece


def alphabet(counts: Counter, room: int) -> list[str]:
    """The most frequent characters: _COVERAGE of the text, or less where these (Chinese has thousands) would not have room."""
    wanted, found = _COVERAGE * counts.total(), []
    for character, count in counts.most_common(room):
        if wanted <= 0:
            break
        found.append(character)
        wanted -= count
    return found


def _coverage(lines: list[str], vocab_size: int) -> float:
    """The share of the lines' characters that the characters of half a vocabulary cover."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    frequent = [count for _, count in counts.most_common((vocab_size - len(SPECIALS) - 256) // 2)]
    return min(_COVERAGE, max(_LEAST_COVERAGE, sum(frequent) / counts.total()))


def _explanation(error: str, vocab_size: int, characters: int) -> str:
    """What SentencePiece's C++ error says to the user."""
    if needed := re.search(r"smaller than required_chars. \d+ vs (\d+)", error):
        return (
            f"a vocabulary of {vocab_size} is too small for the alphabet of this corpus: {_LEAST_COVERAGE:.0%} of its "
            f"characters, the bytes and the specials are {needed[1]} pieces; take a larger vocabulary"
        )
    limit = re.search(r"value <= (\d+)", error)
    found = f"supports at most {limit[1]} pieces" if limit else "is too small or too uniform"
    return (
        f"a vocabulary of {vocab_size} is too large for this corpus: its training text ({characters:,} characters) "
        f"{found}; take a smaller vocabulary or a larger corpus"
    )
