"""From files to documents, in one pass and with bounded memory: .txt, .jsonl, .parquet, the first two also packed.

Text files follow BERT's convention: a blank line separates documents. A row of .jsonl or .parquet is a document.
A document longer than `cut` characters comes as several consecutive parts, cut after a line where there is one.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

SUFFIXES = (".txt", ".jsonl", ".parquet")
PACKED = (".gz", ".zst")

_BLOCK = 1 << 20  # bytes read at a time
_PACKED_BLOCK = 1 << 16  # less for zstd, since one packed block may unfold to many times its size
_WINDOW = 1 << 31  # bytes that zstd may look back: what --long=31 asks for
_LONGEST_LINE = 1 << 25  # characters of one .jsonl row
_BLANK_LINE = re.compile(r"\n\s*\n")


class Part(NamedTuple):
    """A document, or a piece of an over-long one. `first` is true where a document begins."""

    text: str
    first: bool


def kind(path: Path) -> str:
    """The suffix that says how to read `path`, without the packing: "corpus.jsonl.gz" is ".jsonl", "corpus.gz" text.

    Raises ValueError for a suffix that no reader handles.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in PACKED
    if packed:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix in SUFFIXES and not (packed and suffix == ".parquet"):
        return suffix
    if packed and not suffix:
        return ".txt"
    raise ValueError(
        f"{path}: no reader for files ending in {path.suffix or 'nothing'!r}; "
        f"expected {', '.join(SUFFIXES)} (the first two also with {' or '.join(PACKED)})"
    )


def read_parts(path: Path, column: str = "text", cut: int = 1 << 16) -> Iterator[Part]:
    """The documents of one file, stripped of surrounding white space; those with nothing else are left out.

    Raises ValueError, naming the file and the byte or line, for what is not UTF-8, not text, damaged or lacks `column`.
    """
    suffix = kind(path)
    if suffix == ".txt":
        yield from _text_parts(path, cut)
        return
    rows = _jsonl_rows(path, column) if suffix == ".jsonl" else _parquet_rows(path, column)
    for text in rows:
        first = True
        for part in _cut(text, cut):
            if part := part.strip():
                yield Part(part, first)
                first = False


def _text_parts(path: Path, cut: int) -> Iterator[Part]:
    pending, first = "", True  # the document being read, and whether none of it has been given away yet
    for block in _text_blocks(path):
        *ended, pending = _BLANK_LINE.split(pending + block)
        for document in ended:
            for part in _cut(document, cut):
                if part := part.strip():
                    yield Part(part, first)
                    first = False
            first = True
        # Bounded memory: parts of a document that is too long are yielded before its end has been read. White space at the end
        # is kept: with what comes next it may be a blank line. Of a line of spaces a single one says as much.
        body = pending.rstrip()
        space = pending[len(body) :]
        *ready, pending = _cut(body, cut)
        pending += space if len(space) < cut else space[:1] + " " + ("\n" if "\n" in space[1:] else "")
        for part in ready:
            if part := part.strip():
                yield Part(part, first)
                first = False
    if pending := pending.strip():
        yield Part(pending, first)


def _cut(text: str, limit: int) -> list[str]:
    """`text` as consecutive pieces of at most `limit` characters that end with a line where one ends in time."""
    pieces = []
    start = 0
    while len(text) - start > limit:
        end = text.rfind("\n", start, start + limit) + 1 or start + limit
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def _jsonl_rows(path: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line, parse_int=lambda _: 0)  # beside the text, numbers of any length may stand
        except RecursionError:
            raise ValueError(f"{where}: nested too deeply to be read; expected one JSON object a line") from None
        except ValueError as error:
            raise ValueError(f"{where}: not JSON ({error}); expected one JSON object a line") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: found a JSON {type(row).__name__}, expected an object with the text in a field")
        yield _checked(row.get(column), column, row, where)


def _parquet_rows(path: Path, column: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise ValueError(_missing(column, names, str(path)))
            if names.count(column) > 1:
                raise ValueError(
                    f"{path}: {names.count(column)} columns are named {column!r}, expected one; rename them"
                )
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=[column]):
                for value in batch.column(0):
                    row += 1
                    text = _python(value, f"{path}, row {row}")
                    yield _checked(text, column, {column: text}, f"{path}, row {row}")
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable parquet file, or damaged ({reason}); fetch it again") from error


def _python(value: Any, where: str) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error.reason}); write the column again as text") from None


def _checked(text: object, column: str, row: dict, where: str) -> str:
    if column not in row:
        raise ValueError(_missing(column, row, where))
    if not isinstance(text, str):
        raise ValueError(f"{where}: column {column!r} holds {type(text).__name__}, expected text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise ValueError(f"{where}: not valid Unicode (character {error.start:,}: {error.reason})") from None
    return text


def _missing(column: str, names: Iterable[str], where: str) -> str:
    found = ", ".join(repr(name) for name in names) or "none"
    return f"{where}: no column {column!r}; found {found}; name the one with the text with --column"


def _lines(path: Path) -> Iterator[str]:
    pending = ""
    for block in _text_blocks(path):
        *lines, pending = (pending + block).split("\n")
        yield from lines
        if len(pending) > _LONGEST_LINE:
            raise ValueError(f"{path}: a line exceeds {_LONGEST_LINE:,} characters; expected one JSON object a line")
    if pending:
        yield pending


def _text_blocks(path: Path) -> Iterator[str]:
    """The file as text with "\\n" line ends. Raises ValueError with the byte offset for bytes that are not UTF-8 text."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    offset = 0  # bytes read before this block
    held = ""  # a final "\r", until it is known whether a "\n" follows
    advice = "expected UTF-8 text; convert it with iconv or name another file"
    for block in _then_end(_byte_blocks(path)):
        if offset == 0 and block[:2] in (b"\xff\xfe", b"\xfe\xff"):
            wide = "UTF-32" if block[2:4] == b"\0\0" else "UTF-16"
            raise ValueError(f"{path}: {wide} (byte offset 0); {advice}")
        if (nul := block.find(b"\0")) >= 0:
            raise ValueError(f"{path}: binary data (a zero byte at byte offset {offset + nul:,}); {advice}")
        try:
            text = held + decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # error.object is what the decoder had kept of earlier blocks followed by this block.
            position = offset + len(block) - len(error.object) + error.start
            raise ValueError(f"{path}: not UTF-8 (byte offset {position:,}: {error.reason}); {advice}") from None
        offset += len(block)
        held = "\r" if text.endswith("\r") and block else ""
        text = text[: len(text) - len(held)]
        yield text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _then_end(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks that hold something, then an empty one."""
    yield from filter(None, blocks)
    yield b""


def _byte_blocks(path: Path) -> Iterator[bytes]:
    packing = path.suffix.lower()
    try:
        if packing == ".gz":
            with gzip.open(path) as file:
                yield from iter(lambda: file.read(_BLOCK), b"")
        elif packing == ".zst":
            yield from _zstd_blocks(path)
        else:
            with open(path, "rb") as file:
                yield from iter(lambda: file.read(_BLOCK), b"")
    except EOFError as error:
        raise ValueError(f"{path}: truncated ({error}); fetch it again") from None
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise ValueError(f"{path}: not {packing}, or damaged ({error}); unpack it to see, or fetch it again") from None


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    """Frame by frame: zstandard's own stream reader takes a truncated frame for the end of the file."""
    frame = None
    with open(path, "rb") as file:
        while block := file.read(_PACKED_BLOCK):
            while block:
                frame = frame or zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
                yield frame.decompress(block)
                block, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise EOFError("the file ends in the middle of a frame")
