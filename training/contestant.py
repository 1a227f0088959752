"""One model in a race: its training steps, what it has spent, and its state on disk."""

import contextlib
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from data.files import to_json, write_atomically
from model import MaskedLM
from model.batch import Batch
from model.flops import step_flops
from model.layers import dropout_by_sample
from training import checkpoint
from training.budget import Budget, Spent, learning_rate_factor
from training.entry import Entry
from training.machine import precision
from training.optimizer import OptimizerConfig, Optimizers
from training.progress import Clock, Progress
from training.ranks import ALONE, Ranks
from training.sampling import Source
from training.sharding import copied, gathered, shard


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))


class Contestant:
    """A model, its optimisers and its position in the data, trained in slices.

    Each step is a pure function of the weights, the optimiser state and (seed, step); under FLOP and token budgets so
    is the learning rate, which is why an interrupted run ends with the same bits as an uninterrupted one.
    """

    def __init__(
        self,
        entry: Entry,
        seed: int,
        model: MaskedLM,
        optimizer: OptimizerConfig,
        batches: Source,
        budget: Budget,
        *,
        accumulate: int = 1,
        autocast: torch.dtype | None = None,
        compile_loss: bool = False,
        ranks: Ranks = ALONE,
        sharded: bool = False,
    ) -> None:
        self.entry, self.seed, self.model = entry, seed, model
        self.batches, self.budget, self.accumulate, self.autocast = batches, budget, accumulate, autocast
        if optimizer.learning_rate is None:
            optimizer = dataclasses.replace(optimizer, learning_rate=model.architecture.learning_rate)
        self.optimizer_config, self.learning_rate = optimizer, cast(float, optimizer.learning_rate)
        self.sharded = sharded and not ranks.alone
        if self.sharded:
            shard(model, ranks.world)
        self.optimizers = Optimizers(model, optimizer, ranks)
        self.device = next(model.parameters()).device
        self.progress = Progress()
        self.ranks = ranks
        self.loss_of = cast(nn.Module, torch.compile(model, fullgraph=True)) if compile_loss else model
        # The same, with gradients averaged over ranks; made with the first step, when all are there.
        self.parallel: nn.parallel.DistributedDataParallel | None = None
        self.compiled = compile_loss
        self.tokens_per_step = accumulate * batches.batch_size * batches.sequence_length
        self.identity: dict[str, Any] = {}  # of the run, compared on resume
        self.last: dict[str, float] = {}  # scalars of the last slice
        self.ahead: tuple[int, list[Batch]] | None = None  # the next step's batches, on their way to the device

    @property
    def label(self) -> str:
        return self.entry.label

    @property
    def fraction(self) -> float:
        return self.budget.fraction(self.progress.spent)

    @property
    def finished(self) -> bool:
        """Nothing more to train: the budget is spent, or the model has diverged."""
        return self.fraction >= 1.0 or self.progress.diverged is not None

    @property
    def predicted_per_step(self) -> int:
        """Positions that a step is asked to predict, by the masking rate now; in short documents there may be fewer."""
        masking = self.model.architecture.masking_at(self.fraction)
        length, rows = self.batches.sequence_length, self.tokens_per_step // self.batches.sequence_length
        return self.tokens_per_step if masking is None else rows * max(1, round(masking.rate * length))

    def flops_of(self, predicted: int, fraction: float | None = None) -> float:
        """FLOPs of a batch that predicts this many positions, when this share of the budget is spent (by default: now)."""
        fraction = self.fraction if fraction is None else fraction
        shape = self.batches.batch_size, self.batches.sequence_length
        return step_flops(self.model.config, *shape, self.model.architecture.phase(fraction))(predicted)

    @property
    def flops_per_step(self) -> float:
        """Of a whole step, predicting as many positions as it should."""
        return self.accumulate * self.flops_of(self.predicted_per_step // self.accumulate)

    def precision(self) -> torch.autocast:
        return precision(self.device, self.autocast)

    def warm_up(self) -> None:
        """A forward and backward whose gradients are thrown away: compiles and allocates outside the clock.

        Both kinds of batch are met, with and without a document boundary, since compiled code differs between them.
        """
        batch = self.batches.at(0, self.model.architecture.masking_at(self.fraction))
        kinds = [batch]
        if self.compiled:
            packed = torch.zeros(batch.tokens.shape, dtype=torch.int32)
            packed[:, packed.shape[1] // 2 :] = 1
            kinds = [dataclasses.replace(batch, documents=None), dataclasses.replace(batch, documents=packed)]
        for each in kinds:
            with self.precision():
                self.loss_of(each.to(self.device)).backward()
        self.model.zero_grad(set_to_none=True)

    def train(self, seconds: float, until: float) -> None:
        """Train for a slice of wall-clock, or until the share `until` of the budget is spent; at least one step.

        A loss that is no longer a number ends the contestant's training: `progress.diverged`.
        """
        progress, config = self.progress, self.optimizer_config
        before, first, clock = progress.spent, progress.step, Clock()
        loss_sum = torch.zeros((), device=self.device)
        while True:
            rate = self.learning_rate * learning_rate_factor(self.fraction, config.warmup, config.decay)
            loss, norm, predicted, flops = self.step(rate)
            loss_sum += loss
            steps = progress.step - first
            elapsed = self.ranks.agree(clock.tick())  # one clock, so that all have one rate and one end
            progress.spent = Spent(
                before.seconds + elapsed,
                progress.spent.flops + flops,
                progress.spent.tokens + self.tokens_per_step,
                progress.spent.predicted + predicted,
            )
            if elapsed >= seconds or self.fraction >= min(1.0, until):
                break
        # A GPU's queue drains here, inside the clock.
        mean_loss, last_norm = float(self.ranks.total(loss_sum)) / steps, float(norm)
        elapsed = self.ranks.agree(clock.tick())
        progress.suspended += self.ranks.agree(clock.suspended)
        progress.spent = dataclasses.replace(progress.spent, seconds=before.seconds + elapsed)
        if not (math.isfinite(mean_loss) and math.isfinite(last_norm)):
            self.diverge()
            return
        self.last = {
            "loss": mean_loss,
            "learning_rate": rate,
            "gradient_norm": last_norm,
            "tokens_per_second": steps * self.tokens_per_step / elapsed,
            "predicted_tokens_per_second": (progress.spent.predicted - before.predicted) / elapsed,
        }

    def diverge(self) -> None:
        """Record that the model diverged, at this share of its budget."""
        self.progress.diverged = self.fraction
        self.last = {}

    def step(self, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor, int, float]:
        """One optimiser step over `accumulate` batches, of which each rank takes its share.

        Returns this rank's part of the mean loss over all predicted positions, and the gradient norm, both on device; and of all
        ranks how many positions were predicted, and the FLOPs.
        """
        now = self.fraction
        batches = self._batches_of(self.progress.step)
        counts = self.ranks.dealt([batch.predicted for batch in batches])
        predicted = sum(counts)
        flops = sum(self.flops_of(count, now) for count in counts)
        self.model.architecture.fraction = now
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=1):
            if batch.predicted:
                total += self._backward(batch, batch.predicted / predicted, last=number == len(batches))
            elif not self.ranks.alone:  # the others wait for this rank's gradients, which are zero
                one = torch.zeros_like(batch.tokens, dtype=torch.bool)
                one[0, 0] = True
                self._backward(dataclasses.replace(batch, masked=one), 0.0, last=number == len(batches))
        self.progress.step += 1
        if self.device.type == "cuda":  # while the device works
            spent = self.progress.spent
            after = dataclasses.replace(spent, flops=spent.flops + flops, tokens=spent.tokens + self.tokens_per_step)
            self._fetch(self.progress.step, self.budget.fraction(after))
        norm = self.optimizers.step(learning_rate)
        return total, norm, predicted, flops

    def _backward(self, batch: Batch, weight: float, last: bool) -> torch.Tensor:
        """Add the gradients of a batch; with the last one those of all ranks. Positions count alike, whatever batch holds
        them."""
        loss_of, waiting = self.loss_of, cast(contextlib.AbstractContextManager, contextlib.nullcontext())
        if self.sharded:
            cast(Any, self.model).set_requires_gradient_sync(last)
        elif not self.ranks.alone:
            if self.parallel is None:
                phases = self.model.architecture.phase(0.0) != self.model.architecture.phase(1.0)
                self.parallel = self.ranks.parallel(self.loss_of, phases)
            loss_of = self.parallel
            waiting = contextlib.nullcontext() if last else self.parallel.no_sync()
        # DistributedDataParallel averages gradients over ranks, and wanted is their sum.
        scale = 1 if self.parallel is None else self.ranks.world
        with waiting:
            with self._dropout(batch), self.precision():
                loss = loss_of(batch) * (weight * scale)
            loss.backward()
        return loss.detach() / scale

    def _dropout(self, batch: Batch) -> contextlib.AbstractContextManager:
        if not self.model.config.dropout:
            return contextlib.nullcontext()
        return dropout_by_sample(self.seed, batch.samples, self.device)

    def _batches_of(self, step: int) -> list[Batch]:
        if self.ahead is None or self.ahead[0] != step:
            self._fetch(step, self.fraction)
        ahead, self.ahead = self.ahead, None
        assert ahead is not None
        return ahead[1]

    def _fetch(self, step: int, fraction: float) -> None:
        """The batches of a step, masked as the share of the budget asks that is spent when it begins."""
        masking = self.model.architecture.masking_at(fraction)
        own = self.ranks.own(self.accumulate)
        batches = [self.batches.at(step * self.accumulate + micro, masking) for micro in own]
        if self.device.type == "cuda":
            batches = [batch.pin_memory() for batch in batches]
        self.ahead = step, [batch.to(self.device) for batch in batches]

    def save(self, directory: Path, tokenizer: bytes) -> None:
        """Write a checkpoint: all ranks gather it, rank 0 writes. For a diverged model only this fact is noted, and its last
        sound checkpoint stays."""
        if self.progress.diverged is not None:
            if not self.ranks.first:
                return
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / "diverged.json", to_json(self.progress.to_dict()))
            return
        state = {"progress": self.progress.to_dict(), "optimizers": self.optimizers.state_dict(), "made": self._made()}
        model = gathered(self.model)
        if self.ranks.first:
            checkpoint.save(directory, self.progress.step, model, state, tokenizer)

    def _made(self) -> dict[str, Any]:
        """What a checkpoint depends on: corpus and tokenizer, seed, order of the data, optimiser."""
        batches = [self.batches.batch_size, self.accumulate, self.batches.sequence_length]
        optimizer = dataclasses.asdict(self.optimizer_config)
        return {**self.identity, "seed": self.seed, "batches": batches, "optimizer": optimizer}

    def restore(self, directory: Path) -> list[str]:
        """Continue from the newest whole checkpoint, if there is one. Returns a sentence for each damaged one.

        Raises ValueError if it was made for another configuration, or if there are checkpoints and none is whole.
        """
        checkpoint.sweep(directory)
        path, damaged = checkpoint.last_good(directory)
        if path is not None:
            self.load(path)
        elif damaged:
            raise ValueError(
                f"{' '.join(damaged)} No whole checkpoint of {self.label} is left in {directory}; bring one back, or start a new "
                "run."
            )
        if (note := directory / "diverged.json").exists():
            self.progress = Progress.from_dict(json.loads(note.read_text()))
        return damaged

    def load(self, path: Path) -> None:
        """Continue from a checkpoint folder. Raises ValueError if it was made for another model configuration."""
        saved = checkpoint.load_model_from(path)
        if saved.config != self.model.config:
            theirs, ours = dataclasses.asdict(saved.config), dataclasses.asdict(self.model.config)
            differs = ", ".join(f"{k} {theirs[k]!r} there and {ours[k]!r} here" for k in ours if theirs[k] != ours[k])
            raise ValueError(f"The checkpoint {path} is from another configuration ({differs}); resume its own run.")
        copied(self.model.parameters(), saved.parameters())
        state = checkpoint.load_training(path)
        made, here = state.get("made") or {}, self._made()
        if changed := [k for k in here if k in made and _plain(made[k]) != _plain(here[k])]:
            told = ", ".join(f"{k} {made[k]!r} there and {here[k]!r} here" for k in changed)
            raise ValueError(f"The checkpoint {path} belongs to another run ({told}); bring this run's own back.")
        self.optimizers.load_state_dict(state["optimizers"])
        self.progress = Progress.from_dict(state["progress"])
        self.ahead = None
