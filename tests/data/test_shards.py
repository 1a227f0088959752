import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import encode as encoding
from data import shards as module
from data.encode import encode
from data.holdout import SidedPart
from data.prepare import PreparedCorpus
from data.shards import Shards, ShardWriter
from data.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer, documents: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """300 documents in several small shards."""
    monkeypatch.setattr(module, "_SHARD", 3_000)
    monkeypatch.setattr(encoding, "_GROUP", 2_000)
    encode(
        [SidedPart(text, False, True) for text in documents[:300]],
        tokenizer,
        {False: tmp_path / "t", True: tmp_path / "v"},
    )
    return tmp_path / "t"


def test_documents_come_back(folder: Path, tokenizer: Tokenizer, documents: list[str]) -> None:
    shards = Shards(folder, tokenizer)
    assert len(list(folder.iterdir())) > 3
    assert (shards.documents, shards.characters) == (300, sum(map(len, documents[:300])))
    stored = [shards.part(i) for i in range(300)]
    assert [tokenizer.decode(ids) for ids in stored] == documents[:300]
    assert all(ids[0] == tokenizer.bos_id and ids[-1] == tokenizer.eos_id for ids in stored)
    assert sum(map(len, stored)) == shards.tokens
    with pytest.raises(IndexError):
        shards.part(300)


def test_windows_are_slices_of_the_circle_of_documents(folder: Path) -> None:
    """Across the borders of shards, more than one at a time, and from the end to the beginning."""
    shards = Shards(folder)
    stream = np.concatenate([shards.part(i) for i in range(300)])
    starts = np.array([0, 1, 2_990, 3_050, shards.tokens - 1, shards.tokens - 9_999, 3 * shards.tokens + 5])
    for length in (8, 100, 10_000):
        expected = [np.take(stream, range(start, start + length), mode="wrap") for start in starts]
        assert (shards.windows(starts, length) == np.array(expected)).all()


def test_the_number_of_threads_changes_nothing(tmp_path: Path, tokenizer: Tokenizer, documents: list[str]) -> None:
    for threads in (1, 3):
        sides = {False: tmp_path / f"{threads}t", True: tmp_path / f"{threads}v"}
        encode(
            [SidedPart(text, len(text) % 3 == 0, True) for text in documents[:200]], tokenizer, sides, threads=threads
        )
    for side in "tv":
        assert (tmp_path / f"1{side}/00000.shard").read_bytes() == (tmp_path / f"3{side}/00000.shard").read_bytes()


def test_large_vocabularies_take_four_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    class Large:
        vocab_size = 70_000
        hash = tokenizer.hash
        vocabulary = dataclasses.replace(tokenizer.vocabulary, size=70_000)

    with ShardWriter(tmp_path / "t", Large()) as writer:
        writer.write([np.array([1, 69_999, 2])], [True], 1)
    assert Shards(tmp_path / "t").part(0).tolist() == [1, 69_999, 2]


@pytest.mark.parametrize("removed", [1, 8, 1_000, -1])
def test_truncated_and_extended_shards_are_detected(folder: Path, removed: int) -> None:
    path = folder / "00001.shard"
    content = path.read_bytes()
    path.write_bytes(content[:-removed] if removed > 0 else content + b"x")
    with pytest.raises(ValueError, match=r"00001.shard: truncated, found [\d,]+ bytes, expected [\d,]+; delete"):
        Shards(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a shard of this version"),
        (b"something else " * 1_000, "not a shard of this version"),
        (b"twostream shard 2\n{broken".ljust(5_000), "header of this shard is damaged"),
        (b"twostream shard 2\n{}".ljust(5_000), "header of this shard is damaged"),
    ],
)
def test_foreign_files_are_detected(folder: Path, content: bytes, message: str) -> None:
    (folder / "00000.shard").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Shards(folder)


@pytest.mark.parametrize("missing", ["00000.shard", "00001.shard", "last"])
def test_missing_shards_are_detected(folder: Path, missing: str) -> None:
    (max(folder.iterdir()) if missing == "last" else folder / missing).unlink()
    with pytest.raises(ValueError, match="shards are missing"):
        Shards(folder)


def test_an_empty_folder_and_an_empty_split_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no shards here"):
        Shards(tmp_path)
    with pytest.raises(ValueError, match="not a single document"):
        Shards(tmp_path / "v")


def test_another_tokenizer_is_refused(prepared: PreparedCorpus, documents: list[str]) -> None:
    other = Tokenizer.train(documents[:500], 400)
    with pytest.raises(ValueError, match=r"encoded with another tokenizer \(sha256 \w{12}, expected \w{12}\)"):
        Shards(prepared.train.folder, other)


def test_a_header_can_be_read_with_any_json_reader(folder: Path) -> None:
    header = (folder / "00000.shard").read_bytes()[:4096]
    fields = json.loads(header.split(b"\n", 1)[1])
    assert fields["vocabulary"]["mask_id"] == 3 and fields["dtype"] == "<u2" and fields["tokens"] >= 3_000
    shutil.rmtree(folder)


def test_a_byte_that_changed_is_noticed(folder: Path) -> None:
    path = folder / "00001.shard"
    content = bytearray(path.read_bytes())
    for at in (5_000, len(content) - 1):
        path.write_bytes(bytes(content[:at]) + bytes([content[at] ^ 1]) + bytes(content[at + 1 :]))
        with pytest.raises(ValueError, match=r"00001.shard: damaged, its bytes are not those that were written"):
            Shards(folder)
    path.write_bytes(bytes(content))
    Shards(folder)


def test_parts_belong_to_their_documents(tmp_path: Path, tokenizer: Tokenizer, documents: list[str]) -> None:
    """Documents of 1, 2, 3, 1, 2, 3 ... parts: counted, found again and cut in halves as documents."""
    sizes = [1 + i % 3 for i in range(60)]
    texts = iter(documents)
    parts = [SidedPart(next(texts), True, i == 0) for size in sizes for i in range(size)]
    encode(parts, tokenizer, {False: tmp_path / "t", True: tmp_path / "v"})
    shards = Shards(tmp_path / "v")
    assert shards.documents == 60
    tokens = [len(shards.part(i)) for i in range(len(parts))]
    document = np.repeat(np.arange(60), sizes)
    assert (shards.document_of(np.arange(shards.tokens)) == np.repeat(document, tokens)).all()
    cut, whole = shards.middle()
    ends = np.cumsum(tokens)[np.cumsum(sizes) - 1]
    assert whole and cut == ends[np.abs(ends[:-1] - shards.tokens / 2).argmin()]


@pytest.mark.parametrize(
    ("sizes", "cut"), [([40, 1, 1], "part"), ([1, 1, 40], "part"), ([1], "token"), ([1, 1], "document")]
)
def test_a_long_document_is_cut_where_halves_would_be_lopsided(
    tmp_path: Path, tokenizer: Tokenizer, sizes: list[int], cut: str
) -> None:
    text = "the same words again and again, " * 20
    parts = [SidedPart(text, True, i == 0) for size in sizes for i in range(size)]
    encode(parts, tokenizer, {False: tmp_path / "t", True: tmp_path / "v"})
    shards = Shards(tmp_path / "v")
    position, whole = shards.middle()
    assert whole == (cut == "document")
    ends = np.cumsum([len(shards.part(i)) for i in range(len(parts))]).tolist()
    assert (position in ends) == (cut != "token") and abs(position - shards.tokens / 2) <= ends[0]
