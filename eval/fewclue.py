"""Few-shot without a bigger model: `python -m eval.fewclue --checkpoints A B --data FOLDER` (make fewclue).

    zero      the pattern is asked and nothing is trained; a label's mean over the test texts is taken off, so that a word that
              is likely everywhere wins nothing by it (not where rows have choices of their own)
    linear    a new layer on the pooled state is fine-tuned with the model (finetune.py): what PET is compared with
    pet       the model is fine-tuned as the masked language model it is, a copy for each pattern; they vote by probability; each
              starts without the mean of a label's scores over the training rows, for the same reason
    ipet      each copy's successor is trained on the few rows and on those without labels of which the others are surest

(PET and iPET: Schick and Schütze 2021, arXiv 2001.07676 and 2009.07118.) FewCLUE's nine tasks, and SST-2, MRPC, RTE and MNLI.
Accuracy x 100 on the test rows, mean and deviation over the splits. The epoch is chosen on the few dev rows.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.files import user_path
from data.options import check_types
from data.statistics import Spread
from eval.command import barrier, command, note, open_checkpoints, said
from eval.fewshot.methods import FewShotRecipe, Method, run_method
from eval.fewshot.tasks import TASKS, read
from eval.store import Store, digest_of, digest_of_model, key_of
from report.names import shortened
from training.machine import default_device, has_fast_bf16


@dataclass(frozen=True)
class FewShotConfig:
    """Few-shot accuracy of checkpoints."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints that pretrain.py wrote."""
    data: Path
    """A folder with one folder for each task, of FewCLUE or of GLUE."""
    tasks: tuple[str, ...] = ()
    """Tasks to run; by default all that have a folder there."""
    splits: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Splits to use: each has its own few rows."""
    methods: tuple[Method, ...] = ("zero", "linear", "pet", "ipet")
    recipe: FewShotRecipe = field(default_factory=FewShotRecipe)
    out: Path = Path("runs/fewclue")
    """Folder of results.jsonl; results that are there are kept and not run again."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints or not self.methods or not self.splits:
            raise ValueError("Name at least one checkpoint, one method and one split.")
        if unknown := set(self.tasks) - set(TASKS):
            raise ValueError(f"Unknown task {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}.")


def run(config: FewShotConfig, console: Console) -> int:
    """Returns 1 if a task could not be run, with the results of the others written."""
    device = default_device()
    autocast = torch.bfloat16 if has_fast_bf16(device) else None
    opened = open_checkpoints(config.checkpoints)
    weights = {label: digest_of_model(*pair) for label, pair in opened.items()}
    store, keys = Store(config.out), []
    failed: list[str] = []
    for sentence in store.repair():
        note(sentence, console)
    data_folder = user_path(config.data)
    for name, task in TASKS.items():
        folder = data_folder / (task.glue.folder or task.glue.name if task.glue else name)
        if name not in config.tasks and (config.tasks or not folder.is_dir()):
            continue
        missing: list[str] = []
        for split in config.splits:
            data = None
            with barrier(name, failed, config.out):
                try:
                    data = read(task, data_folder, split)
                except FileNotFoundError as error:
                    missing.append(str(error))
                    continue
            if data is None:
                break
            rows = digest_of([task.patterns, *data.train, *data.dev, *data.test, *data.unlabelled])
            for label, (model, tokenizer) in opened.items():
                for method in config.methods:
                    asked = {"method": method, "task": name, "split": split, "recipe": asdict(config.recipe)}
                    key = key_of(model=weights[label], name=label, rows=rows, **asked)
                    keys.append(key)
                    if store.find(key) is not None:
                        continue
                    with barrier(f"{name} {split}, {label}, {method}", failed, config.out):
                        found = run_method(method, model, tokenizer, task, data, config.recipe, split, autocast)
                        facts = {"accuracy": found, "checkpoint": label, "task": name, "method": method, "split": split}
                        store.add({"key": key} | facts)
                        console.print(f"{name} {split}, {label[-40:]}, {method}: {found:.1f}", highlight=False)
        if len(missing) == len(config.splits):
            failed += missing[:1]
        else:  # iflytek and csldcp have one split
            for sentence in missing:
                note(sentence, console)
    if records := store.own(keys):
        console.print(summary(records, list(opened)))
    return said(failed, console)


def summary(records: Sequence[dict], labels: Sequence[str]) -> Table:
    table = Table(title="few-shot, accuracy on test (± standard deviation of splits)", title_justify="left")
    names = [name for name in TASKS if any(r["task"] == name for r in records)]
    for column in ("", "", *names, "average"):
        table.add_column(column)
    called = shortened(labels)
    for label in labels:
        for method in dict.fromkeys(r["method"] for r in records):
            mine = [r for r in records if (r["checkpoint"], r["method"]) == (label, method)]
            own = [[r["accuracy"] for r in mine if r["task"] == name] for name in names]
            average = sum(sum(v) / len(v) for v in own) / len(own) if all(own) else None
            cells = [Spread.of(values).text(".1f") if values else "-" for values in own]
            table.add_row(escape(called[label]), method, *cells, "-" if average is None else f"{average:.1f}")
    return table


def main() -> int:
    return command(FewShotConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
