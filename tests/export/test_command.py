"""`make export`: the folder, the card, and what it refuses."""

import ast
import json
from pathlib import Path

import pytest
from rich.console import Console

from data import extras
from data.tokenizer import Tokenizer
from export import hf
from export.hf import ExportConfig, export, facts_of
from tests.export.conftest import KINDS
from tests.model.models import tiny_model
from training import checkpoint


def saved(tokenizer: Tokenizer, folder: Path, architecture: str = "local") -> Path:
    model = tiny_model(architecture, vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id)
    return checkpoint.save(folder / f"{architecture}-seed0", 1, model, {}, tokenizer.model).parent


def test_a_run_s_numbers_are_on_the_card(tokenizer: Tokenizer, tmp_path: Path) -> None:
    given = saved(tokenizer, tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"data": {"corpus": "some/where/books"}}))
    words = {"bits_per_character": 1.4168, "chain": 1.42}
    record = {"contestant": "local", "seed": 0, "final": {"nll": 2.8915, "accuracy": 0.419}, "words": words}
    record |= {"flops": 2e13, "tokens": 3_190_000, "sessions": [{"git_revision": "abc123"}]}
    other = {**record, "seed": 1, "final": {"nll": 9.0, "accuracy": 0.0}}
    (tmp_path / "run" / "results.jsonl").write_text("\n".join(map(json.dumps, (record, other))))
    hf.run(ExportConfig(given, tmp_path / "out"), Console(quiet=True))
    card = (tmp_path / "out" / "README.md").read_text()
    for expected in ("2.892", "41.9%", "1.417", "seed 0, on books", "abc123", "Shin"):
        assert expected in card
    assert "some/where" not in card
    assert facts_of(given / "step-00000001")["record"]["final"]["nll"] == 2.8915


def test_a_checkpoint_without_a_run_is_exported_too(tokenizer: Tokenizer, tmp_path: Path) -> None:
    hf.run(ExportConfig(saved(tokenizer, tmp_path), tmp_path / "out"), Console(quiet=True))
    assert "Trained and measured" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("architecture", ("bicausal", "permuted", "partition", "rtd"))
def test_what_is_not_exported_is_said(architecture: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    given = saved(tokenizer, tmp_path, architecture)
    with pytest.raises(ValueError, match=f"^{architecture} is not exported; local, tta, vanilla"):
        hf.run(ExportConfig(given, tmp_path / "out"), Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_are_refused(tokenizer: Tokenizer, tmp_path: Path, exported) -> None:
    model, _ = exported("local")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an empty folder"):
        export(model, tokenizer, tmp_path / "full")
    with pytest.raises(ValueError, match="not a plain name"):
        export(model, tokenizer, tmp_path / "local@n_layers=2-seed0")
    (tmp_path / "empty").mkdir()
    assert export(model, tokenizer, tmp_path / "empty").exists()
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_missing_extra_is_named_with_its_list(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer, tmp_path: Path):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    given = saved(tokenizer, tmp_path)
    with pytest.raises(ValueError, match=r"needs the package onnx, .* pip install -r requirements-export.txt"):
        hf.run(ExportConfig(given, tmp_path / "out", to="onnx"), Console(quiet=True))
    with pytest.raises(ValueError, match="--to onnx"):
        ExportConfig(given, tmp_path / "out", quantise=True)


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_files_import_torch_and_transformers_alone(kind: str, exported) -> None:
    _, folder = exported(kind)
    sources = sorted(folder.glob("*.py"))
    assert bool(sources) == (kind != "vanilla-bert")
    allowed = {"torch", "transformers", "sentence_transformers"}  # the last in pooling_twostream.py alone
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] in allowed
            elif isinstance(node, ast.Import):
                assert {name.name.split(".")[0] for name in node.names} <= allowed
