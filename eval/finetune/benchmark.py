"""Fine-tune checkpoints on the tasks of a benchmark, task by task and seed by seed, and put them side by side.

OUT/  results.jsonl            a line for each checkpoint, task and seed; what is there is not run again (store.py)
      report.html, report.md   this command's checkpoints side by side, with baselines that have seen no pretraining
      shown.json               the keys of the records that they show
      errors.log               tracebacks, if something failed that nobody's input explains
      submissions/NAME.zip     predictions for the test splits, by the seed that is best on dev
"""

import dataclasses
import hashlib
import json
import random
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from data.files import user_path, write_atomically
from data.options import check_types
from eval.command import barrier, command, note, open_checkpoints, said
from eval.epochs import Diverged
from eval.finetune.baselines import BASELINES
from eval.finetune.metrics import score
from eval.finetune.probe import probe
from eval.finetune.tasks import Splits, Task
from eval.finetune.train import Outcome, Recipe, fine_tune, longest, training_rows
from eval.reading import HUB
from eval.store import Record, Store, digest_of, digest_of_model, key_of
from report.benchmark import write_report
from training.machine import default_device, has_fast_bf16


@dataclass(frozen=True)
class BenchmarkConfig:
    """Fine-tune checkpoints on the tasks of a benchmark, with one recipe, and compare them."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote, such as runs/NAME/checkpoints/tta-seed0."""
    data: str = HUB
    """A folder with one folder for each task, or `hub` to download them."""
    tasks: tuple[str, ...] = ()
    """Tasks to run; by default all whose data is there."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of fine-tuning: each decides the order of the rows, dropout, and the new layer's weights."""
    recipe: Recipe = field(default_factory=Recipe)
    train: str = "train"
    """The split to train on."""
    probe: bool = False
    """Leave the model as it is and fit a linear model to its pooled states. Takes minutes on a CPU; the seed changes
    nothing."""
    out: Path = Path("runs/benchmark")
    """Folder for results; results that are there are kept and not run again."""
    baselines: bool = True
    """Show the majority's answer and a bag of words beside the checkpoints."""
    dry_run: bool = False
    """Read the data, say what would be run, and stop."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints:
            raise ValueError("No checkpoint is named; give one or more folders that `pretrain.py` wrote.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; give one or more, each once.")


def load(task: Task, data: str, console: Console, train: str = "train") -> Splits:
    """Train and dev must be there, test may. Counts that differ from the official ones are said, and so are rows that are
    left out because the annotators found no label for them.

    Raises FileNotFoundError, or ValueError that names file and line, or a split without rows.
    """
    notes: list[str] = []
    splits = {split: task.read(data, split, notes) for split in (train, *task.dev)}
    for split, rows in splits.items():
        if not rows:
            raise ValueError(f"{task.name}: {split} has no rows; expected the official split.")
        answered = [row for row in rows if row.label is not None]
        if not answered:
            raise ValueError(f"{task.name}: no row of {split} has a label; expected the official split.")
        if len(answered) < len(rows):
            notes.append(f"{task.name}: {len(rows) - len(answered):,} rows of {split} have no label and are left out.")
            splits[split] = answered
    test, extra = {}, {}
    for split in task.test:
        try:
            test[split] = task.read(data, split, notes)
        except FileNotFoundError:
            notes.append(f"{task.name} has no {split} here; no submission for it.")
        else:
            if not test[split]:
                notes.append(f"{task.name}: {split} has no rows; no submission for it.")
                del test[split]
    for other in task.extra:
        for split in ("test",) if data == HUB else other.test:
            try:
                extra[other.name] = other.read(data, split, notes)
                break
            except FileNotFoundError:
                continue
    extra = {name: rows for name, rows in extra.items() if rows}
    notes += [sentence for split, rows in (splits | test).items() if (sentence := task.count_differs(split, rows))]
    for sentence in notes:
        note(sentence, console)
    return Splits(splits[train], {split: splits[split] for split in task.dev}, test, extra)


def run(config: BenchmarkConfig, tasks: dict[str, Task], title: str, console: Console) -> int:
    """Returns an exit code: 1 if some task failed, with the results of the others written."""
    if unknown := set(config.tasks) - set(tasks):
        raise ValueError(f"Unknown task {', '.join(sorted(unknown))}; {title} has {', '.join(tasks)}.")
    opened = open_checkpoints(config.checkpoints)
    weights = {label: digest_of_model(*pair) for label, pair in opened.items()}
    store, keys = Store(config.out), []
    failed: list[str] = []
    for sentence in store.repair():
        note(sentence, console)
    for name in config.tasks or tasks:
        splits = None
        with barrier(name, failed, config.out):
            try:
                splits = load(tasks[name], config.data, console, config.train)
            except FileNotFoundError as error:
                if config.tasks:
                    raise
                if (user_path(config.data) / (tasks[name].folder or name)).is_dir():
                    note(f"{error} It is left out.", console)
        if splits is None:
            continue
        console.print(
            f"{name}: {len(splits.train):,} rows to train on, "
            + ", ".join(f"{k} {len(v):,}" for k, v in splits.dev.items())
        )
        if config.dry_run:
            continue
        with barrier(name, failed, config.out):
            keys += _run_task(config, tasks[name], title, splits, opened, weights, store, failed, console)
    records = store.own(keys)
    if not config.dry_run and records:
        write_atomically(config.out / "shown.json", json.dumps([record["key"] for record in records]) + "\n")
        benchmark = write_report(config.out, records)
        for table in filter(None, (benchmark.table(), benchmark.by_model())):
            head, rows = table
            columns = [Column(escape(name), overflow="fold") for name in head]
            printed = Table(*columns, title=f"{title}, dev (± standard deviation of seeds)", title_justify="left")
            for row in rows:
                printed.add_row(*map(escape, row))
            console.print(printed)
        for label in opened:
            pack(config.out, label)
        console.print(f"Report: {config.out / 'report.html'}", soft_wrap=True, highlight=False)
    return said(failed, console)


def _run_task(config, task, title, splits, opened, weights, store, failed, console) -> list[str]:
    """One task with every checkpoint and seed. Returns the keys of its records, of those too that were there."""
    rows = {name: digest_of(own) for name, own in _sets(splits).items()}
    rivals: list[tuple[str, Any]] = [(label, None) for label in BASELINES] if config.baselines else []
    keys: dict[str, list[str]] = {}
    for label, pair in [*rivals, *opened.items()]:
        for seed in config.seeds if pair and not config.probe else config.seeds[:1]:
            # An option that a later version adds leaves old results what they are: what is not the default counts.
            default = dataclasses.asdict(Recipe())
            changed = {k: v for k, v in dataclasses.asdict(config.recipe).items() if v != default[k]}
            rows_of = {name: changed[name] for name in ("max_rows", "imbalance") if name in changed}
            how = changed if pair is not None else rows_of if "imbalance" in changed else changed.get("max_rows", 0)
            key = key_of(
                benchmark=title, task=task.name, model=weights.get(label, label), name=label, rows=rows, seed=seed, recipe=how,
                probe=config.probe and pair is not None, train=config.train, metrics=[*task.metrics, *task.also],
            )  # fmt: skip
            keys.setdefault(label, []).append(key)
            if store.find(key) is not None:
                continue
            with barrier(f"{task.name}, {label}, seed {seed}", failed, config.out):
                recipe = dataclasses.asdict(config.recipe) | {"probe": config.probe} if pair else {}
                facts = {
                    "key": key,
                    "benchmark": title,
                    "checkpoint": label,
                    "task": task.name,
                    "seed": seed,
                    "recipe": recipe,
                }
                facts |= {"measures": task.metrics}
                try:
                    outcome = _outcome(label, pair, task, splits, config, seed, console)
                except Diverged as error:
                    store.add(facts | {"diverged": str(error)} | dataclasses.asdict(Outcome({}, 0, 0.0)))
                    console.print(f"  {label} #{seed}: [bold red]diverged[/]: {escape(str(error))}", soft_wrap=True)
                    continue
                store.add(facts | {"diverged": None} | dataclasses.asdict(outcome))
    for label in opened:
        with barrier(f"{task.name}, submission of {label}", failed, config.out):
            write_predictions(config.out, label, task, splits, store.own(keys.get(label, [])))
    return [key for own in keys.values() for key in own]


def _sets(splits: Splits) -> dict[str, Sequence[Any]]:
    found: dict[str, Sequence[Any]] = {"train": splits.train, **{f"dev {k}": v for k, v in splits.dev.items()}}
    return found | {f"test {k}": v for k, v in (splits.test | splits.extra).items()}


def _outcome(label, pair, task, splits, config, seed, console) -> Outcome:
    if pair is None:
        rows = training_rows(splits.train, task, config.recipe, random.Random(seed))  # as many as the checkpoints get
        return BASELINES[label](task, dataclasses.replace(splits, train=rows))
    model, tokenizer = pair
    autocast = torch.bfloat16 if has_fast_bf16(default_device()) else None
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(f"{task.name} #{seed}", total=1.0)
        train = probe if config.probe else fine_tune
        outcome = train(
            model, tokenizer, task, splits, config.recipe, seed, autocast=autocast,
            progress=lambda share, text: bars.update(bar, completed=share, description=f"{task.name} #{seed} {text}"),
        )  # fmt: skip
    said = "; ".join(
        f"{split} " + ", ".join(f"{name} {value:.1f}" for name, value in found.items())
        for split, found in outcome.metrics.items()
    )
    cut = (
        f"; {sum(outcome.cut.values()):,} rows cut to {longest(model, config.recipe)} tokens"
        if sum(outcome.cut.values())
        else ""
    )
    console.print(
        f"  {label} #{seed}: {said}, epoch {outcome.best_epoch}, {outcome.tokens_per_second:,.0f} tokens/s{cut}"
    )
    return outcome


def submission_folder(out: Path, label: str) -> Path:
    name = re.sub(r"[^\w.-]+", "-", "-".join(Path(label).parts[-3:]))
    return out / "submissions" / f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def write_predictions(out: Path, label: str, task: Task, splits: Splits, records: Sequence[Record]) -> None:
    """The files of a submission for one task, by the one of these records that is best on dev; without any, older files of this
    task are taken away."""
    own = [r for r in records if r["predictions"]]
    if not own:
        for file in task.submission.values():
            (submission_folder(out, label) / file).unlink(missing_ok=True)
        return
    best = max(own, key=lambda r: sum(score(m, task.metrics) for m in r["metrics"].values()))
    folder = submission_folder(out, label)
    folder.mkdir(parents=True, exist_ok=True)
    sets = [(task, split, rows) for split, rows in splits.test.items()]
    sets += [(other, other.name, splits.extra[other.name]) for other in task.extra if other.name in splits.extra]
    for asked, split, rows in sets:
        if len(best["predictions"].get(split, ())) == len(rows):
            file, text = asked.submitted(split, rows, best["predictions"][split])
            write_atomically(folder / file, text)


def pack(out: Path, label: str) -> None:
    """The zip that the benchmark's server takes."""
    folder = submission_folder(out, label)
    if folder.is_dir():
        with zipfile.ZipFile(folder.with_suffix(folder.suffix + ".zip"), "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(folder.iterdir()):
                packed.write(file, file.name)


def main(tasks: dict[str, Task], title: str, description: str) -> int:
    return command(BenchmarkConfig, description, lambda config, console: run(config, tasks, title, console))
