"""Unsupervised similarity of sentences: `python -m eval.similarity --checkpoints A B --data FILE ...` (make sts).

As T-TA does it (Shin et al. 2020): a sentence is the mean of its tokens' states, BOS and EOS left out; two sentences are as
similar as the cosine of these; Pearson and Spearman, x 100, against the scores that people gave. Nothing is trained.

    --layer     -1, the last (default), or a number; 0 is the raw embeddings, which are T-TA's content stream
    --encode    with each place's own token, or without (the query stream as it is pretrained)
    --whiten    take the mean away and the axes to one variance, from the sentences of the set itself, after Su et al. 2021
                (arXiv 2103.15316): the axis of frequency no longer makes all sentences alike

Data: files of pairs (.tsv, .jsonl or .parquet with sentence1, sentence2 and score, as STS-B's; SICK's; the `||` files of the
Chinese STS-B), folders of STS.input.X.txt and STS.gs.X.txt (STS 12 to 16), names of the sets below, or hub.
"""

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.batch import Batch
from data.files import user_path
from data.options import check_types
from data.text import read_lines
from data.tokenizer import Tokenizer
from eval.command import barrier, command, note, open_checkpoints, said
from eval.finetune import Classifier, Recipe
from eval.metrics import measure
from eval.rows import states_of
from eval.store import Store, digest_of, digest_of_model, key_of
from eval.tasks import HUB, hub_rows, json_lines, number_of, parquet
from model import MaskedLM
from report.names import shortened

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
        raise ValueError(f"{path} has {len(pairs)} lines and {gold.name} {len(scores)}; they must be as many.")
    rows = []
    for number, (pair, score) in enumerate(zip(pairs, scores), start=1):
        if score.strip():
            rows.append(
                (f"{path}, line {number}", dict(zip(("sentence1", "sentence2"), pair.split("\t"))) | {"score": score})
            )
    return _made(f"{path.parent.name}/{path.name.removeprefix('STS.input.').removesuffix('.txt')}", rows)


def from_hub(name: str, split: str = "test") -> Pairs:
    rows = hub_rows(name, (HUB_SETS[name],), split)
    return _made(name, [(f"the hub's {HUB_SETS[name]}, row {i}", row) for i, row in enumerate(rows)])


def embed(
    model: MaskedLM, tokenizer: Tokenizer, texts: Sequence[str], *, layer: int = -1, encode: str = "with_self"
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


@dataclass(frozen=True)
class SimilarityConfig:
    """Correlation of cosines with people's scores."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote."""
    data: tuple[str, ...]
    """Files or folders of pairs, names of sets that the hub has, or hub for all of these."""
    layer: int = -1
    """Whose states; see above."""
    encode: Literal["with_self", "without_self"] = "with_self"
    """Whether a state may see its own token. Vanilla has states with it only."""
    whiten: bool = False
    """See above."""
    out: Path = Path("runs/similarity")
    """Where results.jsonl goes."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints or not self.data:
            raise ValueError("Name a checkpoint with --checkpoints and the pairs with --data.")


def run(config: SimilarityConfig, console: Console) -> int:
    """Returns 1 if a set could not be read, with the others measured."""
    sets: list[Pairs] = []
    failed: list[str] = []
    for name in [n for given in config.data for n in (HUB_SETS if given == HUB else (given,))]:
        with barrier("", failed, config.out):
            sets += [from_hub(name)] if name in HUB_SETS else read(user_path(name))
    if not sets:
        raise ValueError(" ".join(failed))
    if twice := sorted({p.name for p in sets if sum(p.name == q.name for q in sets) > 1}):
        raise ValueError(f"Two sets are named {', '.join(twice)}; rename a file or its folder, or give each once.")
    opened, store = open_checkpoints(config.checkpoints), Store(config.out)
    for sentence in store.repair():
        note(sentence, console)
    table = Table(title="similarity: Pearson / Spearman x 100", title_justify="left")
    table.add_column("")
    for pairs in sets:
        table.add_column(f"{pairs.name} ({len(pairs.texts):,})", justify="right", overflow="fold")
    called = shortened(list(opened))
    table.add_column("sentences/s", justify="right")
    for label, (model, tokenizer) in opened.items():
        cells, seconds, count, weights = [], 0.0, 0, digest_of_model(model, tokenizer)
        for pairs in sets:
            cells.append("failed")
            with barrier(f"{label}, {pairs.name}", failed, config.out):
                started = time.perf_counter()
                texts = [text for pair in pairs.texts for text in pair]
                states, cut = embed(model, tokenizer, texts, layer=config.layer, encode=config.encode)
                seconds, count = seconds + time.perf_counter() - started, count + len(texts)
                if not torch.isfinite(states).all():
                    raise ValueError(f"{label}: its states are no numbers; the checkpoint has diverged.")
                states = whitened(states) if config.whiten else states
                likeness = torch.nn.functional.cosine_similarity(states[::2], states[1::2]).tolist()
                found = measure(("pearson", "spearman"), pairs.scores, likeness)
                cells[-1] = f"{found['pearson']:.1f} / {found['spearman']:.1f}"
                if cut:
                    note(f"{pairs.name}: {cut:,} texts were cut to {model.config.max_length} tokens.", console)
                facts = {"checkpoint": label, "set": pairs.name, "pairs": len(pairs.texts), "cut": cut}
                setting = {"layer": config.layer, "encode": config.encode, "whiten": config.whiten}
                rows = digest_of([*pairs.texts, *pairs.scores])
                key = key_of(model=weights, name=label, rows=rows, method="similarity", **setting)
                store.add(facts | setting | found | {"key": key})
        table.add_row(escape(called[label]), *cells, f"{count / seconds:,.0f}" if seconds else "-")
    console.print(table)
    return said(failed, console)


def main() -> int:
    return command(SimilarityConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
