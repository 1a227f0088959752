"""Results on disk: one line for each, found again by everything that determines it.

A record's key is a digest of everything that decides its numbers: the weights, the rows of every split that was read, method,
recipe, seed, and FORMAT. A command shows, averages and submits only the records of its own keys. Other records in the file, of
other commands, of weights that are gone, or of an older version, stay there and are not shown.

Writing appends a line under a lock, so that two commands on one folder lose nothing. A line that is damaged is named and moved
to results.damaged.jsonl.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from data.files import to_json, write_atomically
from data.text import decoded, lines_of
from data.tokenizer import Tokenizer

FORMAT = 2  # raise when the same weights and rows would give other numbers

Record = dict[str, Any]


def key_of(**parts: Any) -> str:
    """A digest of all that made a result; the parts must be what JSON can hold."""
    told = json.dumps(parts | {"format": FORMAT}, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def digest_of(rows: Sequence[Any]) -> str:
    """A digest of rows, from their written form."""
    digest = hashlib.sha256(str(len(rows)).encode())
    for row in rows:
        digest.update(repr(row).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:24]


def digest_of_model(model: torch.nn.Module, tokenizer: Tokenizer) -> str:
    """A digest of the weights, the configuration and the tokenizer: another checkpoint with the same name is another model."""
    digest = hashlib.sha256(f"{model.config}{tokenizer.hash}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]


class Store:
    """OUT/results.jsonl, open for this command and for others at the same time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.jsonl"

    def records(self) -> list[Record]:
        """All that are there, in the order of writing."""
        return [] if not self.path.exists() else [json.loads(line) for line in lines_of(self._text()) if line.strip()]

    def find(self, key: str) -> Record | None:
        return next((record for record in self.records() if record.get("key") == key), None)

    def own(self, keys: Sequence[str]) -> list[Record]:
        """The records of these keys, in their order; missing ones are left out."""
        known = {record.get("key"): record for record in self.records()}
        return [known[key] for key in dict.fromkeys(keys) if key in known]

    def add(self, record: Record) -> None:
        """One more line, unless its key is there. Raises ValueError for what JSON cannot hold, NaN among it."""
        line = to_json(record).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if self.find(record["key"]) is not None:
                return
            with open(self.path, "ab") as file:
                if file.tell() and self.path.read_bytes()[-1:] != b"\n":  # a line that was cut off ends here
                    line = b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def repair(self) -> list[str]:
        """Move damaged lines aside. Returns a sentence for each."""
        if not self.path.exists():
            return []
        told, good, bad = [], [], []
        with self._locked():
            for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
                if not line.strip():
                    continue
                try:
                    if not isinstance(json.loads(decoded(line, "")), dict):
                        raise ValueError("no object")
                    good.append(line)
                except (ValueError, RecursionError):
                    bad.append(line)
                    told.append(
                        f"{self.path}, line {number}: damaged; it is kept in {self._aside.name}, and what it held is run again."
                    )
            if bad:
                with open(self._aside, "ab") as file:
                    file.write(b"".join(line + b"\n" for line in bad))
                write_atomically(self.path, "".join(line.decode() + "\n" for line in good))
        return told

    @property
    def _aside(self) -> Path:
        return self.path.with_name("results.damaged.jsonl")

    def _text(self) -> str:
        return decoded(self.path.read_bytes(), str(self.path))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.path.with_name(".results.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
