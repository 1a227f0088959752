import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data import readers
from data.readers import Part, kind, read_parts

Write = Callable[..., Path]


def texts(path: Path, **options: object) -> list[str]:
    return [part.text for part in read_parts(path, **options)]


def test_a_blank_line_separates_documents(write: Write) -> None:
    path = write("a.txt", "\n\none\nstill one\n\n  \n\t\ntwo  \r\n\r\nthree\rstill three\n")
    assert texts(path) == ["one\nstill one", "two", "three\nstill three"]


def test_without_a_blank_line_the_file_is_one_document(write: Write) -> None:
    assert texts(write("a.txt", "one\ntwo\nthree")) == ["one\ntwo\nthree"]


@given(
    documents=st.lists(st.text("ab é汉\n", min_size=1, max_size=60), max_size=8),
    block=st.integers(1, 40),
    cut=st.integers(3, 50),
)
def test_no_character_is_lost_whatever_the_blocks(
    documents: list[str], block: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut or not, read in one piece or byte by byte: all that is not white space comes out, in order, in documents."""
    path = tmp_path_factory.mktemp("t") / "a.txt"
    path.write_text("\n\n".join(documents), newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK", block)
        parts = list(read_parts(path, cut=cut))
    expected = ["".join(piece.split()) for piece in readers._BLANK_LINE.split("\n\n".join(documents))]
    found: list[str] = []
    for part in parts:
        assert 0 < len(part.text) <= cut and part.text == part.text.strip()
        found.append("") if part.first else None
        found[-1] += "".join(part.text.split())
    assert found == [text for text in expected if text]


def test_over_long_documents_are_cut_after_lines_or_hard(write: Write) -> None:
    path = write("a.txt", "aaaa\nbbb\nccc\ndddddddddddd\n\ne")
    assert list(read_parts(path, cut=10)) == [
        Part("aaaa\nbbb", True),
        Part("ccc", False),
        Part("dddddddddd", False),
        Part("dd", False),
        Part("e", True),
    ]


def test_line_ends_do_not_depend_on_the_blocks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("a.txt", "one\r\ntwo\rthree\r\n\r\nfour\r")
    for block in range(1, 12):
        monkeypatch.setattr(readers, "_BLOCK", block)
        assert texts(path) == ["one\ntwo\nthree", "four"]


def test_memory_is_bounded_by_the_cut_not_by_the_file(write: Write) -> None:
    path = write("a.txt", "word " * 1_000_000)
    assert max(map(len, texts(path))) <= 1 << 16 and sum(map(len, texts(path))) > 4_900_000


def test_a_byte_order_mark_is_no_text(write: Write) -> None:
    assert texts(write("a.txt", b"\xef\xbb\xbfone")) == ["one"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gz", "zst"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_packed_files_read_like_plain_ones(write: Write, pack: Callable, name: str) -> None:
    content = ("one 一\n\ntwo" if name == "a.txt" else '{"text": "one 一"}\n\n{"text": "two"}').encode()
    suffix = ".gz" if pack is gzip.compress else ".zst"
    path = write(name + suffix, pack(content[:8]) + pack(content[8:]))  # two members: both formats allow that
    assert texts(path) == texts(write(name, content)) == ["one 一", "two"]


def test_jsonl_and_parquet_take_the_column_asked_for(write: Write, tmp_path: Path) -> None:
    rows = [{"text": "one\n\nstill one", "other": "x"}, {"text": "two", "other": "y"}]
    jsonl = write("a.jsonl", "\n".join(map(json.dumps, rows)))
    parquet = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    for path in (jsonl, parquet):
        assert texts(path) == ["one\n\nstill one", "two"]
        assert texts(path, column="other") == ["x", "y"]


def test_kinds() -> None:
    assert [kind(Path(name)) for name in ("a.TXT", "a.b.jsonl.gz", "a.gz", "v1.2/a.zst")] == [
        ".txt",
        ".jsonl",
        ".txt",
        ".txt",
    ]
    for name in ("a.pdf", "a", "a.pdf.gz", "a.parquet.gz"):
        with pytest.raises(ValueError, match=r"no reader for files ending in .*expected \.txt, \.jsonl, \.parquet"):
            kind(Path(name))


BAD = {
    "latin1.txt": (b"caf\xe9 au lait", r"latin1.txt: not UTF-8 \(byte offset 3: invalid continuation byte\)"),
    "late.txt": (b"a" * 1_500_000 + b"\xff", r"not UTF-8 \(byte offset 1,500,000"),
    "half.txt": ("一二".encode()[:-1], r"not UTF-8 \(byte offset 3: unexpected end of data\)"),
    "binary.txt": (b"PK\x03\x04text\0text", r"binary.txt: binary data \(a zero byte at byte offset 8\)"),
    "wide.txt": ("text".encode("utf-16"), r"wide.txt: UTF-16"),
    "a.jsonl": (b'{"text": "a"}\n\n{"body": "b", "id": 3}', r"a.jsonl, line 3: no column 'text'; found 'body', 'id'"),
    "b.jsonl": (b'{"text": "a"}\n{"text": ', r"b.jsonl, line 2: not JSON"),
    "c.jsonl": (b'{"text": 5}', r"c.jsonl, line 1: column 'text' holds int, expected text"),
    "f.jsonl": (b'{"text": "a"}\n{"text": "b", "x": ' + b"[" * 9**6, r"f.jsonl, line 2: nested too deeply"),
    "u32.txt": ("text".encode("utf-32"), r"u32.txt: UTF-32"),
    "d.jsonl": (b"[1]", r"d.jsonl, line 1: found a JSON list, expected an object"),
    "e.jsonl": (rb'{"text": "a\ud800"}', r"e.jsonl, line 1: not valid Unicode \(character 1"),
    "a.txt.gz": (gzip.compress(b"text" * 1000)[:-9], r"a.txt.gz: truncated"),
    "b.txt.gz": (b"text", r"b.txt.gz: not .gz, or damaged \(Not a gzipped file"),
    "a.txt.zst": (zstandard.compress(b"text" * 1000)[:-3], r"a.txt.zst: truncated \(.*middle of a frame"),
    "b.txt.zst": (b"text", r"b.txt.zst: not .zst, or damaged"),
    "a.parquet": (b"text" * 10, r"a.parquet: not a readable parquet file, or damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_sentence(write: Write, name: str) -> None:
    content, message = BAD[name]
    with pytest.raises(ValueError, match=message) as caught:
        texts(write(name, content))
    assert "\n" not in str(caught.value)


def test_offsets_do_not_depend_on_the_blocks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A character split between two blocks is neither an error nor does it shift the offset of one."""
    path = write("a.txt", "一二三".encode() + b"\xe4\xb8x")
    for block in range(1, 13):
        monkeypatch.setattr(readers, "_BLOCK", block)
        with pytest.raises(ValueError, match=r"byte offset 9: "):
            texts(path)


def test_parquet_without_the_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"], "n": [1]}), path)
    with pytest.raises(ValueError, match=r"no column 'text'; found 'body', 'n'; name the one with the text"):
        texts(path)
    with pytest.raises(ValueError, match=r"a.parquet, row 1: column 'n' holds int, expected text"):
        texts(path, column="n")


def test_what_stands_beside_the_text_may_be_anything(write: Write) -> None:
    path = write("beside.jsonl", b'{"text": "a", "id": ' + b"7" * 5000 + b', "x": NaN}')
    assert [part.text for part in read_parts(path)] == ["a"]


def test_zstd_may_look_back_two_gigabytes(write: Write) -> None:
    options = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=options).compressobj()
    path = write("long.txt.zst", packer.compress(b"one\n\ntwo") + packer.flush())
    assert [part.text for part in read_parts(path)] == ["one", "two"]


@pytest.mark.parametrize("blank", ["\n\n", "\n" + " " * 20 + "\n", "\n \t\n", "\n" * 3])
@pytest.mark.parametrize("offset", [-21, -20, -3, -2, -1, 0, 1])
def test_where_a_block_ends_decides_nothing(write: Write, offset: int, blank: str) -> None:
    """A blank line across the end of a block, of 2**20 bytes or of 2**16 for zstd, separates documents all the same."""
    for block in (1 << 16, 1 << 20):
        lines = ("x" * 999 + "\n") * (block // 1000 + 1)
        text = lines[: block + offset].rstrip("\n") + blank + "two" + blank + "three"
        counts = {
            sum(part.first for part in read_parts(write(name, data)))
            for name, data in (
                ("a.txt", text.encode()),
                ("a.txt.gz", gzip.compress(text.encode())),
                ("a.txt.zst", zstandard.compress(text.encode())),
            )
        }
        assert counts == {3}
