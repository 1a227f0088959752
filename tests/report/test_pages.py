"""The tables of the pages can be made again: each report that a page names from the records runs."""

import importlib
import shlex
import shutil
from pathlib import Path

import pytest

from tests.test_repository import PAGES, ROOT, commands

TOLD = [
    command
    for page in PAGES
    for command in commands(page)
    if command.startswith("python -m report.") and "docs/records/" in command
]


def test_pages_name_reports() -> None:
    assert len(TOLD) >= 9


@pytest.mark.parametrize("command", TOLD)
def test_reports_of_the_records_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a copy, since some reports draw pictures beside the records."""
    words = shlex.split(command)
    shutil.copytree(ROOT / "docs/records", tmp_path / "docs/records")
    monkeypatch.chdir(tmp_path)
    paths = [str(p) for word in words[3:] for p in (sorted(Path().glob(word)) if "*" in word else [word])]
    assert importlib.import_module(words[2]).main(paths) == 0
