"""The one way in which other people's text is read: bytes to lines, and lines to JSON.

Lines end with \\n or \\r\\n and with nothing else: a line separator of Unicode, a form feed or a lone \\r inside a line is text.
A byte order mark at the beginning is dropped. Bytes that are not UTF-8, half of a UTF-16 pair, and NaN and Infinity are refused
with a sentence that names the file and the line.
"""

import json
from pathlib import Path
from typing import Any

CONVERT = "expected UTF-8; convert it with iconv"


def decoded(content: bytes, name: str) -> str:
    """The text of `content`, without a byte order mark. Raises ValueError that names `name` and the line."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{name}, line 1: UTF-16 or UTF-32; {CONVERT}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = content[error.start]
        raise ValueError(f"{name}, line {line}: not UTF-8 (byte 0x{found:02x}, {error.reason}); {CONVERT}.") from None


def lines_of(text: str) -> list[str]:
    """The lines of a text without their ends. A line end at the end of the text does not begin another line."""
    found = text.split("\n")
    if not found[-1]:
        found.pop()
    return [line.removesuffix("\r") for line in found]


def read_text(path: Path) -> str:
    """Raises FileNotFoundError, or ValueError that names file and line."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; give a text file.")
    return decoded(path.read_bytes(), str(path))


def read_lines(path: Path) -> list[str]:
    """As `read_text`, line by line."""
    return lines_of(read_text(path))


def parsed(text: str, where: str, *, file_names: bool = False) -> Any:
    """A JSON value. Raises ValueError, which begins with `where`, for anything else, and for half of a UTF-16 pair, NaN or
    Infinity in it.

    file_names: it may hold names of files, which need not be text: Python writes their odd bytes as halves of characters.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
            raise ValueError(f"{twice!r} stands twice in one object")
        return found

    try:
        found = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error}).") from None
    if not file_names and ("\\u" in text or not text.isascii()):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise ValueError(
                f"{where}: half a character (\\u{ord(half):04x}), as a text cut in UTF-16 leaves it; expected whole characters."
            ) from None
    return found
