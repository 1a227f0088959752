"""Trackers beside TensorBoard, and the report of a race that runs."""

import sys
import types
from pathlib import Path

import pytest

import pretrain
from tests.training.runs import OPTIONS, run
from training.scalars import Scalars


class Fake(types.ModuleType):
    def __init__(self, fails: bool = False) -> None:
        super().__init__("trackio")
        self.said: list[tuple] = []
        self.fails = fails
        self.__spec__ = types.SimpleNamespace()  # importlib.util.find_spec looks at it

    def init(self, **options: object) -> None:
        self.said.append(("init", options))

    def log(self, scalars: dict[str, float]) -> None:
        if self.fails:
            raise RuntimeError("no network")
        self.said.append(("log", scalars))

    def finish(self) -> None:
        self.said.append(("finish",))


def base(text_file: Path, tmp_path: Path) -> list[str]:
    paths = ["--corpus", str(text_file), "--runs", str(tmp_path), "--cache", str(tmp_path / "cache")]
    return [*OPTIONS, *paths, "--budget", "16ktok"]


@pytest.mark.parametrize("fails", (False, True))
def test_scalars_go_to_the_tracker_and_failures_end_nothing(fails: bool, text_file, tmp_path, monkeypatch) -> None:
    fake = Fake(fails)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    assert run([*base(text_file, tmp_path), "--track", "trackio", "--name", "tracked"], monkeypatch) == 0
    assert fake.said[0][1]["project"] == "twostream" and fake.said[0][1]["name"] == "tracked"
    logged = [scalars for kind, *rest in fake.said if kind == "log" for scalars in rest]
    assert bool(logged) != fails
    if not fails:
        assert any(name.startswith("vanilla@") and name.endswith("/leave_one_out") for s in logged for name in s)
        assert fake.said[-1] == ("finish",)
    assert (tmp_path / "tracked" / "report.html").exists()


def test_a_tracker_that_is_not_installed_is_refused_at_once(text_file, tmp_path, monkeypatch, capsys) -> None:
    assert run([*base(text_file, tmp_path), "--track", "wandb", "--name", "none"], monkeypatch) == 2
    assert "needs the package wandb; install it with pip install wandb" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "none").exists()


def test_without_a_tracker_tensorboard_has_the_scalars(tmp_path: Path) -> None:
    scalars = Scalars("", {})
    scalars.log(tmp_path, "a", {"loss": 1.0}, 1)
    scalars.close()
    assert scalars.tracker is None and list((tmp_path / "tensorboard" / "a").glob("events*"))


def test_the_page_refreshes_while_the_race_runs_and_not_afterwards(text_file, tmp_path, monkeypatch) -> None:
    pages: list[str] = []
    write = pretrain.write_progress

    def kept(folder: Path, **options: bool) -> None:
        write(folder, **options)
        pages.append((folder / "report.html").read_text())

    monkeypatch.setattr(pretrain, "write_progress", kept)
    monkeypatch.setattr(pretrain, "REFRESH", 0)
    assert run([*base(text_file, tmp_path), "--name", "shown"], monkeypatch) == 0
    assert len(pages) > 3 and all('http-equiv="refresh"' in page for page in pages)
    assert "unfinished" in pages[0]
    assert 'http-equiv="refresh"' not in (tmp_path / "shown" / "report.html").read_text()
