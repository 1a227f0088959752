"""What a downstream task is: its texts, its labels, how it is measured, and where its rows stand.

Rows are read from the official files (tab-separated without quoting for GLUE, one JSON object a line for CLUE), or from
files in the hub's layout (.jsonl or .parquet with the hub's column names and label numbers), or from the hub itself. A task
whose files are made otherwise is a subclass that says what an example is (choices.py, spans.py).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.files import to_json, user_path
from data.text import read_lines
from eval.reading import HUB, hub_rows, json_lines, number_of, parquet

HUB_SPLITS = {"dev": "validation", "dev_matched": "validation_matched", "dev_mismatched": "validation_mismatched"}


@dataclass(frozen=True)
class Example:
    """One question: a text or a pair; its label; its own index or name in the official files; what may be chosen.

    label: a class's number, a score, the number of the right choice, or for spans the accepted (text, begin) pairs; None
    where it is not told.
    """

    texts: tuple[str, ...]
    label: Any
    index: int | str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """A task's rows: those to train on, those of each dev and test split by its name, and those of the tasks that are
    answered with this one's model."""

    train: list[Example]
    dev: dict[str, list[Example]]
    test: dict[str, list[Example]] = field(default_factory=dict)
    extra: dict[str, list[Example]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A task on a sentence or a pair, or a subclass's.

    form:       class, score, choice (the right one of a row's choices) or span (a part of the text); see forms.py.
    labels:     the classes as the official files spell them, in the hub's order; empty for a score (regression).
    texts:      columns of the text or the pair.
    label:      the column of the label.
    metrics:    as the benchmark defines them, see metrics.py; their mean is the task's score.
    also:       metrics that are shown beside the score.
    splits:     what is read for train, dev (one or several) and test: names of files without suffix.
    headless:   splits whose official file has no header, with the columns that it has.
    rows:       official counts by split.
    submission: names of the files of a submission, by test split.
    aliases:    other names that columns have in some releases, with ours.
    files:      other names that a split's files have, without suffix.
    extra:      tasks without training rows, answered with this task's model (GLUE's diagnostic set with MNLI's).
    range:      of a score: what a submission may hold.
    broken:     the official file has rows that a line break cuts in two: they are left out, as the benchmark's own reader does,
                and said. Elsewhere a row with another number of columns is refused.
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
    form: Literal["class", "score", "choice", "span"] = "class"
    also: tuple[str, ...] = ()
    extra: tuple["Task", ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    range: tuple[float, float] = (-math.inf, math.inf)
    broken: bool = False

    def read(self, data: str, split: str, notes: list[str] | None = None) -> list[Example]:
        """The rows of a split, from a folder that holds the task's folder, or from the hub.

        notes: where a sentence goes for what was left out. Raises FileNotFoundError, or ValueError that names file and line.
        """
        if data == HUB:
            rows, where = hub_rows(self.name, self.hub, HUB_SPLITS.get(split, split)), f"the hub's {'/'.join(self.hub)}"
            return [e for i, row in enumerate(rows) for e in self.of_hub(row, i, f"{where}, row {i}")]
        found: list[Example] = []
        for path in self.find(Path(data), split):
            found += self.examples(path, split, notes)
        return found

    def examples(self, path: Path, split: str, notes: list[str] | None = None) -> list[Example]:
        """Of one file."""
        if path.suffix == ".tsv":
            rows, make = self._tsv(path, split, notes), self.of_official
        elif path.suffix == ".parquet":
            rows, make = parquet(path), self.of_hub
        else:
            rows, make = json_lines(path), self.of_hub if path.suffix == ".jsonl" else self.of_official
        return [e for i, (n, row) in enumerate(rows) for e in make(row, i, f"{path}, line {n}")]

    def answer(self, example: Example, predicted: Any) -> Any:
        """What a submission says for `example`."""
        if self.form == "score":
            return f"{min(max(predicted, self.range[0]), self.range[1]):.3f}"
        return self.labels[int(predicted)]

    def submitted(self, split: str, examples: Sequence[Example], answers: Sequence[Any]) -> tuple[str, str]:
        """Name and text of the file that a submission holds for a test split."""
        file = self.submission.get(split, f"{self.name}.tsv")
        named = [self.answer(example, answer) for example, answer in zip(examples, answers)]
        if file.endswith(".json"):
            lines = [to_json({"id": e.index, "label": answer}) for e, answer in zip(examples, named)]
        else:
            lines = ["index\tprediction", *(f"{i}\t{answer}" for i, answer in enumerate(named))]
        return file, "\n".join(lines) + "\n"

    def count(self, examples: Sequence[Example]) -> int:
        """As the official numbers count."""
        return len(examples)

    def count_differs(self, split: str, examples: Sequence[Example]) -> str | None:
        """A sentence where a split has another number of rows than the official one."""
        official, found = self.rows.get(split), self.count(examples)
        if official is None or official == found:
            return None
        return f"{self.name}: {split} has {found:,} rows and the official one {official:,}; its scores compare with no others."

    def names(self, split: str) -> tuple[str, ...]:
        """Of the files that may hold a split, without suffix; all that are there are read."""
        return (split, *self.files.get(split, ()))

    def find(self, data: Path, split: str) -> list[Path]:
        folder = user_path(data) / (self.folder or self.name)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.name}: there is no folder {folder}; give with DATA= the folder that holds {folder.name}/, or DATA=hub."
            )
        found, looked = [], []
        for name in self.names(split):
            paths = [folder / f"{name}{suffix}" for suffix in (".tsv", ".json", ".jsonl", ".parquet")]
            looked += [path.name for path in paths]
            found += [path for path in paths if path.exists()][:1]
        if not found:
            raise FileNotFoundError(f"{self.name}: {folder} has no {' or '.join(looked)}.")
        return found

    def _tsv(self, path: Path, split: str, notes: list[str] | None) -> Iterator[tuple[int, dict[str, str]]]:
        """Quotation marks are text in these files."""
        names, lost = self.headless.get(split), []
        for number, line in enumerate(read_lines(path), start=1):
            cells = line.replace("\0", "").split("\t")
            if names is None:
                names = tuple(self.aliases.get(cell, cell) for cell in cells)
                wanted = {*self.texts} | ({self.label} if split not in self.test else set())
                if missing := wanted - set(names):
                    raise ValueError(
                        f"{path}, line 1: no column {', '.join(sorted(missing))}; found {', '.join(names)}. Expected "
                        f"the official file of {self.name}."
                    )
                continue
            if not line:
                continue
            while len(cells) > len(names) and not cells[-1].strip():  # tabs at the end of a line
                cells.pop()
            last = max(names.index(name) for name in (*self.texts, self.label) if name in names)
            if last < len(cells) <= len(names):
                yield number, dict(zip(names, cells))
            elif self.broken:
                lost.append(number)
            else:
                raise ValueError(
                    f"{path}, line {number}: {len(cells)} columns, expected {len(names)} with tabs between."
                )
        if lost and notes is not None:
            notes.append(
                f"{self.name}: {len(lost):,} lines of {path} are rows that a line break cuts in two, or have a tab too many, the "
                f"first in line {lost[0]}; they are left out, as the benchmark's own reader does."
            )

    def of_official(self, row: dict[str, Any], index: int, where: str) -> list[Example]:
        """The examples of one row of an official file."""
        for name in self.texts:
            if not isinstance(row.get(name), str):
                raise ValueError(f"{where}: no text in {name!r}; found {', '.join(row) or 'nothing'}.")
        texts = tuple(row[name] for name in self.texts)
        return [Example(texts, self.label_of(row.get(self.label), where), row.get("id", index))]

    def label_of(self, found: Any, where: str) -> int | float | None:
        if found is None or found == "-":  # the annotators did not agree
            return None
        if self.form == "score":
            return number_of(found, where)
        if str(found) not in self.labels:
            raise ValueError(f"{where}: the label {found!r} is none of {', '.join(self.labels)}.")
        return self.labels.index(str(found))

    def of_hub(self, row: dict[str, Any], index: int, where: str) -> list[Example]:
        """The examples of one row of the hub's table."""
        texts = self.hub_texts or self.texts
        if missing := [name for name in texts if not isinstance(row.get(name), str)]:
            raise ValueError(f"{where}: no text in {', '.join(missing)}; found {', '.join(row)}.")
        found = row.get("label", row.get(self.label))
        if isinstance(found, str):
            label = self.label_of(found, where)
        elif found is None or (self.form != "score" and found == -1):  # how the hub marks a label that is not told
            label = None
        elif self.form == "score":
            label = number_of(found, where)
        elif not isinstance(found, int | float) or found not in range(len(self.labels)):
            raise ValueError(f"{where}: the label {found} is none of the numbers 0 to {len(self.labels) - 1}.")
        else:
            label = int(found)
        return [Example(tuple(row[name] for name in texts), label, row.get("idx", row.get("id", index)))]
