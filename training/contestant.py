"""One model in a race: its line-up entry, its training steps, what it has spent, and its state on disk."""

import ast
import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data.batches import Batches
from model import MaskedLM, ModelConfig
from model.architectures import architecture_class
from training import checkpoint
from training.budget import Budget, Spent, learning_rate_factor
from training.optimizer import OptimizerConfig, Optimizers


@dataclass(frozen=True)
class Entry:
    """A contestant as it is named on the command line: `vanilla` or `vanilla:masking_rate=0.4,learning_rate=2e-3`.

    Names after the colon are options of the architecture, of the optimiser (OptimizerConfig) or of the model
    (ModelConfig); anything else is refused.
    """

    label: str
    architecture: str
    options: tuple[tuple[str, Any], ...] = ()
    optimizer: tuple[tuple[str, Any], ...] = ()
    model: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Entry":
        architecture, _, rest = text.partition(":")
        options_class = architecture_class(architecture).Options
        homes = {
            "options": {f.name for f in dataclasses.fields(options_class)},
            "optimizer": {f.name for f in dataclasses.fields(OptimizerConfig)} - {"name"} | {"optimizer"},
            "model": {f.name for f in dataclasses.fields(ModelConfig)}
            - {"architecture", "options", "vocab_size", "mask_id"},
        }
        given: dict[str, dict[str, Any]] = {home: {} for home in homes}
        for pair in filter(None, rest.split(",")):
            key, equals, value = pair.partition("=")
            home = next((home for home, names in homes.items() if key in names), None)
            if home is None or not equals:
                known = ", ".join(sorted(set().union(*homes.values())))
                raise ValueError(f"In {text!r}, {pair!r} is no option=value that {architecture} knows; known: {known}.")
            try:
                given[home]["name" if key == "optimizer" else key] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                given[home]["name" if key == "optimizer" else key] = value
        architecture_class(architecture).parse_options(given["options"])
        return cls(text, architecture, *(tuple(sorted(values.items())) for values in given.values()))


@dataclass
class Progress:
    """What a contestant has done; all of it is in its checkpoint."""

    step: int = 0
    spent: Spent = field(default_factory=Spent)
    history: list[dict[str, Any]] = field(default_factory=list)  # one record for each evaluation
    evaluated: int = 0  # evaluation points passed

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Progress":
        return cls(**{**fields, "spent": Spent(**fields["spent"])})


class Contestant:
    """A model, its optimisers and its place in the data, trained in slices.

    Each step is a pure function of the weights, the optimiser state and (seed, step); under FLOP and token budgets so
    is the learning rate, which is why an interrupted run ends with the same bits as an uninterrupted one.
    """

    def __init__(
        self,
        entry: Entry,
        seed: int,
        model: MaskedLM,
        optimizer: OptimizerConfig,
        batches: Batches,
        budget: Budget,
        *,
        accumulate: int = 1,
        autocast: torch.dtype | None = None,
        compile_loss: bool = False,
    ) -> None:
        self.entry, self.seed, self.model = entry, seed, model
        self.batches, self.budget, self.accumulate, self.autocast = batches, budget, accumulate, autocast
        self.optimizer_config = optimizer
        self.optimizers = Optimizers(model, optimizer)
        self.device = next(model.parameters()).device
        self.progress = Progress()
        self.loss_of = torch.compile(model.loss) if compile_loss else model.loss
        self.tokens_per_step = accumulate * batches.batch_size * batches.sequence_length
        self.flops_per_step = model.flops_per_token(batches.sequence_length) * self.tokens_per_step
        self.last: dict[str, float] = {}  # scalars of the last slice

    @property
    def label(self) -> str:
        return self.entry.label

    @property
    def fraction(self) -> float:
        return self.budget.fraction(self.progress.spent)

    @property
    def finished(self) -> bool:
        return self.fraction >= 1.0

    def precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)

    def warm_up(self) -> None:
        """One forward and backward whose gradients are thrown away: compiles and allocates outside the clock."""
        with self.precision():
            self.loss_of(self.batches.at(0).to(self.device)).backward()
        self.model.zero_grad(set_to_none=True)

    def train(self, seconds: float, until: float) -> None:
        """Train for a slice of wall-clock, or until the share `until` of the budget is spent; at least one step."""
        progress, config = self.progress, self.optimizer_config
        before, start, first = progress.spent, time.perf_counter(), progress.step
        loss_sum = torch.zeros((), device=self.device)
        while True:
            rate = config.learning_rate * learning_rate_factor(self.fraction, config.warmup, config.decay)
            loss, norm = self.step(rate)
            loss_sum += loss
            steps = progress.step - first
            elapsed = time.perf_counter() - start
            progress.spent = Spent(
                before.seconds + elapsed,
                progress.spent.flops + self.flops_per_step,
                progress.spent.tokens + self.tokens_per_step,
            )
            if elapsed >= seconds or self.fraction >= min(1.0, until):
                break
        self.last = {"loss": float(loss_sum) / steps, "learning_rate": rate, "gradient_norm": float(norm)}
        if self.device.type == "cuda":  # the queue drains inside the clock
            torch.cuda.synchronize(self.device)
        elapsed = time.perf_counter() - start
        progress.spent = dataclasses.replace(progress.spent, seconds=before.seconds + elapsed)
        tokens_per_second = steps * self.tokens_per_step / elapsed
        self.last["tokens_per_second"] = tokens_per_second
        self.last["predicted_tokens_per_second"] = tokens_per_second * self.model.architecture.predicted_fraction

    def step(self, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step over `accumulate` batches. Returns the mean loss and the gradient norm, both on device."""
        if self.model.config.dropout:
            torch.manual_seed(hash((self.seed, self.progress.step)))
        total = torch.zeros((), device=self.device)
        for micro in range(self.accumulate):
            batch = self.batches.at(self.progress.step * self.accumulate + micro).to(self.device)
            with self.precision():
                loss = self.loss_of(batch) / self.accumulate
            loss.backward()
            total += loss.detach()
        norm = self.optimizers.step(learning_rate)
        self.progress.step += 1
        return total, norm

    def save(self, directory: Path, tokenizer: bytes) -> Path:
        state = {"progress": self.progress.to_dict(), "optimizers": self.optimizers.state_dict()}
        return checkpoint.save(directory, self.progress.step, self.model, state, tokenizer)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint folder. Raises ValueError if it was made for another model configuration."""
        saved = checkpoint.load_model_from(path)
        if saved.config != self.model.config:
            theirs, ours = dataclasses.asdict(saved.config), dataclasses.asdict(self.model.config)
            differs = ", ".join(f"{k} {theirs[k]!r} there and {ours[k]!r} here" for k in ours if theirs[k] != ours[k])
            raise ValueError(f"The checkpoint {path} is from another configuration ({differs}); resume its own run.")
        self.model.load_state_dict(saved.state_dict())
        state = checkpoint.load_training(path)
        self.optimizers.load_state_dict(state["optimizers"])
        self.progress = Progress.from_dict(state["progress"])
