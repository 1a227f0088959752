"""Text that somebody else wrote: lines, encodings, JSON."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.text import decoded, lines_of, parsed, read_lines, read_text


def test_lines_end_where_they_end() -> None:
    text = "a\u2028b\n\x0cc\x85\r\n\nd\re"
    assert lines_of(text) == ["a\u2028b", "\x0cc\x85", "", "d\re"]
    assert lines_of("") == [] and lines_of("a\n") == ["a"] and lines_of("\n\n") == ["", ""]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))))
def test_what_was_written_line_by_line_comes_back(lines: list[str]) -> None:
    assert lines_of("".join(line + "\n" for line in lines)) == lines
    assert lines_of("".join(line + "\r\n" for line in lines)) == lines


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    assert read_lines(path) == ["one", "two"]
    path.write_bytes("one\ncafé\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"a\.txt, line 2: not UTF-8 \(byte 0xe9, .*\); expected UTF-8; convert it with iconv"
    ):
        read_text(path)
    with pytest.raises(ValueError, match="line 1: UTF-16"):
        decoded("a".encode("utf-16"), "x")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_lines(tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": NaN}', "NaN is not a number"),
        ("[Infinity]", "Infinity is not a number"),
        ('{"a": "\\ud83d"}', r"half a character \(\\ud83d\)"),
        ('{"a": 1, "a": 2}', "'a' stands twice in one object"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_cannot_be_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^f, line 3: .*{sentence}"):
        parsed(text, "f, line 3")
    assert parsed('{"a": "\\ud83d\\udc3b"}', "f") == {"a": "🐻"}
