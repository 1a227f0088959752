import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data import prepare as module
from data.prepare import DataConfig, PreparedCorpus, prepare
from data.shards import ShardWriter
from data.tokenizer import Tokenizer


def stored(prepared: PreparedCorpus, side: str) -> list[str]:
    shards = getattr(prepared, side)
    return [prepared.tokenizer.decode(shards.part(i)) for i in range(shards.documents)]


def left_over(cache: Path) -> list[str]:
    """What stands in the cache's folder of prepared corpora."""
    return [path.name for path in (cache / "prepared").iterdir() if path.suffix != ".lock"]


def test_every_document_is_on_exactly_one_side(prepared: PreparedCorpus, documents: list[str]) -> None:
    train, valid = stored(prepared, "train"), stored(prepared, "valid")
    assert sorted(train + valid) == sorted(documents)
    assert not set(train) & set(valid)
    info = prepared.info
    assert (info.train_documents, info.valid_documents) == (len(train), len(valid))
    assert info.valid_characters == sum(map(len, valid)) >= 16_000
    assert info.train_tokens == prepared.train.tokens and info.valid_tokens == prepared.valid.tokens


def test_the_tokenizer_sees_the_training_part_only(
    corpus_file: Path, prepared: PreparedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    train = Tokenizer.train

    def spy(lines: list[str], vocab_size: int) -> Tokenizer:
        seen.extend(lines)
        return train(seen, vocab_size)

    monkeypatch.setattr(module.Tokenizer, "train", spy)
    again = prepare(DataConfig(str(corpus_file), vocab_size=800, cache=tmp_path))
    assert again.tokenizer.hash == prepared.tokenizer.hash
    assert seen == [line for text in stored(prepared, "train") for line in text.split("\n")]


def test_what_is_prepared_is_used_again_until_something_changes(
    documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(documents))
    config = DataConfig(str(path), vocab_size=500, cache=tmp_path / "cache")
    first = prepare(config)
    builds = []
    build = module._build
    monkeypatch.setattr(module, "_build", lambda *arguments: builds.append(build(*arguments)))
    assert prepare(config).info == first.info and not builds

    times = path.stat()
    changed = path.read_bytes()
    path.write_bytes(changed[:-2] + b"X" + changed[-1:])  # one letter, with size and time as before
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    prepare(config)
    assert len(builds) == 1
    for other in (
        replace(config, vocab_size=501),
        replace(config, held_out=0.1),
        replace(config, validation=str(path)),
    ):
        prepare(other)
    assert len(builds) == 4


def test_a_validation_corpus_of_its_own(corpus_file: Path, tmp_path: Path, documents: list[str]) -> None:
    (tmp_path / "valid.txt").write_text("Something else.\n\nAltogether.")
    config = DataConfig(str(corpus_file), 800, validation=str(tmp_path / "valid.txt"), cache=tmp_path / "cache")
    result = prepare(config)
    assert stored(result, "valid") == ["Something else.", "Altogether."]
    assert stored(result, "train") == documents


def test_a_tokenizer_of_ones_own(prepared: PreparedCorpus, corpus_file: Path, tmp_path: Path) -> None:
    prepared.tokenizer.save(tmp_path / "own.model")
    result = prepare(DataConfig(str(corpus_file), tokenizer=tmp_path / "own.model", cache=tmp_path / "cache"))
    assert result.tokenizer.hash == prepared.tokenizer.hash and result.info.vocab_size == 800
    assert stored(result, "valid") == stored(prepared, "valid")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: ShardWriter, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardWriter, "write", write)
    with pytest.raises(OSError, match=r"^the disk is full: "):
        prepare(DataConfig(str(corpus_file), vocab_size=500, cache=tmp_path))
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"\xff" + b"a" * 99_999, {}, r"not UTF-8 \(byte offset 0"),
        (b"too small", {}, "too small or too uniform to be split: it holds 9 bytes"),
        (b"", {}, "empty, no text in 1 file"),
        (b"the same line\n" * 10_000, {}, "too small or too uniform to be split: it holds 139,9"),
        (
            b"".join(b"line %d\n\n" % i for i in range(20_000)),
            {"vocab_size": 50_000},
            "vocabulary of 50000 is too large",
        ),
    ],
)
def test_bad_input_leaves_nothing(tmp_path: Path, content: bytes, options: dict, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        prepare(DataConfig(str(path), cache=tmp_path / "cache", **options))
    assert not (tmp_path / "cache").exists() or left_over(tmp_path / "cache") == []


def test_a_file_that_changes_while_it_is_read_is_refused(
    documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(documents))
    build = module._build

    def grow(*arguments: object) -> None:
        build(*arguments)
        path.write_text("\n\n".join([*documents, "one more"]))

    monkeypatch.setattr(module, "_build", grow)
    with pytest.raises(ValueError, match="a file changed while it was read"):
        prepare(DataConfig(str(path), vocab_size=500, cache=tmp_path / "cache"))
    assert left_over(tmp_path / "cache") == []


@pytest.mark.parametrize("damage", ["truncated", "zeros", "swept", "no tokenizer", "no info", "info is no JSON"])
def test_what_is_no_longer_whole_is_made_again(
    damage: str, corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """To the same bytes, with a sentence; a cleaner of caches takes files and leaves folders."""
    config = DataConfig(str(corpus_file), vocab_size=500, cache=tmp_path)
    folder = prepare(config).train.folder.parent
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "info.json"}
    shard = folder / "train" / "00000.shard"
    if damage == "truncated":
        os.truncate(shard, shard.stat().st_size - 1)
    elif damage == "zeros":
        shard.write_bytes(shard.read_bytes()[:6_000] + bytes(1_000) + shard.read_bytes()[7_000:])
    elif damage == "swept":
        for path in folder.rglob("*"):
            if path.is_file():
                path.unlink()
    elif damage == "info is no JSON":
        (folder / "info.json").write_text("{")
    else:
        (folder / ("tokenizer.model" if damage == "no tokenizer" else "info.json")).unlink()
    capsys.readouterr()
    prepare(config)
    assert "is not whole" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files} == files


def test_processes_that_prepare_the_same_corpus_share_it(corpus_file: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from data.prepare import *; "
        "print(prepare(DataConfig(sys.argv[1], vocab_size=500, cache=Path(sys.argv[2]))).train.folder)"
    )
    command = [sys.executable, "-c", script, str(corpus_file), str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0] and len(answers) == 1
    assert len(left_over(tmp_path)) == 1
    assert prepare(DataConfig(str(corpus_file), vocab_size=500, cache=tmp_path)).train.documents > 1_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, "vocabulary of 0 is too small"),
        ({"vocab_size": 500.0}, "vocab_size is 500.0; it must be a whole number"),
        ({"held_out": 0.0}, "held-out share of 0.0"),
        ({"held_out": 0.5}, "held-out share of 0.5"),
        ({"threads": 0}, "threads = 0"),
        ({"max_characters": 0}, "max_characters = 0"),
    ],
)
def test_contradictory_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(**options)
