"""Fine-tuning speed against transformers' Trainer: `python -m eval.bench_finetune` (make bench-finetune).

The same rows, layers, widths, batch size and precision; tokens a second without padding, of training alone. Rivals take turns,
epoch by epoch, so that a noisy machine hits all alike. Trainer twice: as it comes, and with group_by_length. Rows have lengths
as GLUE's short sentences do (log-normal around --median), so that nothing needs to be downloaded.
"""

import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.files import to_json, write_atomically
from data.options import check_types
from data.tokenizer import Tokenizer
from eval.command import command
from eval.finetune.forms import Form
from eval.finetune.tasks import Example, Splits, Task
from eval.finetune.train import Recipe, fine_tune
from model import MaskedLM, ModelConfig, size_names
from training.machine import default_device, has_fast_bf16

VOCABULARY = 4096


@dataclass(frozen=True)
class BenchConfig:
    """Ours against Trainer, in one interleaved run."""

    architectures: tuple[str, ...] = ("local", "tta", "vanilla")
    size: Literal[size_names()] = "small"  # type: ignore[valid-type]
    """Width and depth of all models."""
    rows: int = 1024
    """Rows in an epoch."""
    median: int = 24
    """Median length of a row, in tokens."""
    batch_size: int = 32
    rounds: int = 3
    out: Path = Path("runs/bench-finetune.json")

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.rows, self.median, self.batch_size, self.rounds) < 1:
            raise ValueError("rows, median, batch_size and rounds must be at least 1.")


def texts(config: BenchConfig) -> list[str]:
    draw = random.Random(0)
    words = [
        "".join(draw.choice("bdfgklmnprst") + draw.choice("aeiou") for _ in range(draw.randint(1, 3)))
        for _ in range(3000)
    ]
    lengths = [min(126, max(3, round(draw.lognormvariate(0, 0.6) * config.median))) for _ in range(config.rows)]
    return [" ".join(draw.choices(words, k=n)) for n in lengths]


def trainer_epoch(rows: list[dict], size: ModelConfig, config: BenchConfig, grouped: bool, bf16: bool) -> float:
    """Tokens a second of one epoch by transformers' Trainer."""
    import transformers

    transformers.logging.set_verbosity_error()
    shape = transformers.BertConfig(  # type: ignore[call-arg]
        vocab_size=VOCABULARY, hidden_size=size.d_model, num_hidden_layers=size.n_layers, num_attention_heads=size.n_heads,
        intermediate_size=4 * size.d_model, max_position_embeddings=128, num_labels=2,
    )  # fmt: skip

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in batch], batch_first=True)
        return {
            "input_ids": ids,
            "attention_mask": (ids != 0).long(),
            "labels": torch.tensor([row["labels"] for row in batch]),
        }

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, i: int) -> dict:
            return rows[i]

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if grouped else {}
        arguments = transformers.TrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=config.batch_size, report_to=[], bf16=bf16,
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=default_device().type == "cpu", **options,
        )  # fmt: skip
        trainer = transformers.Trainer(
            transformers.BertForSequenceClassification(shape), arguments, train_dataset=Rows(), data_collator=collate
        )
        seconds = trainer.train().metrics["train_runtime"]
    return sum(len(row["input_ids"]) for row in rows) / seconds


def run(config: BenchConfig, console: Console) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        import accelerate  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed here; make bench-finetune installs it.") from None
    device = default_device()
    bf16 = has_fast_bf16(device)
    sentences = texts(config)
    tokenizer = Tokenizer.train(sentences, 1024)
    task = Task("bench", ("0", "1"), ("sentence",), "label", ("accuracy",))
    examples = [Example((text,), i % 2, i) for i, text in enumerate(sentences)]
    ids = [row.tokens[0] for row in Form(task, tokenizer, 128).rows(examples)]
    rows = [{"input_ids": tokens, "labels": i % 2, "length": len(tokens)} for i, tokens in enumerate(ids)]
    splits = Splits(examples, {"dev": examples[:32]})
    recipe = Recipe(epochs=1, batch_size=config.batch_size, max_length=128)
    models = {}
    for name in config.architectures:
        made = ModelConfig.preset(name, size=config.size, vocab_size=VOCABULARY, mask_id=3)
        models[name] = MaskedLM(made).to(device)
    shape = next(iter(models.values())).config
    autocast = torch.bfloat16 if bf16 else None

    def ours(model: MaskedLM) -> float:
        return fine_tune(model, tokenizer, task, splits, recipe, 0, autocast=autocast).tokens_per_second

    rivals: dict[str, Callable[[], float]] = {
        **{f"twostream {name}": partial(ours, model) for name, model in models.items()},
        "Trainer, BERT": lambda: trainer_epoch(rows, shape, config, False, bf16),
        "Trainer, BERT, group_by_length": lambda: trainer_epoch(rows, shape, config, True, bf16),
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(config.rounds + 1):
        for name, epoch in rivals.items():
            speed = epoch()
            if number:  # the first round warms up
                found[name].append(speed)
    table = Table(
        title=f"fine-tuning, {config.size}, {'bf16' if bf16 else 'fp32'}, batches of {config.batch_size}",
        title_justify="left",
    )
    for column in ("", "tokens/s", "of Trainer", "of Trainer, grouped"):
        table.add_column(column, justify="right" if column else "left")
    middle = {name: statistics.median(speeds) for name, speeds in found.items()}
    plain, grouped = (found[name] for name in list(rivals)[-2:])
    for name, speeds in found.items():
        ratios = [statistics.median([a / b for a, b in zip(speeds, other)]) for other in (plain, grouped)]
        table.add_row(escape(name), f"{middle[name]:,.0f}", *(f"{ratio:.2f}x" for ratio in ratios))
    console.print(table)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"size": config.size, "rows": config.rows, "bf16": bf16, "threads": torch.get_num_threads()}
    write_atomically(config.out, to_json(facts | {"tokens_per_second": found}, indent=1) + "\n")


def main() -> int:
    return command(BenchConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
