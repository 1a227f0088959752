"""Encoded text on disk: documents as BOS tokens EOS, one after the other, in memory-mapped files.

A split (train, valid) is a folder of shards 00000.shard, 00001.shard, ... Layout of a shard, little-endian:
    4096 bytes      header: a line of magic, then JSON (ShardHeader), padded with spaces
    tokens          uint16, or uint32 for a vocabulary of more than 65,536
    padding         to a multiple of 8 bytes
    boundaries      uint64 for each part: the position after its last token, counted from the start of the shard
    firsts          a byte for each part: 1 where it is the first of its document
    word starts     a bit for each token, where words were looked for in the text (data/chinese.py): 1 where one begins
A part is a document, or up to 2**16 characters of a long one, with BOS and EOS of its own. Parts do not cross shards, so that
memory and boundaries stay small however large the corpus is. All behind the header has its digest there.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary

_MAGIC = b"twostream shard 2\n"
_HEADER = 4096  # bytes
_SHARD = 1 << 26  # tokens after which the next shard begins


@dataclass(frozen=True)
class ShardHeader:
    """`last` marks the final shard of its folder; `characters` are those of the text, before encoding; `documents` begin in it,
    `parts` lie in it; `sha256` is that of what follows the header."""

    index: int
    last: bool
    dtype: str
    tokens: int
    documents: int
    parts: int
    characters: int
    tokenizer: str
    vocabulary: Vocabulary
    sha256: str = ""
    word_starts: bool = False

    @property
    def boundaries_at(self) -> int:
        """Bytes before the boundaries."""
        return _HEADER + -(-self.tokens * np.dtype(self.dtype).itemsize // 8) * 8

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.word_starts_at + (-(-self.tokens // 8) if self.word_starts else 0)

    @property
    def word_starts_at(self) -> int:
        """Bytes before the word starts."""
        return self.boundaries_at + 9 * self.parts

    def to_bytes(self) -> bytes:
        return (_MAGIC + json.dumps(asdict(self)).encode()).ljust(_HEADER)

    @classmethod
    def read(cls, path: Path) -> "ShardHeader":
        """Raises ValueError for a file that is not a shard, or not a complete one."""
        advice = f"delete the folder {path.parent.parent} and run again"
        with open(path, "rb") as file:
            header = file.read(_HEADER)
        if not header.startswith(_MAGIC):
            raise ValueError(f"{path}: not a shard of this version of twostream; {advice}")
        try:
            fields = json.loads(header.removeprefix(_MAGIC))
            found = cls(**fields | {"vocabulary": Vocabulary(**fields["vocabulary"])})
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}: the header of this shard is damaged; {advice}") from None
        if (size := path.stat().st_size) != found.size:
            raise ValueError(f"{path}: truncated, found {size:,} bytes, expected {found.size:,}; {advice}")
        if _digest(path) != found.sha256:
            raise ValueError(f"{path}: damaged, its bytes are not those that were written; {advice}")
        return found


def _digest(path: Path) -> str:
    """sha256 of what follows the header."""
    with open(path, "rb") as file:
        file.seek(_HEADER)
        return hashlib.file_digest(file, "sha256").hexdigest()


class Shards:
    """The shards of a folder as one endless cycle of tokens.

    tokens, documents, characters: totals. tokens counts BOS and EOS.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer | None = None):
        """Raises FileNotFoundError or ValueError for missing, foreign, damaged or truncated shards, or those of another
        tokenizer than `tokenizer`."""
        paths = sorted(folder.glob("*.shard"))
        if not paths:
            raise FileNotFoundError(f"{folder}: no shards here; run again to encode the corpus")
        self.folder = folder
        self._headers = [ShardHeader.read(path) for path in paths]
        numbers = [header.index for header in self._headers]
        if numbers != list(range(len(paths))) or not self._headers[-1].last:
            raise ValueError(f"{folder}: shards are missing, found {numbers}; delete {folder.parent} and run again")
        self.vocabulary = self._headers[0].vocabulary
        self.tokenizer_hash = self._headers[0].tokenizer
        if tokenizer and {header.tokenizer for header in self._headers} != {tokenizer.hash}:
            raise ValueError(
                f"{folder}: encoded with another tokenizer (sha256 {self.tokenizer_hash[:12]}, expected "
                f"{tokenizer.hash[:12]}); delete {folder.parent} and run again"
            )
        self.tokens = sum(header.tokens for header in self._headers)
        self.documents = sum(header.documents for header in self._headers)
        self.characters = sum(header.characters for header in self._headers)
        if not self.documents:
            raise ValueError(f"{folder}: not a single document; name a corpus that has text")
        self._first_tokens = np.cumsum([0] + [header.tokens for header in self._headers]).tolist()
        self._maps = [  # as plain arrays, whose slices cost a third of a memmap's
            np.asarray(np.memmap(path, header.dtype, "r", offset=_HEADER, shape=(header.tokens,)))
            for path, header in zip(paths, self._headers)
        ]
        self._boundaries, self._firsts = (
            [
                np.memmap(path, kind, "r", offset=header.boundaries_at + behind * header.parts, shape=(header.parts,))
                for path, header in zip(paths, self._headers)
            ]
            for kind, behind in ((np.uint64, 0), (np.uint8, 8))
        )
        self._bits = [
            np.memmap(path, np.uint8, "r", offset=header.word_starts_at, shape=(-(-header.tokens // 8),))
            for path, header in zip(paths, self._headers)
            if header.word_starts
        ]

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """(B,) positions -> (B, length) int64, the tokens from each position on; after the last token comes the first."""
        return self._gathered(starts, length, np.int64, lambda shard, begin, end: self._maps[shard][begin:end])

    def word_starts(self, starts: np.ndarray, length: int) -> np.ndarray | None:
        """(B, length) bool: which of these tokens begin a word; None where words stand between spaces, as the tokens say."""
        return self._gathered(starts, length, bool, self._word_starts) if self._bits else None

    def _word_starts(self, shard: int, begin: int, end: int) -> np.ndarray:
        end = min(end, self._headers[shard].tokens)
        bits = np.unpackbits(self._bits[shard][begin // 8 : -(-end // 8)], bitorder="little")
        return bits[begin % 8 :][: end - begin]

    def _gathered(
        self, starts: np.ndarray, length: int, dtype: type, read: Callable[[int, int, int], np.ndarray]
    ) -> np.ndarray:
        """read: gives the content of a shard from one position to another, as far as the shard goes."""
        starts = starts % self.tokens
        windows: np.ndarray = np.empty((len(starts), length), dtype)
        shards = np.searchsorted(self._first_tokens, starts, side="right") - 1
        for window, start, shard in zip(windows, starts.tolist(), shards.tolist()):
            offset, filled = start - self._first_tokens[shard], 0
            while filled < length:
                piece = read(shard, offset, offset + length - filled)
                window[filled : filled + len(piece)] = piece
                filled += len(piece)
                shard, offset = (shard + 1) % len(self._maps), 0
        return windows

    @cached_property
    def _part_ends(self) -> np.ndarray:
        """(parts,) int64: the position after each part's last token, counted through all shards."""
        pieces = [np.asarray(ends, np.int64) + first for ends, first in zip(self._boundaries, self._first_tokens)]
        return np.concatenate(pieces)

    @cached_property
    def _ends(self) -> np.ndarray:
        """(documents,) int64: the position after each document's last token."""
        begins = np.flatnonzero(np.concatenate(self._firsts))
        return self._part_ends[np.append(begins[1:], len(self._part_ends)) - 1]

    def middle(self) -> tuple[int, bool]:
        """Where the stream is cut in two halves, and whether that is between two documents.

        The end of a document nearest to the middle, if neither half then has more than twice the tokens of the other; else a
        long document is cut, at the end of a part if that does as well, or else in its middle.
        """
        for ends in (self._ends[:-1], self._part_ends[:-1]):
            if len(ends):
                nearest = int(ends[np.abs(ends - self.tokens / 2).argmin()])
                if max(nearest, self.tokens - nearest) <= 2 * min(nearest, self.tokens - nearest):
                    return nearest, bool(nearest in self._ends)
        return self.tokens // 2, False

    def document_of(self, positions: np.ndarray) -> np.ndarray:
        """The number of the document that holds each position of the stream."""
        return np.searchsorted(self._ends, positions, side="right")

    def document(self, index: int) -> np.ndarray:
        """Tokens of a document, all its parts, each with BOS and EOS."""
        if not 0 <= index < self.documents:
            raise IndexError(f"document {index} of {self.documents}")
        begin = int(self._ends[index - 1]) if index else 0
        return self.windows(np.array([begin]), int(self._ends[index]) - begin)[0]

    def part(self, index: int) -> np.ndarray:
        """Tokens of a part, BOS and EOS included."""
        for tokens, boundaries in zip(self._maps, self._boundaries):
            if index < len(boundaries):
                return np.asarray(tokens[int(boundaries[index - 1]) if index else 0 : int(boundaries[index])])
            index -= len(boundaries)
        raise IndexError(f"part {index} of {sum(map(len, self._boundaries))}")


class ShardWriter:
    """Writes documents into shards in `folder`; a context manager, which completes the last shard when left."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, word_starts: bool = False):
        """word_starts: they will be given with each text."""
        folder.mkdir(parents=True)
        dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
        self._folder = folder
        self._fresh = ShardHeader(
            0, False, dtype, 0, 0, 0, 0, tokenizer.hash, tokenizer.vocabulary, word_starts=word_starts
        )
        self._header = self._fresh
        self._begin(self._fresh)

    def write(
        self, parts: list[np.ndarray], firsts: list[bool], characters: int, word_starts: Sequence[np.ndarray] = ()
    ) -> None:
        """Append parts of documents that came from a text of so many characters; firsts: which of them begin one; word_starts:
        bool, of the tokens of each part."""
        if self._header.tokens >= _SHARD:
            self._complete(last=False)
            self._begin(replace(self._fresh, index=self._header.index + 1))
        self._write(np.concatenate(parts).astype(self._header.dtype).tobytes())
        ends = self._header.tokens + np.cumsum([len(part) for part in parts])
        self._ends.append(ends.astype(np.uint64))
        self._firsts.append(np.array(firsts, np.uint8))
        self._starts += word_starts
        self._header = replace(
            self._header,
            tokens=int(ends[-1]),
            documents=self._header.documents + sum(firsts),
            parts=self._header.parts + len(parts),
            characters=self._header.characters + characters,
        )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._complete(last=True)
        else:
            self._file.close()

    def _begin(self, header: ShardHeader) -> None:
        self._header = header
        self._ends: list[np.ndarray] = []
        self._firsts: list[np.ndarray] = []
        self._starts: list[np.ndarray] = []
        self._hash = hashlib.sha256()
        self._file = open(self._folder / f"{header.index:05d}.shard", "wb")  # noqa: SIM115 (closed in _complete)
        self._file.write(b"".ljust(_HEADER))

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)

    def _complete(self, last: bool) -> None:
        with self._file as file:
            self._write(b"\0" * (self._header.boundaries_at - file.tell()))
            self._write(np.concatenate([*self._ends, np.empty(0, np.uint64)]).tobytes())
            self._write(np.concatenate([*self._firsts, np.empty(0, np.uint8)]).tobytes())
            self._write(np.packbits(np.concatenate([*self._starts, np.empty(0, bool)]), bitorder="little").tobytes())
            self._header = replace(self._header, last=last, sha256=self._hash.hexdigest())
            file.seek(0)
            file.write(self._header.to_bytes())
