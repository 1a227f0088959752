"""Where prepared data lives, and how it gets there: built once, whole or not at all."""

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.files import sync, sync_all, user_path


def cache_root(cache: Path | str | None = None) -> Path:
    """The folder for everything downloaded or derived: `cache`, else $TWOSTREAM_CACHE, else ~/.cache/twostream."""
    return user_path(cache or os.environ.get("TWOSTREAM_CACHE") or Path.home() / ".cache" / "twostream")


@contextmanager
def building(target: Path) -> Iterator[Path | None]:
    """Build the file or folder `target` once, even when several processes ask for it at the same time.

    Yields None when `target` stands already, otherwise a path beside it to fill. On leaving, what was filled is
    flushed to the disk and renamed to `target` in one step; on any exception it is removed. So `target` is either
    absent or complete, and what a killed run left behind is swept away by the next one.

    Raises OSError with one sentence when the disk is full.
    """
    partial = target.with_name(target.name + ".partial")
    with full_disk_explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if target.exists():
                yield None
                return
            _remove(partial)
            try:
                yield partial
                sync_all(partial)
                partial.rename(target)
                sync(target.parent)
            except BaseException:
                _remove(partial)
                raise


def discard(target: Path) -> None:
    """Remove what was built, since it has been damaged."""
    with _locked(target):
        _remove(target)


@contextmanager
def full_disk_explained(target: Path) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded", wherever they surface inside, into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        explained = OSError(
            f"the disk is full: {target} could not be written and what was begun has been removed; "
            f"free some space or point TWOSTREAM_CACHE to another disk"
        )
        explained.errno = error.errno
        raise explained from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """An exclusive lock on `target` among processes; the system releases it when its holder dies."""
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that is preparing {target}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
