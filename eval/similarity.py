"""Unsupervised similarity of sentences: `python -m eval.similarity --checkpoints A B --data FILE ...` (make sts).

As T-TA does it (Shin et al. 2020): a sentence is the mean of its tokens' states, BOS and EOS left out; two sentences are as
similar as the cosine of these; Pearson and Spearman, x 100, against the scores that people gave. Nothing is trained.

    --layer     -1, the last (default), or a number; 0 is the raw embeddings, which are T-TA's content stream
    --encode    with each position's own token, or without (the query stream as it is pretrained)
    --whiten    take the mean away and the axes to one variance, from the sentences of the set itself, after Su et al. 2021
                (arXiv 2103.15316): the axis of frequency no longer makes all sentences alike

Data: files of pairs (.tsv, .jsonl or .parquet with sentence1, sentence2 and score, as STS-B's; SICK's; the `||` files of the
Chinese STS-B), folders of STS.input.X.txt and STS.gs.X.txt (STS 12 to 16), names of the sets below, or hub.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.files import user_path
from data.options import check_types
from data.statistics import Spread
from eval.command import barrier, command, note, open_checkpoints, print_seeds, said
from eval.finetune.metrics import measure
from eval.reading import HUB
from eval.scoring.sentences import HUB_SETS, Pairs, embed, from_hub, read, whitened
from eval.store import Store, digest_of, digest_of_model, key_of
from report.names import shortened


@dataclass(frozen=True)
class SimilarityConfig:
    """Correlation of cosines with people's scores."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote."""
    data: tuple[str, ...]
    """Files or folders of pairs, names of sets on the hub, or `hub` for all of these sets."""
    layer: int = -1
    """The layer whose states are used; see above."""
    encode: Literal["with_self", "without_self"] = "with_self"
    """Whether states may see their own token. Vanilla has only states that do."""
    whiten: bool = False
    """Whiten the vectors; see above."""
    out: Path = Path("runs/similarity")
    """Folder for results.jsonl."""

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
    measured: dict[tuple[str, str], float] = {}
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
                    raise ValueError(f"{label}: its states are not numbers; the checkpoint has diverged.")
                states = whitened(states) if config.whiten else states
                likeness = torch.nn.functional.cosine_similarity(states[::2], states[1::2]).tolist()
                found = measure(("pearson", "spearman"), pairs.scores, likeness)
                measured[label, pairs.name] = found["pearson"]
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

    def of_seeds(own: dict[int, str], _: dict[int, str]) -> list[str]:
        found = [[measured[label, name] for label in own.values() if (label, name) in measured] for name in names]
        return [Spread.of(values).text(".1f") if len(values) == len(own) else "failed" for values in found]

    names = [pairs.name for pairs in sets]
    print_seeds(list(opened), "", [f"{name}, Pearson x 100" for name in names], of_seeds, console)
    return said(failed, console)


def main() -> int:
    return command(SimilarityConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
