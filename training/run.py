"""A run on disk: its folder, who competes, what was measured, and how it is continued.

runs/NAME/  run.json        the PretrainConfig
            facts.json      corpus, tokenizer, machine, and each contestant's size and arithmetic
            results.jsonl   one line for each evaluation of each contestant
            examples.json   masked held-out text and what each model would write there
            report.html, report.md, report.png
            checkpoints/CONTESTANT/step-*/
            tensorboard/CONTESTANT/
"""

import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from data.batches import Batches, held_out_windows
from data.prepare import PreparedCorpus, prepare
from eval.leave_one_out import Yardstick
from model import MaskedLM, ModelConfig
from training import checkpoint
from training.budget import Budget
from training.config import PretrainConfig
from training.contestant import Contestant, Entry
from training.machine import Machine, default_device, has_fast_bf16
from training.memory import training_memory_bytes


def resolve_device(name: str) -> torch.device:
    try:
        device = default_device() if name == "auto" else torch.device(name)
        torch.empty(0, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"The device {name!r} cannot be used here ({str(error).splitlines()[0]}); try auto."
        ) from error


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and has_fast_bf16(device)) else None


def model_config(config: PretrainConfig, entry: Entry, vocab_size: int, mask_id: int) -> ModelConfig:
    shape = {
        "vocab_size": vocab_size,
        "mask_id": mask_id,
        "dropout": config.dropout,
        "d_embed": config.d_embed,
        "max_length": max(512, config.sequence_length),
        "options": entry.options,
    }
    return ModelConfig.preset(
        entry.architecture, size=config.size, preset=config.preset, **{**shape, **dict(entry.model)}
    )


def make_contestant(
    config: PretrainConfig,
    entry: Entry,
    seed: int,
    device: torch.device,
    *,
    vocab_size: int,
    mask_id: int,
    batches: Callable[[MaskedLM, int], Batches],
) -> Contestant:
    """A fresh contestant; `batches(model, seed)` gives its data."""
    torch.manual_seed(seed)
    model = MaskedLM(model_config(config, entry, vocab_size, mask_id)).to(device)
    return Contestant(
        entry,
        seed,
        model,
        dataclasses.replace(config.optimizer, **dict(entry.optimizer)),
        batches(model, seed),
        Budget.parse(config.budget),
        accumulate=config.accumulate,
        autocast=autocast_dtype(config.precision, device),
        compile_loss=config.compile,
    )


class Run:
    """Everything a race needs, ready to train: fresh, or continued from its folder."""

    def __init__(self, config: PretrainConfig, folder: Path, *, resumed: bool) -> None:
        self.config, self.folder = config, folder
        self.device = resolve_device(config.device)
        self.corpus: PreparedCorpus = prepare(config.data)
        self.tokenizer = self.corpus.tokenizer
        self.yardstick = self._yardstick()
        self.contestants = [
            make_contestant(
                config,
                Entry.parse(text),
                seed,
                self.device,
                vocab_size=self.tokenizer.vocab_size,
                mask_id=self.tokenizer.mask_id,
                batches=self._batches,
            )
            for seed in config.seeds
            for text in config.architectures
        ]
        self.warnings: list[str] = []
        if resumed:
            self._restore()
        self.machine = Machine.here(self.device)
        self.writers = {
            key(c): SummaryWriter(str(folder / "tensorboard" / key(c)), purge_step=c.progress.step)
            for c in self.contestants
        }
        self.saved_at = {key(c): time.monotonic() for c in self.contestants}

    @classmethod
    def start(cls, config: PretrainConfig) -> "Run":
        """A new folder. Raises ValueError if it holds a run already."""
        corpus = re.sub(r"[^\w.-]+", "-", Path(config.data.corpus).name or config.data.corpus).strip("-")
        name = config.name or f"{corpus}-{config.budget}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = config.runs / name
        if (folder / "run.json").exists():
            raise ValueError(
                f"{folder} holds a run already; continue it with --resume {folder}, or choose another --name."
            )
        run = cls(config, folder, resumed=False)  # nothing is written before everything given has been checked
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(folder / "run.json", config.to_json())
        run.write_facts()
        return run

    @classmethod
    def resume(cls, folder: Path) -> "Run":
        """Continue from the newest whole checkpoints. Raises FileNotFoundError or ValueError if there is no run."""
        path = folder / "run.json"
        if not path.exists():
            raise FileNotFoundError(f"{folder} holds no run (no run.json); give a folder that `pretrain.py` made.")
        try:
            config = PretrainConfig.from_json(path.read_text())
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not what `pretrain.py` wrote ({error}); start a new run.") from error
        run = cls(config, folder, resumed=True)
        run._check_same_corpus()
        run.write_facts()
        return run

    def _identity(self) -> dict[str, Any]:
        """What must not change while a run is stopped: the tokenizer and the counts of the corpus."""
        counts = dataclasses.asdict(self.corpus.info)
        timed = ("corpus", "seconds", "encoding_seconds")
        return {"tokenizer": self.tokenizer.hash[:12]} | {k: v for k, v in counts.items() if k not in timed}

    def _check_same_corpus(self) -> None:
        facts = self.folder / "facts.json"
        before = json.loads(facts.read_text())["identity"] if facts.exists() else self._identity()
        changed = [f"{k} {before[k]}, now {v}" for k, v in self._identity().items() if before[k] != v]
        if changed:
            raise ValueError(
                f"The corpus {self.config.data.corpus} is not what it was when {self.folder} began "
                f"({'; '.join(changed)}); bring the old text back, or start a new run."
            )

    def _yardstick(self) -> Yardstick:
        config, evaluation = self.config, self.config.evaluation
        valid = self.corpus.valid
        windows = -(-evaluation.tokens // evaluation.places)
        available = valid.tokens // config.sequence_length
        if available < windows:
            raise ValueError(
                f"The held-out part has {available} windows of {config.sequence_length} tokens and the evaluation asks "
                f"for {windows} ({evaluation.tokens} tokens, {evaluation.places} in each); lower --evaluation.tokens "
                "or bring more text."
            )
        batch = held_out_windows(valid, config.sequence_length, windows, evaluation.seed)
        return Yardstick.sample(
            batch, self.tokenizer.special_ids, evaluation.places, evaluation.seed, valid.characters / valid.tokens
        )

    def _batches(self, model: MaskedLM, seed: int) -> Batches:
        config = self.config
        return Batches(self.corpus.train, config.batch_size, config.sequence_length, seed, model.architecture.masking)

    def _restore(self) -> None:
        for contestant in self.contestants:
            path, damaged = checkpoint.last_good(self.folder / "checkpoints" / key(contestant))
            self.warnings += damaged
            if path is not None:
                contestant.load(path)

    def save(self, contestant: Contestant) -> None:
        contestant.save(self.folder / "checkpoints" / key(contestant), self.tokenizer.model)
        self.saved_at[key(contestant)] = time.monotonic()

    def save_is_due(self, contestant: Contestant) -> bool:
        return time.monotonic() - self.saved_at[key(contestant)] >= self.config.save_seconds

    def next_evaluation(self, contestant: Contestant) -> float:
        """The share of the budget at which this contestant is evaluated next."""
        fractions = self.config.evaluation.fractions()
        return fractions[min(contestant.progress.evaluated, len(fractions) - 1)]

    def evaluate(self, contestant: Contestant) -> None:
        """Score on the curve's places (at the end also on all) and write the record to results.jsonl."""
        evaluation, progress = self.config.evaluation, contestant.progress
        with contestant.precision():
            curve = self.yardstick.first(-(-evaluation.curve_tokens // evaluation.places)).measure(contestant.model)
            final = self.yardstick.measure(contestant.model) if contestant.finished else None
        spent = progress.spent
        progress.history.append(
            {
                "contestant": contestant.label,
                "architecture": contestant.entry.architecture,
                "seed": contestant.seed,
                "step": progress.step,
                "seconds": spent.seconds,
                "flops": spent.flops,
                "tokens": spent.tokens,
                "predicted_tokens": spent.tokens * contestant.model.architecture.predicted_fraction,
                **contestant.last,
                "curve": dataclasses.asdict(curve),
                "final": dataclasses.asdict(final) if final else None,
            }
        )
        while progress.evaluated < evaluation.points and self.next_evaluation(contestant) <= contestant.fraction:
            progress.evaluated += 1
        self.log(contestant, {"leave_one_out": curve.nll, "accuracy": curve.accuracy})
        records = [json.dumps(record) for c in self.contestants for record in c.progress.history]
        checkpoint.write_atomically(self.folder / "results.jsonl", "\n".join(records) + "\n")

    def log(self, contestant: Contestant, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self.writers[key(contestant)].add_scalar(name, value, contestant.progress.step)

    def write_facts(self) -> None:
        """What the report says beside the results."""
        length = self.config.sequence_length
        facts: dict[str, Any] = {
            "machine": dataclasses.asdict(self.machine),
            "corpus": dataclasses.asdict(self.corpus.info),
            "identity": self._identity(),
            "precision": str(autocast_dtype(self.config.precision, self.device) or torch.float32),
            "contestants": {
                c.label: {
                    "architecture": c.entry.architecture,
                    "parameters": c.model.parameter_count(),
                    "flops_per_token": c.model.flops_per_token(length),
                    "predicted_fraction": c.model.architecture.predicted_fraction,
                    "memory_bytes": training_memory_bytes(c),
                    "model": json.loads(c.model.config.to_json()),
                    "optimizer": dataclasses.asdict(c.optimizer_config),
                }
                for c in self.contestants
                if c.seed == self.config.seeds[0]
            },
        }
        checkpoint.write_atomically(self.folder / "facts.json", json.dumps(facts, indent=2))

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def key(contestant: Contestant) -> str:
    """A contestant's folder name."""
    return f"{re.sub(r'[^A-Za-z0-9_.=-]+', '_', contestant.label)}-seed{contestant.seed}"
