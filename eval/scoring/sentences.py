"""Sentences as vectors, and files of pairs whose similarity people judged. See eval/similarity.py."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from data.text import read_lines
from data.tokenizer import Tokenizer
from eval.finetune.rows import states_of
from eval.finetune.train import Classifier, Recipe
from eval.reading import hub_rows, json_lines, number_of, parquet
from model import MaskedLM
from model.batch import Batch

HUB_SETS = {
    **{f"STS{year}": f"mteb/sts{year}-sts" for year in (12, 13, 14, 15, 16)},
    "STS-B": "mteb/stsbenchmark-sts",
    "SICK-R": "mteb/sickr-sts",
    "STS-B-zh": "C-MTEB/STSB",
}


NAMES = {
    **{"sentence_A": "sentence1", "sentence_B": "sentence2"},
    **dict.fromkeys(("relatedness_score", "similarity_score", "label"), "score"),
}


@dataclass(frozen=True)
class Pairs:
    """Sentences (a, b) and how similar people found them."""

    name: str
    texts: list[tuple[str, str]]
    scores: list[float]


def read(path: Path) -> list[Pairs]:
    """Raises FileNotFoundError, or ValueError that names file and line."""
    if path.is_dir():
        inputs = sorted(path.glob("STS.input.*.txt"))
        if not inputs:
            raise FileNotFoundError(f"{path} has no STS.input.*.txt; give a file of pairs or a folder of STS 12 to 16.")
        return [_official(file) for file in inputs]
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}; give a file of pairs, a folder, hub, or one of {', '.join(HUB_SETS)}."
        )
    if path.suffix in (".jsonl", ".json", ".parquet"):
        rows = [(n, row) for n, row in (parquet if path.suffix == ".parquet" else json_lines)(path)]
    else:
        rows = list(_separated(path))
    return [_made(f"{path.parent.name}/{path.stem}", [(f"{path}, line {n}", row) for n, row in rows])]


def _separated(path: Path):
    """A table with a header between tabs, or one of the layouts without: lines of id||a||b||score; the STS benchmark's own
    (genre, file, year, id, score, two sentences, sources); the Chinese STS-B's (two sentences, score). No quoting."""
    lines = [(number, line) for number, line in enumerate(read_lines(path), start=1) if line]
    if lines and "||" in lines[0][1] and "\t" not in lines[0][1]:
        for number, line in lines:
            parts = line.split("||")
            if len(parts) < 3:
                raise ValueError(f"{path}, line {number}: {len(parts)} parts between ||, expected id||a||b||score.")
            yield number, dict(zip(("sentence1", "sentence2", "score"), parts[-3:]))
        return
    rows = [(number, line.split("\t")) for number, line in lines]
    names = _columns(rows[0][1]) if rows else ()
    headed = not names
    if headed and rows:
        names = tuple(rows[0][1])
    for number, cells in rows[headed:]:
        named = dict(zip(names, cells))
        if len(cells) > len(names) and names[-1] not in ("rest",):
            raise ValueError(f"{path}, line {number}: {len(cells)} columns, expected {len(names)} with tabs between.")
        yield number, named


def _columns(first: Sequence[str]) -> tuple[str, ...]:
    """Of a file without a header, by its first line; nothing where that is one."""

    def number(cell: str) -> bool:
        return re.fullmatch(r"\d+(\.\d+)?", cell.strip()) is not None

    if len(first) >= 7 and number(first[4]):
        return ("genre", "file", "year", "id", "score", "sentence1", "sentence2", "source1", "source2", "rest")
    if len(first) == 3 and number(first[2]):
        return ("sentence1", "sentence2", "score")
    return ()


def _made(name: str, rows: Sequence[tuple[str, dict]]) -> Pairs:
    texts, scores = [], []
    for where, row in rows:
        row = {NAMES[key]: value for key, value in row.items() if key in NAMES} | row
        a, b, score = (row.get(key) for key in ("sentence1", "sentence2", "score"))
        if score is None:
            raise ValueError(f"{where}: no score; found {', '.join(map(str, row))}.")
        scores.append(number_of(score, where))
        if not isinstance(a, str) or not isinstance(b, str):
            raise ValueError(f"{where}: no sentence1 and sentence2; found {', '.join(map(str, row))}.")
        texts.append((a, b))
    if len(texts) < 3:
        raise ValueError(f"{name}: {len(texts)} pairs, expected some to correlate.")
    return Pairs(name, texts, scores)


def _official(path: Path) -> Pairs:
    """STS 12 to 16: the pairs in one file, their scores in another, where an empty line is a pair that nobody scored."""
    gold = path.with_name(path.name.replace("STS.input", "STS.gs"))
    if not gold.exists():
        raise FileNotFoundError(f"{path} has no {gold.name} beside it, where its scores stand.")
    pairs, scores = read_lines(path), read_lines(gold)
    if len(pairs) != len(scores):
        raise ValueError(f"{path} has {len(pairs)} lines and {gold.name} {len(scores)}; the numbers must be equal.")
    rows = []
    for number, (pair, score) in enumerate(zip(pairs, scores), start=1):
        if score.strip():
            rows.append(
                (f"{path}, line {number}", dict(zip(("sentence1", "sentence2"), pair.split("\t"))) | {"score": score})
            )
    return _made(f"{path.parent.name}/{path.name.removeprefix('STS.input.').removesuffix('.txt')}", rows)


def embed(
    model: MaskedLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    layer: int = -1,
    encode: Literal["with_self", "without_self"] = "with_self",
) -> tuple[torch.Tensor, int]:
    """(texts, D) float32 on the CPU, and how many texts were cut to what the model reads. Puts the model in eval mode.

    Raises ValueError for a layer that the model does not have, and where it has no states without self.
    """
    depth = model.config.n_layers
    if not -1 <= layer <= depth:
        raise ValueError(f"layer is {layer}; this model has 0 (the embeddings) to {depth}, and -1 is the last.")
    device = next(model.parameters()).device
    pooler = Classifier(model, 1, Recipe(encode=encode), tokenizer.special_ids).to(device).eval()

    def read(batch: Batch) -> torch.Tensor:
        if layer in (-1, depth):
            states = pooler.states(batch)
        else:
            states = model.layer(batch, layer, with_self=encode == "with_self")
        return pooler.mean(states.float(), batch)

    return states_of(read, texts, tokenizer, model.config.max_length, device)


def whitened(x: torch.Tensor, kept: int = 0) -> torch.Tensor:
    """Mean 0 and covariance 1 over the rows; the `kept` axes of greatest variance, or all that vary."""
    x = (x - x.mean(0)).double()
    _, s, axes = torch.linalg.svd(x, full_matrices=False)
    rank = int((s > 1e-6 * s[0]).sum())
    keep = min(kept or rank, rank)
    return (x @ axes[:keep].T / s[:keep] * len(x) ** 0.5).float()


def from_hub(name: str, split: str = "test") -> Pairs:
    rows = hub_rows(name, (HUB_SETS[name],), split)
    return _made(name, [(f"the hub's {HUB_SETS[name]}, row {i}", row) for i, row in enumerate(rows)])
