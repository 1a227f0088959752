"""What a downstream task is: its texts, its labels, how it is measured, and where its rows stand.

Rows are read from the official files (tab-separated without quoting for GLUE, one JSON object a line for CLUE), or from
files in the hub's layout (.jsonl or .parquet with the hub's column names and label numbers), or from the hub itself.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HUB = "hub"  # given as the data's place: download through `datasets`


@dataclass(frozen=True)
class Example:
    """One row: a text or a pair, its label (a class's number, a score, or None where it is not told), its own index."""

    texts: tuple[str, ...]
    label: int | float | None
    index: int


@dataclass(frozen=True)
class Splits:
    """A task's rows: those to train on, and those of each dev and test split by its name."""

    train: list[Example]
    dev: dict[str, list[Example]]
    test: dict[str, list[Example]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A sentence or sentence-pair task.

    labels:     the classes as the official files spell them, in the hub's order; empty for a score (regression).
    texts:      columns of the text or the pair.
    label:      the column of the label.
    metrics:    as the benchmark defines them, see metrics.py; their mean is the task's score.
    splits:     what is read for train, dev (one or several) and test: names of files without suffix.
    headless:   splits whose official file has no header, with the columns that it has.
    rows:       official counts by split.
    submission: names of the files of a submission, by test split.
    """

    name: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    label: str
    metrics: tuple[str, ...]
    folder: str = ""
    dev: tuple[str, ...] = ("dev",)
    test: tuple[str, ...] = ("test",)
    headless: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    submission: dict[str, str] = field(default_factory=dict)
    hub: tuple[str, str] = ("", "")
    hub_texts: tuple[str, ...] = ()

    @property
    def regression(self) -> bool:
        return not self.labels

    def read(self, data: str, split: str) -> list[Example]:
        """The rows of a split, from a folder that holds the task's folder, or from the hub.

        Raises FileNotFoundError, or ValueError that names file and line.
        """
        if data == HUB:
            rows, where = self._hub_rows(split), f"the hub's {'/'.join(self.hub)}"
            return [self._of_hub(row, i, f"{where}, row {i}") for i, row in enumerate(rows)]
        path = self._find(Path(data), split)
        if path.suffix == ".tsv":
            return [self._of_official(row, i, f"{path}, line {n}") for i, (n, row) in enumerate(self._tsv(path, split))]
        found = list(_parquet(path) if path.suffix == ".parquet" else _json_lines(path))
        make = self._of_hub if path.suffix != ".json" else self._of_official
        return [make(row, i, f"{path}, line {n}") for i, (n, row) in enumerate(found)]

    def count_differs(self, split: str, found: int) -> str | None:
        """A sentence where a split has another number of rows than the official one."""
        official = self.rows.get(split)
        if official is None or official == found:
            return None
        return f"{self.name}: {split} has {found:,} rows and the official one {official:,}; its scores compare with no others."

    def _find(self, data: Path, split: str) -> Path:
        folder = data / (self.folder or self.name)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.name}: there is no folder {folder}; give with DATA= the folder that holds {folder.name}/, or DATA=hub."
            )
        names = [folder / f"{split}{suffix}" for suffix in (".tsv", ".json", ".jsonl", ".parquet")]
        path = next((name for name in names if name.exists()), None)
        if path is None:
            raise FileNotFoundError(f"{self.name}: {folder} has no {' or '.join(n.name for n in names)}.")
        return path

    def _tsv(self, path: Path, split: str) -> Iterator[tuple[int, dict[str, str]]]:
        """Quotation marks are text in these files, and a byte-order mark is none."""
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader((line.replace("\0", "") for line in file), delimiter="\t", quoting=csv.QUOTE_NONE)
            names = self.headless.get(split)
            for number, cells in enumerate(lines, start=1):
                if names is None:
                    names = tuple(cells)
                    wanted = {*self.texts} | ({self.label} if split not in self.test else set())
                    if missing := wanted - set(names):
                        raise ValueError(
                            f"{path}, line 1: no column {', '.join(sorted(missing))}; found {', '.join(names)}. Expected "
                            f"the official file of {self.name}."
                        )
                    continue
                if not cells:
                    continue
                last = max(names.index(name) for name in (*self.texts, self.label) if name in names)
                if len(cells) <= last:
                    raise ValueError(
                        f"{path}, line {number}: {len(cells)} columns, expected {len(names)} with tabs between."
                    )
                yield number, dict(zip(names, cells))

    def _of_official(self, row: dict[str, Any], index: int, where: str) -> Example:
        for name in self.texts:
            if not isinstance(row.get(name), str):
                raise ValueError(f"{where}: no text in {name!r}; found {', '.join(row) or 'nothing'}.")
        return Example(tuple(row[name] for name in self.texts), self._label(row.get(self.label), where), index)

    def _label(self, found: Any, where: str) -> int | float | None:
        if found is None:
            return None
        if self.regression:
            try:
                return float(found)
            except ValueError:
                raise ValueError(f"{where}: the score {found!r} is no number.") from None
        if str(found) not in self.labels:
            raise ValueError(f"{where}: the label {found!r} is none of {', '.join(self.labels)}.")
        return self.labels.index(str(found))

    def _of_hub(self, row: dict[str, Any], index: int, where: str) -> Example:
        texts = self.hub_texts or self.texts
        if missing := [name for name in texts if not isinstance(row.get(name), str)]:
            raise ValueError(f"{where}: no text in {', '.join(missing)}; found {', '.join(row)}.")
        found = row.get("label", row.get(self.label))
        if isinstance(found, str):
            label = self._label(found, where)
        elif found is None or (not self.regression and found == -1):  # how the hub marks a label that is not told
            label = None
        elif self.regression:
            label = float(found)
        else:
            label = int(found)
            if not 0 <= label < len(self.labels):
                raise ValueError(f"{where}: the label {found} is none of the numbers 0 to {len(self.labels) - 1}.")
        return Example(tuple(row[name] for name in texts), label, int(row.get("idx", index)))

    def _hub_rows(self, split: str) -> Iterable[dict[str, Any]]:
        import datasets

        named = {"dev": "validation", "dev_matched": "validation_matched", "dev_mismatched": "validation_mismatched"}
        try:
            return datasets.load_dataset(*self.hub, split=named.get(split, split))
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConnectionError(
                f"{self.name}: the hub did not give {'/'.join(self.hub)} ({reason}); give DATA=folder."
            ) from error


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}); expected one object a line.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a JSON {type(row).__name__}; expected one object a line.")
        yield number, row


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow.parquet

    yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1)
