"""The plan of a large run against what PyTorch's own tracker measures, and against arithmetic by hand."""

import re
import sys
from dataclasses import replace

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

import pretrain
from kernels.dispatch import as_operators
from kernels.roofline import H100
from model import MaskedLM, ModelConfig
from training.entry import Entry
from training.memory import activation_bytes, some_batch
from training.optimizer import OptimizerConfig, Optimizers
from training.plan import PlanConfig, number_of_tokens, planned

SMALL = PlanConfig(size="tiny", vocab_size=2048, sequence_length=64, batch_size=16, tokens="1B", count=8)


@pytest.mark.parametrize("architecture", ("local", "tta", "vanilla", "vanilla:narrow=1"))
def test_memory_is_what_a_step_holds_at_its_peak(architecture: str) -> None:
    """Live tensors on the CPU, by PyTorch's tracker; what the C library keeps beyond them is not the model's."""
    entry = Entry.parse(architecture)
    config = ModelConfig.preset(entry.architecture, size="tiny", vocab_size=2048, mask_id=3, options=entry.options)
    model, rows, length = MaskedLM(config), 64, 64
    optimizers = Optimizers(model, OptimizerConfig())
    model(some_batch(model, 1, length)).backward()
    optimizers.step(0.0)  # states are there
    tracker = MemTracker()
    tracker.track_external(model, *optimizers.optimizers)
    with tracker:
        model(some_batch(model, rows, length)).backward()
    [snapshot] = tracker.get_tracker_snapshot("peak").values()
    measured = next(value for kind, value in snapshot.items() if str(kind).endswith("Total"))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    with as_operators():
        one, two = (activation_bytes(model, some_batch(model, r, length)) for r in (1, 2))
    counted = 2 * weights + optimizers.state_bytes() + one + (two - one) * (rows - 1)
    assert one + (two - one) * (rows - 1) > weights  # it is activations that are compared
    assert counted == pytest.approx(measured, rel=0.15)


def test_steps_days_and_bytes_are_those_of_arithmetic() -> None:
    found = planned(Entry.parse("vanilla"), SMALL, H100)
    assert found.steps == pytest.approx(1e9 / (8 * 16 * 64))
    assert found.days == pytest.approx(found.steps * found.seconds_per_step / 86_400)
    assert found.sent_bytes == pytest.approx(2 * 7 / 8 * 4 * found.parameters)
    assert found.share_of_peak == pytest.approx(found.flops_per_token * 16 * 64 / H100.flops / found.seconds_per_step)
    twice = planned(Entry.parse("vanilla"), replace(SMALL, accumulate=16), H100)
    assert twice.steps == pytest.approx(found.steps / 2) and twice.activation_bytes == found.activation_bytes
    assert found.seconds_per_step < twice.seconds_per_step < 2 * found.seconds_per_step
    larger = planned(Entry.parse("vanilla"), replace(SMALL, batch_size=32), H100)
    assert larger.activation_bytes == pytest.approx(2 * found.activation_bytes, rel=0.1)  # casts of weights count once


def test_narrow_keeps_less_and_computes_less() -> None:
    wide, narrow = (planned(Entry.parse(f"vanilla{option}"), SMALL, H100) for option in ("", ":narrow=1"))
    assert narrow.flops_per_token < wide.flops_per_token and narrow.activation_bytes < wide.activation_bytes


@pytest.mark.parametrize(("text", "number"), [("20M", 2e7), ("100B", 1e11), ("1.5t", 1.5e12), ("7", 7.0)])
def test_tokens_are_read(text: str, number: float) -> None:
    assert number_of_tokens(text) == number


@pytest.mark.parametrize("bad", ["", "B", "1.2.3B", "10 parsecs", "-4M"])
def test_what_is_no_number_of_tokens_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="write 20M, 100B or 1T"):
        PlanConfig(tokens=bad)


def test_micro_batches_that_devices_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="give a multiple of the 8 devices"):
        PlanConfig(accumulate=12)


def test_the_command_prints_a_row_for_each_and_its_assumptions(monkeypatch, capsys) -> None:
    options = [
        "--size",
        "tiny",
        "--vocab-size",
        "2048",
        "--sequence-length",
        "64",
        "--batch-size",
        "4",
        "--tokens",
        "1B",
    ]
    monkeypatch.setattr(
        sys, "argv", ["pretrain.py", "--plan", *options, "--architectures", "local", "tta", "--gpu", "a100"]
    )
    assert pretrain.main() == 0
    said = capsys.readouterr().out
    assert re.search(r"│ local .*\n│ tta ", said) and "312 TFLOP/s" in said and "never measured" in said
    torch.set_num_threads(1)
