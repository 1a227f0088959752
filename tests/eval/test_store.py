"""Results on disk: found by all that made them, and lost by nobody."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch

from data.tokenizer import Tokenizer
from eval.store import Store, digest_of, digest_of_model, key_of
from tests.model.models import tiny_model


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


def test_a_key_holds_all_that_it_is_made_from(tokenizer: Tokenizer) -> None:
    rows = [("a", 1), ("b", 2)] * 100
    keys = [digest_of(rows), digest_of(rows[:-1]), digest_of([*rows[:-1], ("b", 3)]), digest_of(["\ud83d"])]
    assert len(set(keys)) == 4 and digest_of(list(rows)) == keys[0]
    model = tiny_model("tta", vocab_size=tokenizer.vocab_size)
    before = digest_of_model(model, tokenizer)
    assert digest_of_model(tiny_model("tta", vocab_size=tokenizer.vocab_size), tokenizer) == before
    with torch.no_grad():
        model.head.bias[-1] += 1e-6
    assert digest_of_model(model, tokenizer) != before
    assert key_of(a=1, b=[2]) == key_of(b=[2], a=1) != key_of(a=1, b=[3])


def test_records_are_appended_once_and_found_by_their_keys(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    assert store.records() == [] and store.own(["a"]) == [] and store.repair() == []
    for key in ("a", "b", "a"):
        store.add({"key": key, "text": "one\u2028line"})
    assert [r["key"] for r in store.records()] == ["a", "b"] and store.find("b")["text"] == "one\u2028line"
    assert [r["key"] for r in store.own(["b", "c", "a", "b"])] == ["b", "a"]
    with pytest.raises(ValueError):
        store.add({"key": "c", "value": float("nan")})
    assert len(store.records()) == 2


def test_damaged_lines_are_kept_aside_and_named(tmp_path: Path) -> None:
    """One that a kill cut off, one that is no UTF-8; what is whole stays, and goes on."""
    store = Store(tmp_path)
    store.add({"key": "a"})
    with open(store.path, "ab") as file:
        file.write(b'\xff\n{"key": "b"}\n{"key": "c", "val')
    told = store.repair()
    assert ["line 2: damaged" in told[0], "line 4: damaged" in told[1], len(told)] == [True, True, 2]
    assert [r["key"] for r in store.records()] == ["a", "b"]
    assert (tmp_path / "results.damaged.jsonl").read_bytes() == b'\xff\n{"key": "c", "val\n'
    with open(store.path, "ab") as file:  # a line without its end, then another command writes
        file.write(b'{"key": "d"}')
    store.add({"key": "e"})
    assert [r["key"] for r in store.records()] == ["a", "b", "d", "e"]


def _write(folder: Path, name: str) -> None:
    for i in range(40):
        Store(folder).add({"key": f"{name}{i}", "text": "x" * 500})


def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(tmp_path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [json.loads(line)["key"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted(found) == sorted(f"{name}{i}" for name in "ab" for i in range(40))
