import errno
import json
import shutil
from dataclasses import field, make_dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data import files
from data.files import write_atomically
from model.architectures.bicausal import Bicausal
from model.architectures.local import Local
from tests.model.models import tiny_model
from training import checkpoint
from training.checkpoint import DamagedCheckpoint

STATE = {"progress": {"step": 3}, "optimizers": [torch.arange(4.0)]}


def save(directory: Path, step: int) -> Path:
    return checkpoint.save(directory, step, tiny_model("tta"), STATE, b"tokenizer")


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model, path = tiny_model("tta"), save(tmp_path, 3)
    loaded = checkpoint.load_model_from(path)
    assert loaded.config == model.config
    for (name, ours), theirs in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert torch.equal(checkpoint.load_training(path)["optimizers"][0], torch.arange(4.0))
    assert (path / "tokenizer.model").read_bytes() == b"tokenizer"


def test_options_are_kept_and_one_that_came_later_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint.save(tmp_path, 3, tiny_model("local", options=(("near", 3),)), STATE, b"tokenizer")
    options = dict(checkpoint.load_model_from(path).config.options)
    assert options == {"near": 3, "words": 0.25, "rest": 0.25, "taps": 2}
    monkeypatch.setattr(type(tiny_model("local").architecture), "Options", Bicausal.Options)
    with pytest.raises(
        ValueError, match="was written before local had the option causal and convolved and depth and .* train it again"
    ):
        checkpoint.load_model_from(path)


@pytest.mark.parametrize("architecture", ["local", "vanilla"])
def test_a_checkpoint_from_before_an_option_that_was_off_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """Also once the option is no longer off by default; and options that are no more, where they were off."""
    model = tiny_model(architecture, options=(("words", 0.0),))
    path = checkpoint.save(tmp_path, 3, model, STATE, b"tokenizer")
    config = json.loads((path / "config.json").read_text())
    config["options"] = [pair for pair in config["options"] if pair[0] != "words"]
    config["options"] += [["grams", 0]]
    (path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(checkpoint, "verify", lambda path: None)  # it was written so
    kind = type(model.architecture)
    later = make_dataclass("Options", [("words", float, field(default=0.5))], bases=(kind.Options,), frozen=True)
    monkeypatch.setattr(kind, "Options", later)
    loaded = checkpoint.load_model_from(path)
    assert loaded.architecture.options.words == 0
    assert all(torch.equal(ours, loaded.state_dict()[name]) for name, ours in model.state_dict().items())


def test_weights_that_no_longer_fit_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator of `rtd` has the defaults of its architecture, which may change."""
    path = checkpoint.save(tmp_path, 3, tiny_model("rtd", options=(("generator", "local"),)), STATE, b"tokenizer")
    checkpoint.load_model_from(path)
    later = make_dataclass("Options", [("near", int, field(default=4))], bases=(Local.Options,), frozen=True)
    monkeypatch.setattr(Local, "Options", later)
    with pytest.raises(ValueError, match="do not fit what this revision makes of its config.json .* train it again"):
        checkpoint.load_model_from(path)


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["step-00000003", "step-00000004"]
    assert checkpoint.last_good(tmp_path) == (tmp_path / "step-00000004", [])


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "config.json", "tokenizer.model"])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_a_damaged_file_is_found_and_the_one_before_is_used(tmp_path: Path, name: str, harm: str) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    file = bad / name
    content = file.read_bytes()
    if harm == "truncate":
        file.write_bytes(content[:-1])
    elif harm == "flip":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        file.unlink()
    path, sentences = checkpoint.last_good(tmp_path)
    assert path == good
    assert len(sentences) == 1 and name in sentences[0]
    with pytest.raises(DamagedCheckpoint):
        checkpoint.load_model_from(bad)


def test_what_an_interrupted_save_leaves_is_not_a_checkpoint(tmp_path: Path) -> None:
    good = save(tmp_path, 1)
    half = tmp_path / ".step-00000002.123.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert checkpoint.last_good(tmp_path) == (good, [])


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path, 1)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"Could not save .*No space left.*Earlier checkpoints are untouched"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == [good.name]


def test_a_full_disk_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.jsonl"
    write_atomically(path, "old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match=r"Could not write .*No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_missing_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        checkpoint.load_model_from(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="No whole checkpoint lies in"):
        checkpoint.load_model_from(tmp_path)


def test_a_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "manifest.json").write_text(json.dumps({"files": 3}))
    with pytest.raises(DamagedCheckpoint, match="is not a complete checkpoint"):
        checkpoint.verify(path)


def test_a_step_that_is_there_and_whole_is_not_written_again(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert save(tmp_path, 1) == path
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_a_damaged_step_is_written_again(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "training.pt").write_bytes(b"torn")
    assert save(tmp_path, 1) == path and checkpoint.verify(path) == 1


def test_a_kill_between_writing_and_renaming_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the step is there already: it is never away."""
    good = save(tmp_path, 1)

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "rename", killed)
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt) if step == 2 else monkeypatch.context():
            save(tmp_path, step)
        assert checkpoint.last_good(tmp_path)[0] == good
    assert list(tmp_path.glob(".step-*.tmp"))
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [good.name]


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError):
        files.to_json({"nll": float("nan")})
    assert json.loads(files.to_json({"a": [1.5, None, "é"]})) == {"a": [1.5, None, "é"]}


def test_fields_that_are_no_more_are_read_where_they_were_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(tmp_path, 3, tiny_model("tta"), STATE, b"tokenizer")
    config = json.loads((path / "config.json").read_text())
    monkeypatch.setattr(checkpoint, "verify", lambda path: None)  # it was written so
    (path / "config.json").write_text(json.dumps(config | {"zero_head": False, "softcap": 0.0}))
    checkpoint.load_model_from(path)
    (path / "config.json").write_text(json.dumps(config | {"softcap": 30.0}))
    with pytest.raises(ValueError, match="softcap is 30.0, which this revision no longer has"):
        checkpoint.load_model_from(path)


def test_copies_and_loose_names_are_left_alone(tmp_path: Path) -> None:
    """Somebody keeps a copy beside: it is neither read nor swept away; and step 100,000,000 comes after 99,999,999."""
    model = tiny_model("tta")
    for step in (1, 2):
        checkpoint.save(tmp_path, step, model, STATE, b"tokenizer")
    copy = tmp_path / "step-00000002-best"
    shutil.copytree(tmp_path / "step-00000002", copy)
    for step in (99_999_999, 100_000_000):
        checkpoint.save(tmp_path, step, model, STATE, b"tokenizer")
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["step-99999999", "step-100000000"]
    assert copy.exists() and checkpoint.last_good(tmp_path)[0].name == "step-100000000"


def test_a_manifest_that_names_nothing_is_no_checkpoint(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 3, tiny_model("tta"), STATE, b"tokenizer")
    (path / "manifest.json").write_text('{"step": 3, "files": {}}')
    with pytest.raises(
        checkpoint.DamagedCheckpoint, match="does not name config.json, model.safetensors, tokenizer.model"
    ):
        checkpoint.verify(path)


def test_a_checkpoint_with_the_old_names_of_near_and_taps_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("local")
    path = checkpoint.save(tmp_path, 3, model, STATE, b"tokenizer")
    file = path / "model.safetensors"
    names = {
        "architecture.neighbours.mix.weight": "architecture.near.mix.weight",
        "architecture.tap_weights": "architecture.taps",
    }
    weights = load_file(file)
    assert names.keys() <= weights.keys()
    save_file({names.get(name, name): tensor for name, tensor in weights.items()}, file)
    monkeypatch.setattr(checkpoint, "verify", lambda path: None)  # it was written so
    loaded = checkpoint.load_model_from(path).state_dict()
    assert all(torch.equal(ours, loaded[name]) for name, ours in model.state_dict().items())
