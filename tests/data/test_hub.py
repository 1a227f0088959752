import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

from data.corpora import open_corpus
from data.hub import HubCorpus, parse_hub_name, wikitext_articles


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple]:
    """Instead of the hub, `datasets` streams a local file; what was asked for is recorded."""
    asked = []
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"row {i}", "body": f"body {i}", "n": i}) for i in range(50)))
    real = datasets.load_dataset

    def load_dataset(*arguments: object, **options: object) -> object:
        asked.append((*arguments, options))
        return real("json", data_files=str(file), **options)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_names() -> None:
    assert parse_hub_name("hf:a/b") == HubCorpus("a/b")
    assert parse_hub_name("hf:a/b:c") == HubCorpus("a/b", "c")
    assert parse_hub_name("hf:a/b::text") == HubCorpus("a/b", None, "text")
    for name in ("hf:", "hf:b", "hf:a/b/c", "hf:a/b:c:d:e"):
        with pytest.raises(ValueError, match="expected hf:owner/name"):
            parse_hub_name(name)


def test_a_hub_set_becomes_a_local_file_once(hub: list[tuple], tmp_path: Path) -> None:
    rows = list(open_corpus("hf:some/set:config", tmp_path / "cache").documents())
    assert rows == [f"row {i}" for i in range(50)]
    assert hub == [("some/set", "config", {"split": "train", "streaming": True})]
    assert list(open_corpus("hf:some/set:config", tmp_path / "cache").documents()) == rows and len(hub) == 1
    assert list(open_corpus("hf:some/set:config:body", tmp_path / "cache").documents())[7] == "body 7"


def test_no_more_is_fetched_than_asked_for(hub: list[tuple], tmp_path: Path) -> None:
    rows = list(open_corpus("hf:some/set", tmp_path / "cache", characters=12).documents())
    assert rows == ["row 0", "row 1", "row 2"]


def test_a_missing_column_is_named(hub: list[tuple], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"hf:some/set: no text column 'content'; found 'text', 'body'; write hf:some/s"
    ):
        open_corpus("hf:some/set", tmp_path / "cache", column="content")


def test_whatever_the_hub_raises_is_one_sentence_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load_dataset(*_: object, **__: object) -> Iterator[dict]:
        yield {"text": "the first row"}
        raise RuntimeError("connection\nlost")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        ConnectionError, match=r"hf:some/set could not be read .*\(RuntimeError: connection lost\); check"
    ):
        open_corpus("hf:some/set", tmp_path)
    assert not [path for path in (tmp_path / "corpora").iterdir() if path.suffix != ".lock"]


def test_wikitext_rows_are_joined_into_articles() -> None:
    rows = ["", " = One = \n", "", " Text . \n", " = = Section = = \n", " More . \n", " = Two = \n", "", " End . \n"]
    assert list(wikitext_articles(rows)) == ["= One =\nText .\n= = Section = =\nMore .", "= Two =\nEnd ."]
