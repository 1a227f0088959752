"""Texts to write, from files: sources with targets, or dialogues; and how a written text is measured against its target.

.jsonl   {"source": "...", "target": "..."} on each line, or {"turns": ["...", "...", ...]}
.tsv     source, a tab, target; no header
.txt     articles with blank lines between: the first line, a title, is written from the others
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.chinese import HAN
from data.text import lines_of, read_lines, read_text
from data.tokenizer import Tokenizer
from eval.reading import json_lines


@dataclass(frozen=True)
class Row:
    """source is empty in a dialogue, whose turns are all targets."""

    source: str
    targets: tuple[str, ...]


def read(path: Path) -> list[Row]:
    """Raises FileNotFoundError, or ValueError that names file and line for a row without a source or a target."""
    if path.suffix == ".jsonl":
        rows = [_of_json(f"{path}, line {number}", row) for number, row in json_lines(path)]
    elif path.suffix == ".tsv":
        rows = []
        for number, line in enumerate(read_lines(path), start=1):
            parts = line.split("\t")
            if len(parts) != 2:
                raise ValueError(
                    f"{path}, line {number}: {len(parts)} columns; expected a source, a tab and its target."
                )
            rows.append(_row(f"{path}, line {number}", parts[0], (parts[1],)))
    elif path.suffix == ".txt":
        rows = [row for block in re.split(r"\n\s*\n", "\n".join(lines_of(read_text(path)))) if (row := _article(block))]
    else:
        raise ValueError(f"{path}: expected .jsonl, .tsv or .txt; found {path.suffix or 'no suffix'}.")
    if not rows:
        raise ValueError(f"{path}: no row in it; expected sources and targets.")
    if len({bool(row.source) for row in rows}) > 1:
        raise ValueError(
            f"{path}: some rows are dialogues and some have a source and a target; expected rows of one kind."
        )
    return rows


def _article(block: str) -> Row | None:
    title, _, body = block.strip().partition("\n")
    return Row(body.strip(), (title.strip(),)) if title.strip() and body.strip() else None


def _of_json(where: str, row: dict[str, Any]) -> Row:
    turns = row.get("turns")
    if turns is not None:
        if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(t, str) and t.strip() for t in turns):
            raise ValueError(f"{where}: turns must be a list of at least two texts, none of them empty.")
        return Row("", tuple(turns))
    source, target = row.get("source"), row.get("target")
    if not isinstance(source, str) or not isinstance(target, str):
        raise ValueError(f"{where}: no source and target; expected both, as text, or turns.")
    return _row(where, source, (target,))


def _row(where: str, source: str, targets: tuple[str, ...]) -> Row:
    for name, text in (("source", source), ("target", targets[0])):
        if not text.strip():
            raise ValueError(f"{where}: the {name} is empty; leave the line out.")
    return Row(source, targets)


def tokens_of(row: Row, tokenizer: Tokenizer, longest: int, most_target: int) -> tuple[list[int], list[int], bool]:
    """BOS source EOS, then the targets, each with an EOS, and whether something was cut: the source's end, then the target's."""
    end = tokenizer.eos_id
    target = [token for text in row.targets for token in [*tokenizer.encode_inside(text), end]]
    source = [tokenizer.bos_id, *([*tokenizer.encode(row.source), end] if row.source else [])]
    cut = False
    if len(target) > (most := most_target if row.source else longest - 1):
        target, cut = [*target[: most - 1], end], True
    if len(source) + len(target) > longest:
        source, cut = [*source[: longest - len(target) - 1], end], True
    return source, target, cut


class Units:
    """Characters of Chinese, words of all else, in lower case: what ROUGE counts."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(rf"[{HAN}]|(?:(?![{HAN}])\w)+", text.lower())


def rouge(wanted: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """The mean F1 x 100 of ROUGE-1, -2 and -L (Lin 2004), by rouge-score, which must be installed."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, tokenizer=Units())
    scores = [scorer.score(a, b) for a, b in zip(wanted, found, strict=True)]
    return {name: 100 * sum(score[name].fmeasure for score in scores) / len(scores) for name in names}


def lead(train: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """The baseline: the first k characters (of texts with spaces: words) of each source, with the k in 1 .. 40 that has the best
    ROUGE-L on the first 200 training rows."""
    spaced = sum(" " in row.source for row in train) > len(train) / 2

    def cut(text: str, k: int) -> str:
        return " ".join(text.split()[:k]) if spaced else text[:k]

    some = train[:200]
    wanted = [row.targets[0] for row in some]
    best = max(range(1, 41), key=lambda k: rouge(wanted, [cut(row.source, k) for row in some])["rougeL"])
    return [cut(row.source, best) for row in rows]
