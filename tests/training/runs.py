"""What the tests of whole runs share."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pretrain
from report import plots
from training import checkpoint
from training.contestant import Contestant

TINY = "d_model=32,n_layers=2,n_heads=2,d_ff=64"
OPTIONS = [
    *("--architectures", f"tta:{TINY}", f"vanilla:{TINY},masking_rate=0.3", "--vocab-size", "340"),
    *("--batch-size", "8", "--sequence-length", "32", "--precision", "fp32", "--slice-seconds", "0.2"),
    *("--evaluation.tokens", "64", "--evaluation.curve-tokens", "32", "--evaluation.positions", "8"),
    *("--evaluation.points", "4"),
]


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, *, pictures: bool = False) -> int:
    """pretrain.py in this process. Drawing takes as long as all else in a run this small: without pictures they are empty."""
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *arguments])
    with pytest.MonkeyPatch.context() as drawing:
        if not pictures:
            drawing.setattr(plots, "as_data_uri", lambda figure: plots.plt.close(figure) or "data:,")
            drawing.setattr(plots, "as_png", lambda figure: plots.plt.close(figure) or b"")
        return pretrain.main()


def folder_of(base: list[str], name: str) -> Path:
    return Path(base[base.index("--runs") + 1]) / name


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Of each contestant's newest checkpoint."""
    newest = {d.name: checkpoint.last_good(d)[0] for d in sorted((folder / "checkpoints").iterdir())}
    return {name: load_file(path / "model.safetensors") for name, path in newest.items()}


def numbers(folder: Path) -> list[dict]:
    """results.jsonl without what depends on the clock."""
    timed = ("seconds", "tokens_per_second", "predicted_tokens_per_second", "loss", "sessions", "suspended")
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in timed} for record in records]


def assert_identical(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys() and len(ours) == 2
    for contestant, tensors in ours.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, theirs[contestant][name]), f"{contestant}: {name}"
    assert numbers(one) == numbers(other)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, *slices: int, by: int = signal.SIGINT) -> list[float]:
    """Signal this process at the end of these slices of training. Returns a list that grows by each slice's seconds."""
    done: list[float] = []
    train = Contestant.train

    def interrupting(self: Contestant, seconds: float, until: float) -> None:
        train(self, seconds, until)
        done.append(self.progress.spent.seconds)
        if len(done) in slices:
            os.kill(os.getpid(), by)

    monkeypatch.setattr(Contestant, "train", interrupting)
    return done


def refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    try:
        code = run(arguments, monkeypatch)
    except SystemExit as stop:  # the command line's own parser
        code = stop.code
    assert code == 2
    return " ".join(capsys.readouterr().err.split())
