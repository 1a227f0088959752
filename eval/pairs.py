"""Minimal pairs: is the good sentence likelier than the bad one? `python -m eval.pairs --checkpoints A B --data FILE ...`

BLiMP (Warstadt et al. 2020, arXiv 1912.00582), ZhoBLiMP, CLiMP, SLING, or any JSON lines with `sentence_good` and
`sentence_bad`; CLiMP's .csv files; zip and tar archives are read in place, each file in them a paradigm. A pair is right when the
pseudo-log-likelihood of the good sentence is higher; a tie counts half. Chance is 50%. Beside the accuracy of all pairs stands
its 95% interval, from the spread between paradigms where there are several (pairs of a paradigm are no independent
witnesses), else Wilson's.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from data.files import user_path
from data.options import check_types
from data.statistics import Spread
from eval.command import barrier, command, note, open_checkpoints, print_seeds, said
from eval.scoring.likelihood import Variant
from eval.scoring.minimal_pairs import files_of, interval, paired, read_paradigm, right, unique_names
from eval.store import Store, digest_of, digest_of_model, key_of
from report.names import shortened

PUBLISHED = "people 88.6, RoBERTa-large 86.5, GPT-2 345M 82.6 (Salazar et al. 2020)"

RIGHT = {"1": 1.0, "0": 0.0, "=": 0.5}
"""How a record writes whether each pair is right; = is a tie."""


@dataclass(frozen=True)
class PairsConfig:
    """Accuracy on minimal pairs, by paradigm and phenomenon."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote."""
    data: tuple[Path, ...]
    """Files, folders or archives with minimal pairs."""
    variant: Variant = "original"
    """What each token is predicted from; see eval/score.py."""
    limit: int = 0
    """Most pairs of each paradigm; 0 takes all."""
    out: Path = Path("runs/pairs")
    """Folder of results.jsonl; results that are there are kept and not run again."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints or not self.data:
            raise ValueError("Name a checkpoint with --checkpoints and the pairs with --data.")
        if self.limit < 0:
            raise ValueError(f"limit is {self.limit}; it must be 0 (all) or more.")


def run(config: PairsConfig, console: Console) -> int:
    """Returns 1 if a paradigm could not be read, with the others scored."""
    paradigms, names = [], []
    failed: list[str] = []
    for path in (user_path(given) for given in config.data):
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}; give a file, a folder or an archive of pairs.")
        with barrier(str(path), failed, config.out):
            for name, content in files_of(path):
                with barrier(name, failed, config.out):
                    paradigms.append(read_paradigm(name, content, config.limit))
                    names.append(name)
    if not paradigms:
        raise ValueError(" ".join(failed) or "No pairs were found; expected .jsonl or .csv files.")
    paradigms = unique_names(paradigms, names)
    opened, store, found = open_checkpoints(config.checkpoints), Store(config.out), {}
    for sentence in store.repair():
        note(sentence, console)
    known = {record["key"]: record for record in store.records() if "key" in record}
    lost: list[str] = []
    for label, (model, tokenizer) in opened.items():
        weights = digest_of_model(model, tokenizer)
        for paradigm in tqdm(paradigms, desc=label[-30:], unit="paradigm", disable=None):
            with barrier(f"{label}, {paradigm.name}", lost, config.out):
                asked = {"method": "pairs, each", "variant": config.variant}
                key = key_of(model=weights, name=label, rows=digest_of(paradigm.pairs), **asked)
                if key in known:
                    found[label, paradigm.name] = [RIGHT[letter] for letter in known[key]["right"]]
                    continue
                own = found[label, paradigm.name] = right(model, tokenizer, paradigm.pairs, config.variant)
                facts = {"checkpoint": label, "paradigm": paradigm.name, "phenomenon": paradigm.phenomenon}
                facts |= {"variant": config.variant, "pairs": len(own), "accuracy": sum(own) / len(own)}
                letters = {value: letter for letter, value in RIGHT.items()}
                store.add(facts | {"right": "".join(letters[value] for value in own), "key": key})
    broken = {label for label, _ in opened.items() if any((label, p.name) not in found for p in paradigms)}
    failed += lost[:3] + ([f"and {len(lost) - 3} more of the kind"] if len(lost) > 3 else [])
    opened = {label: pair for label, pair in opened.items() if label not in broken}
    if not opened:
        return said(failed, console)
    called = shortened(list(opened))
    table = Table(title=f"minimal pairs, {config.variant}: % right (chance 50)", title_justify="left")
    table.add_column("phenomenon")
    for label in opened:
        table.add_column(escape(called[label]), justify="right", overflow="fold")
    for phenomenon in sorted({p.phenomenon for p in paradigms}):
        names = [p.name for p in paradigms if p.phenomenon == phenomenon]
        means = (interval([found[label, name] for name in names])[0] for label in opened)
        table.add_row(phenomenon, *(f"{100 * mean:.1f}" for mean in means))
    rights = {label: [found[label, p.name] for p in paradigms] for label in opened}
    totals = [interval(rights[label]) for label in opened]
    table.add_row("all", *(f"{100 * mean:.1f} ({100 * low:.1f} to {100 * high:.1f})" for mean, low, high in totals))
    first, *others = opened
    if others:
        cells = [""] + [paired((rights[label], rights[first])) for label in others]
        table.add_row("less the first, ± half of a 95% interval", *cells)
    console.print(table)

    def of_seeds(own: dict[int, str], first: dict[int, str]) -> list[str]:
        mean = Spread.of([100 * interval(rights[label])[0] for label in own.values()]).text(".1f")
        pairs = [(rights[own[seed]], rights[first[seed]]) for seed in own if seed in first]
        return [mean, "" if own is first else paired(*pairs) if pairs else "-"]

    print_seeds(list(opened), "paradigms and seeds", ["% right", "less the first"], of_seeds, console)
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
