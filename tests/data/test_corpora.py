import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data.corpora import named_corpora, open_corpus

Write = Callable[..., Path]


def documents(name: Path | str, **options: object) -> list[str]:
    return list(open_corpus(str(name), Path("unused"), **options).documents())


def test_file_folder_and_glob_are_one_interface(write: Write, tmp_path: Path) -> None:
    file = write("c/b.txt", "two\n\nthree")
    write("c/a.jsonl", '{"text": "one"}')
    write("c/deep/er/d.txt", "four")
    write("c/empty.txt", "")
    write("c/.hidden/e.txt", "hidden")
    write("c/README.md", "not of the corpus")
    assert documents(file) == ["two", "three"]
    assert documents(tmp_path / "c") == ["one", "two", "three", "four"]
    assert documents(f"{tmp_path}/c/*.txt") == ["two", "three"]
    assert documents(f"{tmp_path}/c/**/*.txt") == ["two", "three", "four"]


def test_characters_end_the_corpus_after_a_document(write: Write) -> None:
    path = write("a.txt", "aaaa\n\nbbbb\n\ncccc")
    assert documents(path, characters=4) == ["aaaa"]
    assert documents(path, characters=5) == ["aaaa", "bbbb"]


def test_the_digest_follows_the_content_and_how_it_is_read(write: Write, tmp_path: Path) -> None:
    def digest(path: Path, **options: object) -> str:
        return open_corpus(str(path), tmp_path, **options).digest()

    first = write("a.jsonl", '{"text": "aaaa", "b": "c"}')
    before = digest(first)
    assert digest(write("elsewhere/b.jsonl", first.read_bytes())) == before
    others = [digest(first, column="b"), digest(first, characters=3), digest(write("a.txt", first.read_bytes()))]
    times = first.stat()
    first.write_text('{"text": "aaab", "b": "c"}')
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))  # same name, size and time
    others.append(digest(first))
    assert len({before, *others}) == 5


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nonsense", FileNotFoundError, r"nonsense: no such corpus; expected one of botocore, kjv, .*, a quoted glob"),
        ("{}/none.txt", FileNotFoundError, r"none.txt: no such corpus"),
        ("{}/*.none", FileNotFoundError, r"\*.none: no file matches this pattern"),
        ("{}/bare", FileNotFoundError, r"bare: no corpus files in this folder; expected \.txt, "),
        ("{}/a.pdf", ValueError, r"a.pdf: no reader for files ending in '.pdf'"),
        ("{}/*.pdf", ValueError, r"a.pdf: no reader for files ending in '.pdf'"),
        ("{}/empty.txt", ValueError, r"empty.txt: empty, no text in 1 file"),
        ("{}/blank.txt", ValueError, r"blank.txt: empty, no text in 1 file"),
    ],
)
def test_names_that_lead_nowhere(write: Write, name: str, error: type[Exception], message: str) -> None:
    folder = write("a.pdf", "x").parent
    write("empty.txt", "")
    write("blank.txt", " \n\n \n")
    write("bare/a.md", "x")
    with pytest.raises(error, match=message) as caught:
        documents(name.format(folder))
    assert type(caught.value) is error and not re.search(r"\n|\[Errno", str(caught.value))


def test_the_documented_names_are_there() -> None:
    assert {"botocore", "kjv", "tencentcloud", "sanguo", "wikitext-103"} < set(named_corpora())


def test_what_a_folder_has_and_is_not_read_is_said(tmp_path: Path) -> None:
    for name, data in {
        "a.txt": b"kept",
        "b.txt.bz2": b"x",
        "c.json": b"{}",
        ".hidden.txt": b"x",
        "d/e.jsonl.gz": b"",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked").symlink_to(tmp_path / "d")
    corpus = open_corpus(str(tmp_path), tmp_path)
    assert list(corpus.documents()) == ["kept"]
    told = " ".join(corpus.notes)
    assert "2 file(s) (b.txt.bz2, c.json) left out (no reader" in told
    for part in (
        "(.hidden.txt) left out (hidden)",
        "(gone.txt) left out (a broken link)",
        "(linked) left out (a linked",
    ):
        assert part in told
    assert "1 file(s) (e.jsonl.gz) without any text among 2 files" in told


def test_a_folder_of_which_all_is_read_is_not_spoken_of(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    corpus = open_corpus(str(tmp_path), tmp_path)
    assert list(corpus.documents()) == ["one"] and corpus.notes == []
