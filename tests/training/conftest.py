"""One run that ends undisturbed, for all that are held against it."""

from pathlib import Path

import pytest

from tests.training.runs import OPTIONS, folder_of, run


@pytest.fixture(scope="session")
def base(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a run on the small corpus, which is prepared once."""
    folder = tmp_path_factory.mktemp("runs")
    return [*OPTIONS, "--corpus", str(text_file), "--cache", str(folder / "cache"), "--runs", str(folder / "runs")]


@pytest.fixture(scope="session")
def uninterrupted(base: list[str]) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run([*base, "--budget", "24ktok", "--name", "whole"], monkeypatch, pictures=True) == 0
    return folder_of(base, "whole")
