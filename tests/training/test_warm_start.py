"""A race that starts from another model's weights."""

import json
from pathlib import Path

import pytest
import torch

from data.chinese import unigram
from data.tokenizer import Tokenizer
from model.architectures import REGISTRY
from tests.model.models import tiny_model
from tests.training.runs import OPTIONS, run, weights
from training import checkpoint
from training.entry import Entry
from training.warm_start import warm_start

TINY = "d_model=32,n_layers=2,n_heads=2,d_ff=64"


def saved(folder: Path, architecture: str = "vanilla", **options: object) -> Path:
    with torch.random.fork_rng():
        model = tiny_model(architecture, **options)
        for p in model.parameters():
            torch.nn.init.normal_(p)
    return checkpoint.save(folder, 1, model, {}, made(CHARACTERS).model).parent


def made(pieces: list[str]) -> Tokenizer:
    """Of exactly these pieces, behind the specials and the bytes."""
    return Tokenizer(unigram(dict.fromkeys(["▁", *pieces], -1.0), dummy=True))


CHARACTERS = list("我们喜欢")


@pytest.mark.parametrize("architecture", REGISTRY)
def test_what_agrees_is_taken_and_the_rest_is_as_it_was(architecture: str, tmp_path: Path) -> None:
    source, model, fresh = saved(tmp_path), tiny_model(architecture), tiny_model(architecture)
    begun = warm_start(model, str(source), made(CHARACTERS))
    given = dict(checkpoint.load_model_from(source).named_parameters())
    before, count = dict(fresh.named_parameters()), 0
    for name, p in model.named_parameters():
        taken = name in given and given[name].shape == p.shape
        assert torch.equal(p, given[name] if taken else before[name]), name
        count += p.numel() * taken
    assert begun.numbers == (count, model.parameter_count()) and {"embedding", "head", "blocks.0"} <= set(begun.taken)
    if architecture == "local":
        assert begun.left == ("ends", "neighbours", "tap_weights") and "new: ends, neighbours, tap_weights" in str(
            begun
        )


def test_a_deeper_model_takes_the_first_blocks(tmp_path: Path) -> None:
    begun = warm_start(tiny_model("local", n_layers=4), str(saved(tmp_path, n_layers=2)), made(CHARACTERS))
    assert {"blocks.0", "blocks.1"} <= set(begun.taken) and {"blocks.2", "blocks.3"} <= set(begun.left)


def test_new_words_start_from_the_mean_of_their_characters(tmp_path: Path) -> None:
    old, new = made(CHARACTERS), made(["欢", "我们", "喜欢", "们", "我", "喜", "欢我们鸟"])
    source = saved(tmp_path, vocab_size=old.vocab_size)
    given = dict(checkpoint.load_model_from(source).named_parameters())
    model = tiny_model("local", vocab_size=new.vocab_size)
    begun = warm_start(model, str(source), new)
    at = {piece: number for number, piece in enumerate(old.pieces(range(old.vocab_size)))}
    spelt = {
        "我们": "我 们".split(),
        "喜欢": "喜 欢".split(),
        "欢我们鸟": ["欢", "我", "们", "<0xE9>", "<0xB8>", "<0x9F>"],
    }
    for name in ("architecture.embedding.table.weight", "head.bias"):
        found = dict(model.named_parameters())[name]
        for number, piece in enumerate(new.pieces(range(new.vocab_size))):
            own = [given[name][at[p]] for p in spelt.get(piece, [piece])]
            torch.testing.assert_close(found[number], torch.stack(own).mean(0), msg=piece)
    assert begun.spelt == (3, new.vocab_size) and "another tokenizer: 3 of 269 pieces" in str(begun)


def test_what_cannot_be_started_from_is_said(tmp_path: Path) -> None:
    model = tiny_model("local")
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        warm_start(model, str(tmp_path / "none"), made(CHARACTERS))
    with pytest.raises(ValueError, match="of this repository alone"):
        warm_start(model, "hf:bert-base-uncased", made(CHARACTERS))
    other = saved(tmp_path / "b", d_model=64, d_ff=48, vocab_size=96, bias=False)
    with pytest.raises(ValueError, match="none of its weights fits this model"):
        warm_start(tiny_model("local", bias=False), str(other), made(CHARACTERS))
    with pytest.raises(ValueError, match="init is empty"):
        Entry.parse("local:init=")


@pytest.mark.slow
def test_a_race_starts_warm_stops_and_goes_on(text_file: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    paths = ["--corpus", str(text_file), "--runs", str(tmp_path), "--cache", str(tmp_path / "cache")]
    base = [*OPTIONS, *paths, "--budget", "16ktok"]
    assert run([*base, "--name", "cold"], monkeypatch) == 0
    source = next((tmp_path / "cold" / "checkpoints").glob("vanilla*"))
    at = base.index("--architectures") + 1
    entries = [f"tta:{TINY}", f"tta:{TINY},init=({source}),name=warm"]
    warm = [*base[:at], *entries, *base[at + 2 :]]
    assert run([*warm, "--name", "warm"], monkeypatch) == 0
    assert "warm starts from" in capsys.readouterr().out.replace("\n", " ")
    facts = json.loads((tmp_path / "warm" / "facts.json").read_text())["contestants"]
    assert facts["warm"]["init"]["taken"] and "init" not in facts[entries[0]]
    found = weights(tmp_path / "warm")
    cold, warmed = (found[name] for name in sorted(found, key=lambda name: name.startswith("warm")))
    table = "architecture.embedding.table.weight"
    assert not torch.equal(cold[table], warmed[table])
    records = [json.loads(line) for line in (tmp_path / "warm" / "results.jsonl").read_text().splitlines()]
    last = {r["contestant"]: r["final"]["nll"] for r in records if r["final"]}
    first = {r["contestant"]: r["curve"]["nll"] for r in reversed(records)}
    assert first["warm"] < first[entries[0]] and last["warm"] < last[entries[0]]
    # The source is gone; what has a checkpoint of its own goes on, and what it started from is still told.
    (tmp_path / "cold").rename(tmp_path / "moved")
    assert run(["--resume", str(tmp_path / "warm")], monkeypatch) == 0
    assert json.loads((tmp_path / "warm" / "facts.json").read_text())["contestants"]["warm"]["init"]["taken"]
