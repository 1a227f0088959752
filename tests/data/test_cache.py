import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.cache import building, cache_root


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_what_is_built_appears_whole_and_once(tmp_path: Path) -> None:
    target = tmp_path / "a" / "t"
    with building(target) as partial:
        partial.mkdir()
        (partial / "x").write_text("x")
        assert not target.exists()
    assert listing(tmp_path / "a") == ["t"] and (target / "x").read_text() == "x"
    with building(target) as partial:
        assert partial is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), building(tmp_path / "t") as partial:
        partial.write_text("half")
        raise error
    assert listing(tmp_path) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    message = r"^the disk is full: .*/t could not be written .* free some space"
    with pytest.raises(OSError, match=message) as caught, building(tmp_path / "t") as partial:
        partial.mkdir()
        (partial / "x").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC
    assert listing(tmp_path) == []


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), building(tmp_path / "t"):
        raise PermissionError(errno.EACCES, "no")


BUILDER = """
import sys, time
from pathlib import Path
from data.cache import building
with building(Path(sys.argv[1])) as partial:
    if partial is not None:
        partial.mkdir()
        (partial / "x").write_text("half")
        print("begun", flush=True)
        time.sleep(float(sys.argv[2]))
        (partial / "y").write_text("whole")
"""


def builder(target: Path, seconds: float) -> subprocess.Popen:
    """A process that builds `target`; it has begun when this returns."""
    process = subprocess.Popen([sys.executable, "-c", BUILDER, str(target), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    return process


def test_others_wait_for_whoever_builds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    process = builder(tmp_path / "t", 1.0)
    with building(tmp_path / "t") as partial:
        assert partial is None and (tmp_path / "t" / "y").exists()
    assert process.wait() == 0 and "waiting for another process" in capsys.readouterr().err


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    process = builder(tmp_path / "t", 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert listing(tmp_path) == ["t.partial"]
    started = time.monotonic()
    with building(tmp_path / "t") as partial:
        assert not partial.exists()
        partial.write_text("new")
    assert time.monotonic() - started < 5  # the lock died with its holder
    assert listing(tmp_path) == ["t"] and (tmp_path / "t").read_text() == "new"


def test_the_cache_is_where_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWOSTREAM_CACHE", raising=False)
    assert cache_root() == Path.home() / ".cache/twostream"
    monkeypatch.setenv("TWOSTREAM_CACHE", "/somewhere")
    assert cache_root() == Path("/somewhere")
    assert cache_root("~/else") == Path.home() / "else"
