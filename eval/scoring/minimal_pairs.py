"""Minimal pairs: files and archives of them, who is right, and with what certainty. See eval/pairs.py."""

import csv
import lzma
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from data.statistics import clustered_mean, paired_difference, t_quantile
from data.text import decoded, lines_of, parsed
from data.tokenizer import Tokenizer
from eval.scoring.likelihood import Variant, score
from model import MaskedLM

TIE = 1e-5  # nats a token: what sums in float32 differ by


@dataclass(frozen=True)
class Paradigm:
    """Pairs (good, bad) of one kind."""

    name: str
    phenomenon: str
    pairs: list[tuple[str, str]]


SUFFIXES = (".jsonl", ".csv")


def files_of(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each .jsonl and .csv: the file itself, those of a folder, or those inside a .zip or .tar(.gz, .xz).

    Raises ValueError for an archive that is not whole or encrypted.
    """
    try:
        if path.is_dir():
            for file in sorted(f for suffix in SUFFIXES for f in path.rglob(f"*{suffix}")):
                yield str(file), file.read_bytes()
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in sorted(n for n in archive.namelist() if _wanted(n)):
                    yield f"{path}:{name}", archive.read(name)
        elif ".tar" in path.suffixes or path.suffix in (".tgz", ".tar"):
            with tarfile.open(path) as archive:
                for member in sorted((m for m in archive if m.isfile() and _wanted(m.name)), key=lambda m: m.name):
                    yield f"{path}:{member.name}", cast(IO[bytes], archive.extractfile(member)).read()
        else:
            yield str(path), path.read_bytes()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path}: not a whole archive of pairs ({error}); fetch it again.") from None
    except RuntimeError as error:  # how zipfile says that a password is wanted
        raise ValueError(f"{path}: this archive cannot be read ({error}); unpack it first.") from None


def _wanted(name: str) -> bool:
    return name.endswith(SUFFIXES) and not Path(name).name.startswith(".") and "__MACOSX" not in name


def read_paradigm(name: str, content: bytes, limit: int = 0) -> Paradigm:
    """A .csv holds CLiMP's rows, a good and a bad sentence in turns. Raises ValueError, with file and line, for a row that is
    not a pair."""
    uid, text = Path(name.rpartition(":")[2]).stem, decoded(content, name)
    pairs, phenomenon = _turns(name, text) if name.endswith(".csv") else _objects(name, text)
    if not pairs:
        raise ValueError(f"{name}: no pair in it; expected one on each line.")
    return Paradigm(uid, phenomenon or uid, pairs[:limit] if limit else pairs)


def _objects(name: str, text: str) -> tuple[list[tuple[str, str]], str]:
    pairs, phenomenon = [], ""
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        row = parsed(line, where)
        good, bad = (row.get(key) if isinstance(row, dict) else None for key in ("sentence_good", "sentence_bad"))
        if not isinstance(good, str) or not isinstance(bad, str):
            raise ValueError(f"{where}: no sentence_good and sentence_bad; expected both, as text.")
        pairs.append((good, bad))
        phenomenon = str(row.get("linguistics_term") or row.get("phenomenon") or phenomenon)
    return pairs, phenomenon


def _turns(name: str, text: str) -> tuple[list[tuple[str, str]], str]:
    """CLiMP (Xiang et al., EACL 2021): a table with the columns sentence and label, 1 for good, then its bad sibling with 0."""
    try:
        rows = list(csv.DictReader(lines_of(text), strict=True))
    except csv.Error as error:
        raise ValueError(f"{name}: not a table with commas between ({error}).") from None
    pairs: list[tuple[str, str]] = []
    good: str | None = None
    for number, row in enumerate(rows, start=2):
        sentence, label = row.get("sentence"), (row.get("label") or "").strip()
        if sentence is None or label not in ("0", "1") or (label == "1") != (good is None):
            raise ValueError(
                f"{name}, line {number}: expected the columns sentence and label, a good sentence (1) and its bad one (0) in "
                "turns."
            )
        if good is None:
            good = sentence
        else:
            pairs.append((good, sentence))
            good = None
    if good is not None:
        raise ValueError(f"{name}: the last good sentence has no bad one after it.")
    return pairs, ""


def unique_names(paradigms: Sequence[Paradigm], names: Sequence[str]) -> list[Paradigm]:
    """Paradigms of one name in several files are told apart by the shortest ends of their paths that differ."""
    parts = [Path(name.replace(":", "/")).with_suffix("").parts for name in names]
    found = []
    for paradigm, own in zip(paradigms, parts):
        others = [o for o, p in zip(parts, paradigms) if p.name == paradigm.name and o != own]
        count = 1
        while count < len(own) and any(o[-count:] == own[-count:] for o in others):
            count += 1
        found.append(replace(paradigm, name="/".join(own[-count:])) if others else paradigm)
    return found


def right(model: MaskedLM, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], variant: Variant) -> list[float]:
    """1 where the good sentence is likelier, 0 where the bad one is, 1/2 for a tie: by no more than rounding (TIE a token), or of
    equal sentences. Each sentence is scored once. Raises ValueError for a likelihood that is not a number."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    known = dict(zip(texts, score(model, tokenizer, texts, variant)))
    found = []
    for pair in pairs:
        good, bad = (known[text] for text in pair)
        if not (math.isfinite(good.total) and math.isfinite(bad.total)):
            raise ValueError("a sentence's likelihood is not a number: the checkpoint has diverged.")
        near = abs(good.total - bad.total) <= TIE * max(len(good.tokens), len(bad.tokens))
        found.append(0.5 if near else float(good.total > bad.total))
    return found


def interval(rights: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Accuracy of all pairs, and the ends of its 95% interval; one list for each paradigm.

    From the spread between paradigms, by the t distribution. Wilson's interval of all pairs if there is one paradigm, or no
    spread: when all are right the spread is 0, but the interval is not.
    """
    sums, counts = [sum(r) for r in rights], [len(r) for r in rights]
    mean, error = clustered_mean(sums, counts)
    if error:
        half = t_quantile(len(sums) - 1) * error
        return mean, max(0.0, mean - half), min(1.0, mean + half)
    n, z = sum(counts), 1.96
    middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return mean, middle - half, middle + half


Rights = Sequence[Sequence[float]]
"""Of one checkpoint: for each paradigm, what `right` gives."""


def paired(*seeds: tuple[Rights, Rights]) -> str:
    """Our accuracy less theirs on the same pairs, in points, mean of the seeds (ours, theirs); after ± half of its 95% interval,
    from the spread between paradigms and between seeds, by the t distribution."""

    def clusters(side: Rights) -> dict[str, list]:
        counts = [len(rights) for rights in side]
        return {"documents": list(range(len(side))), "counts": counts, "sums": [100 * sum(rights) for rights in side]}

    return paired_difference([(clusters(ours), clusters(theirs)) for ours, theirs in seeds]).text(".1f")
