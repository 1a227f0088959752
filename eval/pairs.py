"""Minimal pairs: is the good sentence likelier than the bad one? `python -m eval.pairs --checkpoints A B --data FILE ...`

BLiMP (Warstadt et al. 2020, arXiv 1912.00582), ZhoBLiMP, CLiMP, SLING, or any JSON lines with `sentence_good` and
`sentence_bad`; zip and tar archives are read in place, each .jsonl in them a paradigm. A pair is right when the
pseudo-log-likelihood of the good sentence is higher; a tie counts half. Chance is 50%. Beside the accuracy of all pairs stands
its 95% interval, from the spread between paradigms where there are several (pairs of a paradigm are no independent
witnesses), else Wilson's.
"""

import io
import json
import math
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from data.options import check_types
from data.tokenizer import Tokenizer
from eval.command import command, open_checkpoint, said, write_records
from eval.score import Variant, score
from model import MaskedLM
from report.statistics import clustered_mean

PUBLISHED = "people 88.6, RoBERTa-large 86.5, GPT-2 345M 82.6 (Salazar et al. 2020)"


@dataclass(frozen=True)
class Paradigm:
    """Pairs (good, bad) of one kind."""

    name: str
    phenomenon: str
    pairs: list[tuple[str, str]]


def files_of(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of each .jsonl: the file itself, those of a folder, or those inside a .zip or .tar(.gz, .xz)."""
    if path.is_dir():
        for file in sorted(path.rglob("*.jsonl")):
            yield str(file), file.read_text(encoding="utf-8")
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if _wanted(n)):
                yield f"{path}:{name}", archive.read(name).decode()
    elif ".tar" in path.suffixes or path.suffix in (".tgz", ".tar"):
        with tarfile.open(path) as archive:
            for member in sorted((m for m in archive if m.isfile() and _wanted(m.name)), key=lambda m: m.name):
                yield f"{path}:{member.name}", io.TextIOWrapper(archive.extractfile(member), encoding="utf-8").read()
    else:
        yield str(path), path.read_text(encoding="utf-8")


def _wanted(name: str) -> bool:
    return name.endswith(".jsonl") and not Path(name).name.startswith(".") and "__MACOSX" not in name


def read_paradigm(name: str, text: str, limit: int = 0) -> Paradigm:
    """Raises ValueError that names file and line for what is no pair."""
    pairs, phenomenon, uid = [], "", Path(name.rpartition(":")[2]).stem
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or (limit and len(pairs) == limit):
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON ({error}); expected a pair on each line.") from None
        good, bad = (row.get(key) if isinstance(row, dict) else None for key in ("sentence_good", "sentence_bad"))
        if not isinstance(good, str) or not isinstance(bad, str):
            raise ValueError(f"{where}: no sentence_good and sentence_bad; expected both, as text.")
        pairs.append((good, bad))
        phenomenon = str(row.get("linguistics_term") or row.get("phenomenon") or phenomenon)
    if not pairs:
        raise ValueError(f"{name}: no pair in it; expected one on each line.")
    return Paradigm(uid, phenomenon or uid, pairs)


def right(model: MaskedLM, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], variant: Variant) -> list[float]:
    """1 where the good sentence is likelier, 0 where the bad one is, 1/2 for a tie."""
    totals = [s.total for s in score(model, tokenizer, [text for pair in pairs for text in pair], variant)]
    return [0.5 if a == b else float(a > b) for a, b in zip(totals[::2], totals[1::2])]


def interval(rights: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Accuracy of all pairs, and the ends of its 95% interval; one list for each paradigm."""
    sums, counts = [sum(r) for r in rights], [len(r) for r in rights]
    mean, error = clustered_mean(sums, counts)
    if error is not None:
        return mean, max(0.0, mean - 1.96 * error), min(1.0, mean + 1.96 * error)
    n, z = counts[0], 1.96
    middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return mean, middle - half, middle + half


def paired(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str:
    """The difference of accuracies on the same pairs, in points, ± its standard error from the spread between paradigms."""
    sums = [sum(a) - sum(b) for a, b in zip(ours, theirs)]
    mean, error = clustered_mean(sums, [len(a) for a in ours])
    return f"{100 * mean:+.1f}" + (f" ± {100 * error:.1f}" if error is not None else "")


@dataclass(frozen=True)
class PairsConfig:
    """Accuracy on minimal pairs, by paradigm and phenomenon."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote."""
    data: tuple[Path, ...]
    """Files, folders or archives of pairs."""
    variant: Variant = "original"
    """What a token is predicted from; see eval/score.py."""
    limit: int = 0
    """Pairs of each paradigm; 0 takes all."""
    out: Path = Path("runs/pairs")
    """Where results.jsonl goes."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints or not self.data:
            raise ValueError("Name a checkpoint with --checkpoints and the pairs with --data.")
        if self.limit < 0:
            raise ValueError(f"limit is {self.limit}; it must be 0 (all) or more.")


def run(config: PairsConfig, console: Console) -> int:
    """Returns 1 if a paradigm could not be read, with the others scored."""
    paradigms, failed = [], []
    for path in config.data:
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}; give a file, a folder or an archive of pairs.")
        try:
            for name, text in files_of(path):
                try:
                    paradigms.append(read_paradigm(name, text, config.limit))
                except ValueError as error:
                    failed.append(str(error))
        except (zipfile.BadZipFile, tarfile.TarError, UnicodeDecodeError, EOFError) as error:
            failed.append(f"{path}: not a whole archive or file of pairs ({error}); fetch it again.")
    if not paradigms:
        raise ValueError(" ".join(failed) or "No pairs were found; expected .jsonl files.")
    opened = {str(path): open_checkpoint(path) for path in config.checkpoints}
    records, found = [], {}
    for label, (model, tokenizer) in opened.items():
        for paradigm in tqdm(paradigms, desc=label[-30:], unit="paradigm", disable=None):
            found[label, paradigm.name] = right(model, tokenizer, paradigm.pairs, config.variant)
            own = found[label, paradigm.name]
            records.append(
                {"checkpoint": label, "paradigm": paradigm.name, "phenomenon": paradigm.phenomenon, "pairs": len(own)}
                | {"accuracy": sum(own) / len(own), "variant": config.variant}
            )
    write_records(config.out / "results.jsonl", records)
    table = Table(title=f"minimal pairs, {config.variant}: % right (chance 50)", title_justify="left")
    table.add_column("phenomenon")
    for label in opened:
        table.add_column(escape(label), justify="right", overflow="fold")
    for phenomenon in sorted({p.phenomenon for p in paradigms}):
        own = [p.name for p in paradigms if p.phenomenon == phenomenon]
        cells = (interval([found[label, name] for name in own])[0] for label in opened)
        table.add_row(phenomenon, *(f"{100 * cell:.1f}" for cell in cells))
    totals = [interval([found[label, p.name] for p in paradigms]) for label in opened]
    table.add_row("all", *(f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})" for mean, low, high in totals))
    first, *others = opened
    if others:
        cells = [""] + [
            paired([found[label, p.name] for p in paradigms], [found[first, p.name] for p in paradigms])
            for label in others
        ]
        table.add_row("against the first, paired", *cells)
    console.print(table)
    if len(paradigms) == 67 and {"anaphor_agreement", "island_effects"} <= {p.phenomenon for p in paradigms}:
        console.print(f"BLiMP elsewhere: {PUBLISHED}.")
    console.print(
        f"{len(paradigms)} paradigms, {sum(len(p.pairs) for p in paradigms):,} pairs. Results: {config.out}/results.jsonl"
    )
    return said(failed, console)


def main() -> int:
    return command(PairsConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
