"""Fine-tune checkpoints on the tasks of a benchmark, task by task and seed by seed, and put them side by side.

OUT/  results.jsonl            a line for each checkpoint, task and seed; what is there is not run again
      report.html, report.md   all of them side by side, with baselines that have seen no pretraining
      submissions/NAME.zip     predictions for the test splits, by the seed that is best on dev
"""

import dataclasses
import hashlib
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
from rich.table import Table

from data.files import write_atomically
from data.options import check_types
from eval.baselines import BASELINES
from eval.command import command, open_checkpoint, read_records, said, write_records
from eval.finetune import Outcome, Recipe, drawn, fine_tune
from eval.metrics import score
from eval.probe import probe
from eval.tasks import HUB, Splits, Task
from report.benchmark import write_report
from training.machine import default_device, has_fast_bf16


@dataclass(frozen=True)
class BenchmarkConfig:
    """Fine-tune checkpoints on the tasks of a benchmark, with one recipe, and compare them."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote, as runs/NAME/checkpoints/tta-seed0."""
    data: str = HUB
    """The folder that holds a folder for each task, or `hub`, which downloads them."""
    tasks: tuple[str, ...] = ()
    """Which tasks; none named: all whose data is there."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Order of the rows, dropout and the new layer's weights, for each."""
    recipe: Recipe = field(default_factory=Recipe)
    train: str = "train"
    """The split that is trained on."""
    probe: bool = False
    """Train nothing of the model: a linear model reads its pooled states. Minutes on a CPU; one seed is all there is."""
    out: Path = Path("runs/benchmark")
    """Where results go, and are continued."""
    baselines: bool = True
    """Majority and bag of words beside the checkpoints."""
    dry_run: bool = False
    """Read the data and say what would be run."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints:
            raise ValueError("No checkpoint is named; give one or more folders that `pretrain.py` wrote.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; give one or more, each once.")


def load(task: Task, data: str, console: Console, train: str = "train") -> Splits:
    """Train and dev must be there, test may. Counts that differ from the official ones are said, and so are rows that are
    left out because the annotators found no label for them.

    Raises FileNotFoundError, or ValueError that names file and line.
    """
    splits = {split: task.read(data, split) for split in (train, *task.dev)}
    for split, rows in splits.items():
        told = [row for row in rows if row.label is not None]
        if told and len(told) < len(rows):
            console.print(
                f"[yellow]note[/]: {task.name}: {len(rows) - len(told):,} rows of {split} have no label and are left out."
            )
            splits[split] = told
    test, extra = {}, {}
    for split in task.test:
        try:
            test[split] = task.read(data, split)
        except FileNotFoundError:
            console.print(f"[yellow]note[/]: {task.name} has no {split} here; no submission for it.")
    for other in task.extra:
        for split in ("test",) if data == HUB else other.test:
            try:
                extra[other.name] = other.read(data, split)
                break
            except FileNotFoundError:
                continue
    for split, rows in (splits | test).items():
        if sentence := task.count_differs(split, rows):
            console.print(f"[yellow]note[/]: {escape(sentence)}", soft_wrap=True)
    return Splits(splits[train], {split: splits[split] for split in task.dev}, test, extra)


def run(config: BenchmarkConfig, tasks: dict[str, Task], title: str, console: Console) -> int:
    """Returns an exit code: 1 if some task failed, with the results of the others written."""
    if unknown := set(config.tasks) - set(tasks):
        raise ValueError(f"Unknown task {', '.join(sorted(unknown))}; {title} has {', '.join(tasks)}.")
    device = default_device()
    autocast = torch.bfloat16 if has_fast_bf16(device) else None
    opened = {str(path): open_checkpoint(path) for path in config.checkpoints}
    path = config.out / "results.jsonl"
    records = read_records(path)
    failed = []
    for name in config.tasks or tasks:
        try:
            splits = load(tasks[name], config.data, console, config.train)
        except FileNotFoundError as error:
            if config.tasks:
                failed.append(str(error))  # which names the task
            elif (Path(config.data) / (tasks[name].folder or name)).is_dir():
                console.print(f"[yellow]note[/]: {escape(str(error))} It is left out.", soft_wrap=True)
            continue
        except (ValueError, OSError) as error:
            failed.append(f"{name}: {error}")
            continue
        console.print(
            f"{name}: {len(splits.train):,} rows to train on, "
            + ", ".join(f"{k} {len(v):,}" for k, v in splits.dev.items())
        )
        if config.dry_run:
            continue
        rivals: list[tuple[str, Any]] = [(label, None) for label in BASELINES] if config.baselines else []
        for label, pair in [*rivals, *opened.items()]:
            for seed in config.seeds if pair and not config.probe else config.seeds[:1]:
                key = _key(label, tasks[name], seed, config, splits, pair)
                if any(record["key"] == key for record in records):
                    continue
                try:
                    outcome = _outcome(label, pair, tasks[name], splits, config, seed, autocast, device, console)
                except (ValueError, RuntimeError) as error:
                    failed.append(f"{name}, {label}, seed {seed}: {error}")
                    continue
                recipe = dataclasses.asdict(config.recipe) | {"probe": config.probe} if pair else {}
                facts = {
                    "key": key,
                    "benchmark": title,
                    "checkpoint": label,
                    "task": name,
                    "seed": seed,
                    "recipe": recipe,
                }
                records.append(facts | {"measures": tasks[name].metrics} | dataclasses.asdict(outcome))
                write_records(path, records)
        for label in opened:
            write_predictions(config.out, label, tasks[name], splits, records)
    if not config.dry_run and records:
        head, rows = write_report(config.out).table()
        printed = Table(title=f"{title}, dev", title_justify="left")
        for column in head:
            printed.add_column(escape(column), overflow="fold")
        for row in rows:
            printed.add_row(*map(escape, row))
        console.print(printed)
        for label in opened:
            pack(config.out, label)
        console.print(f"Report: {config.out / 'report.html'}", soft_wrap=True, highlight=False)
    return said(failed, console)


def _outcome(label, pair, task, splits, config, seed, autocast, device, console) -> Outcome:
    if pair is None:
        rows = drawn(splits.train, config.recipe.max_rows, random.Random(seed))  # as many as the checkpoints get
        return BASELINES[label](task, dataclasses.replace(splits, train=rows))
    model, tokenizer = pair
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
        f"; {sum(outcome.cut.values()):,} rows cut to {model.config.max_length} tokens"
        if sum(outcome.cut.values())
        else ""
    )
    console.print(
        f"  {label} #{seed}: {said}, epoch {outcome.best_epoch}, {outcome.tokens_per_second:,.0f} tokens/s{cut}"
    )
    return outcome


def _key(label: str, task: Task, seed: int, config: BenchmarkConfig, splits: Splits, pair: Any) -> str:
    """What decides a result: the weights, the rows, the seed, and where the recipe is not the default. An option that a
    later version adds leaves old results what they are."""
    default = dataclasses.asdict(Recipe())
    changed = {name: value for name, value in dataclasses.asdict(config.recipe).items() if value != default[name]}
    how = [changed, config.probe] if pair is not None else changed.get("max_rows", 0)
    digest = hashlib.sha256(repr((label, task.name, seed, config.train, how)).encode())
    if pair is not None:
        for tensor in pair[0].state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
    for rows in (splits.train, *splits.dev.values()):
        digest.update(repr([len(rows), *rows[:50]]).encode())
    return digest.hexdigest()[:16]


def submission_folder(out: Path, label: str) -> Path:
    name = re.sub(r"[^\w.-]+", "-", "-".join(Path(label).parts[-3:]))
    return out / "submissions" / f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def write_predictions(out: Path, label: str, task: Task, splits: Splits, records: Sequence[dict]) -> None:
    """The files of a submission for one task, by the checkpoint's seed that is best on dev."""
    own = [r for r in records if r["checkpoint"] == label and r["task"] == task.name and r["predictions"]]
    if not own:
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
