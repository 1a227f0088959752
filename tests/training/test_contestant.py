"""A step as a whole: one compiled graph, both layouts warmed, nothing that waits."""

import dataclasses
from pathlib import Path

import pytest
import torch

from model.architectures import REGISTRY
from model.batch import Batch
from tests.conftest import random_batch
from tests.model.models import FAMILY, tiny_model
from tests.model.test_no_leak import masked_batch
from training.budget import Budget
from training.contestant import Contestant
from training.entry import Entry
from training.optimizer import OptimizerConfig
from training.progress import Clock


class SomeBatches:
    """Rows of random tokens, with other document boundaries at every step, at every third none."""

    batch_size, sequence_length = 2, 12

    def __init__(self, masked: bool) -> None:
        self.masked = masked

    def at(self, step: int, masking: object = None) -> Batch:
        batch = random_batch("whole", seed=step)
        if step % 3:
            documents = torch.zeros(2, 12, dtype=torch.int32)
            documents[0, 3 + step % 5 :], documents[1, 2 + step % 7 :] = 1, 1
            batch = dataclasses.replace(batch, documents=documents)
        return masked_batch(batch) if self.masked else batch


def contestant(architecture: str, **options: object) -> Contestant:
    model = tiny_model(architecture).train()
    batches = SomeBatches(model.architecture.masking is not None)
    return Contestant(Entry.parse(architecture), 0, model, OptimizerConfig(), batches, Budget("tokens", 1e6), **options)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FAMILY)
def test_compiled_it_is_one_graph_and_compiled_before_the_clock_starts(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No graph break; after warming up, no batch makes the compiler work again; and the losses are the same."""
    torch._dynamo.reset()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **kw: compile_(model, backend="aot_eager", **kw))
    compiled, plain = contestant(architecture, compile_loss=True), contestant(architecture)
    compiled.warm_up()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(6):
            ours, theirs = compiled.step(1e-3)[0], plain.step(1e-3)[0]
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", REGISTRY)
def test_what_a_step_reads_of_its_batch_is_made_before_it(architecture: str) -> None:
    """On a GPU every look at a tensor's contents waits. Positions and layouts are there when the batch arrives."""
    [batch] = contestant(architecture)._batches_of(1)
    assert {"layout", "positions"} <= vars(batch).keys()
    assert batch.layout is not None


@pytest.mark.parametrize("architecture", REGISTRY)
def test_a_loss_that_is_no_number_ends_the_training(architecture: str) -> None:
    lost = contestant(architecture)
    lost.train(0.0, until=1.0)
    assert not lost.finished and lost.last["loss"] > 0
    with torch.no_grad():
        next(lost.model.parameters()).fill_(float("inf"))
    lost.train(0.0, until=1.0)
    assert lost.finished and lost.progress.diverged == pytest.approx(48 / 1e6) and lost.last == {}


def test_a_process_that_stood_still_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 0.1 s, a stop of 15 s, a step of 0.1 s; a step that works for long is charged, however long it takes."""
    now = {"wall": 0.0, "work": 0.0}
    monkeypatch.setattr("training.progress.time.perf_counter", lambda: now["wall"])
    monkeypatch.setattr("training.progress.time.process_time", lambda: now["work"])
    clock = Clock()

    def step(wall: float, work: float) -> float:
        now["wall"] += wall
        now["work"] += work
        return clock.tick()

    assert step(0.1, 0.1) == pytest.approx(0.1) and step(0.1, 0.2) == pytest.approx(0.2)
    assert step(15.0, 0.1) == pytest.approx(0.3) and clock.suspended == pytest.approx(14.9)
    assert step(0.1, 0.1) == pytest.approx(0.4)
    assert step(5.0, 9.0) == pytest.approx(5.4)  # it worked
    assert step(3.0, 1.5) == pytest.approx(8.4)  # beside another process


def test_a_checkpoint_belongs_to_its_run(tmp_path: Path) -> None:
    """Another corpus, or another learning rate, under the same name: refused, with both told."""
    one = contestant("tta")
    one.identity = {"prepared": "a"}
    one.train(0.0, 1.0)
    one.save(tmp_path, b"tokenizer")
    two = contestant("tta")
    two.identity = {"prepared": "b"}
    with pytest.raises(ValueError, match=r"belongs to another run \(prepared 'a' there and 'b' here\)"):
        two.restore(tmp_path)
    two.identity = {"prepared": "a"}
    two.optimizer_config = dataclasses.replace(two.optimizer_config, learning_rate=1.0)
    with pytest.raises(ValueError, match="belongs to another run \\(optimizer"):
        two.restore(tmp_path)
