"""Lists of hypotheses to choose from, their references, and how a choice is measured.

    .json   {"utterance": {"hyp_1": {"score": -7.6, "text": "..."}, ...}, ...}     as mlm-scoring has them
    .tsv    a header of id, text and (if there is one) score; a line for each hypothesis
    a, b .. plain files, line by line the hypotheses of one sentence: `source,corrected1,corrected2`

References: .json {"utterance": "..." or {"text": "..."}}, .tsv with id and text (several lines for several), or plain files.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from data.files import user_path
from data.text import parsed, read_lines, read_text
from eval.reading import number_of


@dataclass(frozen=True)
class NBest:
    """One utterance: hypotheses, the scores that another model gave them, and the references.

    own: for each hypothesis the number of the reference that it is itself, or -1: it is not measured against that one.
    """

    name: str
    texts: list[str]
    scores: list[float]
    references: list[str]
    own: list[int]


def read(lists: str, references: Sequence[str], notes: list[str] | None = None) -> list[NBest]:
    """notes: where a sentence goes for references without a list. Raises FileNotFoundError, or ValueError that names file and
    line, or an utterance without its reference."""
    if "," in lists or Path(lists).suffix not in (".json", ".tsv"):
        return _aligned(lists.split(","), references)
    path = _existing(lists)
    found = _json(path) if path.suffix == ".json" else _tsv(path)
    known: dict[str, list[str]] = {}
    plain = [_existing(name) for name in references if Path(name).suffix not in (".json", ".tsv")]
    for name in references:
        if Path(name).suffix in (".json", ".tsv"):
            for utterance, text in _references(_existing(name)):
                known.setdefault(utterance, []).append(text)
    for file in plain:
        lines = read_lines(file)
        if len(lines) != len(found):
            raise ValueError(
                f"{file} has {len(lines):,} lines and {path} {len(found):,} utterances; the numbers must be equal."
            )
        for utterance, text in zip(found, lines):
            known.setdefault(utterance, []).append(text)
    if missing := [name for name in found if name not in known] if references else []:
        raise ValueError(f"{path}: {len(missing):,} utterances have no reference, the first is {missing[0]!r}.")
    if (unheard := [name for name in known if name not in found]) and notes is not None:
        notes.append(
            f"{path}: no list for {len(unheard):,} of {len(known):,} references, the first is {unheard[0]!r}; the other "
            f"{len(found):,} are measured."
        )
    return [
        NBest(name, [t for t, _ in entries], [s for _, s in entries], known.get(name, []), [-1] * len(entries))
        for name, entries in found.items()
    ]


def _existing(name: str) -> Path:
    if not user_path(name).is_file():
        raise FileNotFoundError(
            f"There is no file {name}; give lists as .json, .tsv, or plain files with commas between."
        )
    return user_path(name)


def _aligned(names: Sequence[str], references: Sequence[str]) -> list[NBest]:
    """A hypothesis of each file's line. One that comes from a file of references is not measured against that file."""
    columns = {name: read_lines(_existing(name)) for name in dict.fromkeys([*names, *references])}
    if len({len(lines) for lines in columns.values()}) > 1:
        told = ", ".join(f"{name} {len(lines):,}" for name, lines in columns.items())
        raise ValueError(
            f"The files have different numbers of lines ({told}); they must have the same number, line by line."
        )
    known = {_existing(name).resolve(): i for i, name in enumerate(references)}  # however they are spelt
    own = [known.get(_existing(name).resolve(), -1) for name in names]
    count = len(columns[names[0]])
    return [
        NBest(str(i), [columns[n][i] for n in names], [0.0] * len(names), [columns[n][i] for n in references], own)
        for i in range(count)
    ]


def _json(path: Path) -> dict[str, list[tuple[str, float]]]:
    rows = _loaded(path)
    found = {}
    for utterance, hypotheses in rows.items():
        try:
            found[utterance] = [(_text(h["text"]), float(h["score"])) for h in hypotheses.values()]
        except (TypeError, KeyError, AttributeError, ValueError):
            raise ValueError(f"{path}, {utterance!r}: expected hypotheses with text and score.") from None
        if not found[utterance]:
            raise ValueError(f"{path}, {utterance!r}: no hypothesis; expected one or more.")
    return found


def _text(found: object) -> str:
    if not isinstance(found, str):
        raise TypeError
    return found


def _loaded(path: Path) -> dict:
    rows = parsed(read_text(path), str(path))
    if not isinstance(rows, dict) or not rows:
        raise ValueError(f"{path}: expected an object with an entry for each utterance.")
    return rows


def _rows(path: Path, wanted: set[str]):
    first, *lines = [line.split("\t") for line in read_lines(path)] or [[]]
    if missing := wanted - set(first):
        raise ValueError(
            f"{path}, line 1: no column {', '.join(sorted(missing))}; found {', '.join(first) or 'nothing'}."
        )
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(first):
            raise ValueError(f"{path}, line {number}: {len(cells)} columns, expected {len(first)} with tabs between.")
        yield number, dict(zip(first, cells))


def _tsv(path: Path) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for number, row in _rows(path, {"id", "text"}):
        score = number_of(row.get("score", 0.0), f"{path}, line {number}")
        found.setdefault(row["id"], []).append((row["text"], score))
    return found


def _references(path: Path):
    if path.suffix == ".tsv":
        yield from ((row["id"], row["text"]) for _, row in _rows(path, {"id", "text"}))
        return
    for utterance, told in _loaded(path).items():
        text = told.get("text") if isinstance(told, dict) else told
        if not isinstance(text, str):
            raise ValueError(f"{path}, {utterance!r}: no text of a reference.")
        yield utterance, text


def error_rate(lists: Sequence[NBest], characters: bool = False) -> list[np.ndarray]:
    """For each utterance (hypotheses, 2): edits to the nearest reference, and that one's length. In words, or characters.

    A hypothesis that is the only reference itself counts against it all the same.
    """

    def units(text: str) -> list[str]:
        return [c for c in text if not c.isspace()] if characters else text.split()

    found = []
    for entry in lists:
        rows = []
        for text, own in zip(entry.texts, entry.own):
            others = [r for i, r in enumerate(entry.references) if i != own] or entry.references
            edits = [(Levenshtein.distance(units(text), units(r)), len(units(r))) for r in others]
            rows.append(min(edits, key=lambda pair: pair[0] / max(1, pair[1])))  # silence has a length of 0
        found.append(np.array(rows, dtype=np.float64))
    return found


def gleu_statistics(source: str, hypothesis: str, reference: str, order: int = 4) -> np.ndarray:
    """(2 + 2 order,): lengths of hypothesis and reference; matched n-grams less those of the source that the reference has
    not, and n-grams in all, for each n."""

    def grams(text: str, n: int) -> Counter:
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    lengths = [len(hypothesis.split()), len(reference.split())]
    for n in range(1, order + 1):
        h, s, r = grams(hypothesis, n), grams(source, n), grams(reference, n)
        kept = Counter({gram: count for gram, count in s.items() if gram not in r})
        lengths += [max(0, (h & r).total() - (h & kept).total()), max(0, lengths[0] + 1 - n)]
    return np.array(lengths, dtype=np.float64)


def gleu(statistics: np.ndarray) -> float:
    """Of statistics summed over sentences (Napoles et al. 2015, and its 2016 correction, arXiv 1605.02592); 0 to 1."""
    hypothesis, reference = statistics[:2]
    matched, counted = statistics[2::2], statistics[3::2]
    if hypothesis == 0 or (matched == 0).any() or (counted == 0).any():
        return 0.0
    return float(np.exp(min(0.0, 1 - reference / hypothesis) + np.log(matched / counted).mean()))


def gleu_table(lists: Sequence[NBest]) -> list[list[list[np.ndarray]]]:
    """For each sentence and hypothesis, statistics against each reference that it is measured with; the first hypothesis
    is the source. A hypothesis that is the only reference itself is measured with it all the same."""
    return [
        [
            [
                gleu_statistics(e.texts[0], text, r)
                for r in [r for i, r in enumerate(e.references) if i != own] or e.references
            ]
            for text, own in zip(e.texts, e.own)
        ]
        for e in lists
    ]


def corpus_gleu(table: Sequence[Sequence[Sequence[np.ndarray]]], chosen: Sequence[int], draws: int = 200) -> float:
    """Mean over draws of one reference for each sentence, as the metric's authors do it; always the same draws."""
    picked = [sentence[i] for sentence, i in zip(table, chosen)]
    draw = random.Random(0)
    totals = [np.sum([stats[draw.randrange(len(stats))] for stats in picked], axis=0) for _ in range(draws)]
    return float(np.mean([gleu(total) for total in totals]))
