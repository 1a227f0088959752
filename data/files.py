"""Safe writing: a kill, a full disk or a second process does no harm."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Standard JSON. The name of a file that is not UTF-8 is written so that reading gives it back. Raises ValueError for NaN
    and infinity, which JSON cannot hold."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def user_path(name: str | Path) -> Path:
    """A path as a user gives it: a tilde is the home folder, unless there is a file of that name."""
    path = Path(name)
    if path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # ~name, and there is no such user
        return path


def write_atomically(path: Path, text: str) -> None:
    """The file holds the old text or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            error.errno, f"Could not write {path}: {error.strerror}. The old file, if any, is untouched."
        ) from error


@contextmanager
def held(path: Path, sentence: str) -> Iterator[None]:
    """Hold the lock file `path` alone. The system releases it when its holder dies.

    Raises ValueError with `sentence` if another process holds it.
    """
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(sentence) from None
        yield


def sync_all(path: Path) -> None:
    """Force a file, or a folder with all it holds, to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync_all(child)
    sync(path)


def sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
