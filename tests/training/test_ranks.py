"""Several processes train what one process trains."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model.architectures import REGISTRY
from tests.training.runs import OPTIONS, assert_identical
from training.ranks import ALONE, Ranks

ROOT = Path(__file__).resolve().parents[2]
SURROUNDINGS = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}


def torchrun(world: int, *arguments: object, options: tuple[str, ...] = ()) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}", *options]
    return [*launcher, *map(str, arguments)]


def compared(
    world: int, accumulate: int, dtype: str, architectures: tuple[str, ...], tmp_path: Path, how: str = "whole"
) -> dict:
    """After 20 steps, by architecture and optimiser: the largest difference of a weight, whether all bits are the same, and how
    far weights moved."""
    out = tmp_path / "found.json"
    command = torchrun(world, ROOT / "tests/training/ranks_worker.py", out, 20, accumulate, dtype, how, *architectures)
    done = subprocess.run(command, cwd=ROOT, env=SURROUNDINGS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


EVERY = (*REGISTRY, "bicausal:causal=0.5")
"""And one whose towers' own head is used in the first half of training alone."""


def same_bits(found: dict) -> bool:
    return bool(found) and all(same and moved > 1e-2 for _, same, moved in found.values())


def test_two_ranks_and_two_batches_give_the_bits_of_one_process(tmp_path: Path) -> None:
    assert same_bits(compared(2, 2, "float32", ("local", "vanilla"), tmp_path))


@pytest.mark.slow
def test_two_ranks_give_the_bits_of_one_process_for_every_architecture(tmp_path: Path) -> None:
    assert same_bits(compared(2, 2, "float32", EVERY, tmp_path))


@pytest.mark.slow
def test_four_ranks_and_eight_batches_give_one_process_s_weights(tmp_path: Path) -> None:
    """Sums are in another order; in float64 what that makes is far below any mistake. Newton-Schulz stays in float32."""
    for name, (difference, _, moved) in compared(4, 8, "float64", EVERY, tmp_path).items():
        assert moved > 1e-2 and difference < (1e-4 if "muon" in name else 1e-10), (name, difference)


@pytest.mark.slow
def test_two_ranks_with_shards_give_one_process_s_weights(tmp_path: Path) -> None:
    """AdamW runs by other sums there. A gradient that were averaged, or summed twice, would be seen at once."""
    for name, (difference, _, moved) in compared(2, 4, "float64", EVERY, tmp_path, "shard").items():
        assert moved > 1e-2 and difference < (1e-4 if "muon" in name else 1e-10), (name, difference)


def arguments(text_file: Path, tmp_path: Path, name: str) -> list[str]:
    paths = ["--corpus", str(text_file), "--runs", str(tmp_path), "--cache", str(tmp_path / "cache")]
    return ["pretrain.py", *OPTIONS, *paths, "--budget", "120ktok", "--accumulate", "2", "--name", name]


def finished(command: list[str], code: int = 0) -> str:
    done = subprocess.run(command, cwd=ROOT, env=SURROUNDINGS, capture_output=True, text=True)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_over_ranks_is_stopped_and_goes_on_with_another_number(text_file: Path, tmp_path: Path) -> None:
    finished([sys.executable, *arguments(text_file, tmp_path, "alone")])
    finished(torchrun(2, *arguments(text_file, tmp_path, "two")))
    assert_identical(tmp_path / "alone", tmp_path / "two")
    options = [*arguments(text_file, tmp_path, "stopped"), "--save-seconds", "0.2"]
    started = subprocess.Popen(
        torchrun(2, *options), cwd=ROOT, env=SURROUNDINGS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_checkpoint(tmp_path / "stopped")
    [first, *_] = children(started.pid)
    os.kill(first, signal.SIGKILL)  # one rank: the other cannot go on, and says so
    said, _ = started.communicate()
    assert started.returncode != 0
    assert "lost the other processes of this run" in said or "SIGKILL" in said
    finished([sys.executable, "pretrain.py", "--resume", str(tmp_path / "stopped")])
    assert_identical(tmp_path / "alone", tmp_path / "stopped")


@pytest.mark.slow
def test_a_sharded_run_is_resumed_whole_and_a_whole_one_in_shards(text_file: Path, tmp_path: Path) -> None:
    """Its checkpoints are those of one process, optimiser states among them."""
    finished([sys.executable, *arguments(text_file, tmp_path, "alone")])
    finished(torchrun(2, *arguments(text_file, tmp_path, "sharded"), "--shard"))
    assert_close(tmp_path / "alone", tmp_path / "sharded")
    for name, first, then in (("a", ["--shard"], False), ("b", [], True)):
        options = [*arguments(text_file, tmp_path, name), *first, "--save-seconds", "0.2"]
        started = subprocess.Popen(
            torchrun(2, *options), cwd=ROOT, env=SURROUNDINGS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_checkpoint(tmp_path / name)
        os.kill(children(started.pid)[0], signal.SIGKILL)
        assert started.wait() != 0
        config = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps(config | {"shard": then}))
        resumed = ["pretrain.py", "--resume", str(tmp_path / name)]
        finished(torchrun(2, *resumed) if then else [sys.executable, *resumed])
        assert_close(tmp_path / "alone", tmp_path / name)


def assert_close(one: Path, other: Path) -> None:
    """Other sums, which hundreds of steps of Muon in bf16 enlarge: the same quality, not the same bits. That a step is the same
    is what the test in float64 shows."""
    ours, theirs = (quality(folder) for folder in (one, other))
    assert len(ours) == 2 and ours == pytest.approx(theirs, abs=0.03)


def quality(folder: Path) -> dict[str, float]:
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {record["contestant"]: record["final"]["nll"] for record in records if record["final"]}


@pytest.mark.slow
def test_torchrun_starts_a_killed_rank_again_from_the_last_checkpoint(text_file: Path, tmp_path: Path) -> None:
    finished([sys.executable, *arguments(text_file, tmp_path, "alone")])
    options = [*arguments(text_file, tmp_path, "again"), "--save-seconds", "0.2"]
    command = torchrun(2, *options, options=("--max-restarts=2",))
    started = subprocess.Popen(
        command, cwd=ROOT, env=SURROUNDINGS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for_checkpoint(tmp_path / "again")
    os.kill(children(started.pid)[-1], signal.SIGKILL)
    assert started.wait() == 0
    assert_identical(tmp_path / "alone", tmp_path / "again")


def wait_for_checkpoint(folder: Path) -> None:
    end = time.monotonic() + 120
    while not list(folder.glob("checkpoints/*/step-*/manifest.json")):
        assert time.monotonic() < end
        time.sleep(0.05)


def children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "pretrain.py" in line]


@pytest.mark.parametrize(
    ("accumulate", "workers", "sentence"),
    [(3, 1, "give a multiple of 2"), (1, 1, "A step of --accumulate 2 has"), (2, 2, "leave it 1")],
)
def test_what_ranks_cannot_divide_is_refused(accumulate: int, workers: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Ranks(0, 2).check(accumulate, workers)
    ALONE.check(accumulate, workers)


def test_half_of_torchrun_s_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="start several with torchrun"):
        Ranks.of_environment()


def test_alone_nothing_is_sent_and_all_is_done_here() -> None:
    x = torch.arange(6.0).view(3, 2)
    assert ALONE.share("a") == "a" and ALONE.agree(2.5) == 2.5 and ALONE.dealt([1, 2]) == [1, 2]
    assert list(ALONE.own(3)) == [0, 1, 2] and list(Ranks(1, 2).own(4)) == [1, 3]
    assert torch.equal(ALONE.divided(x, lambda part: 2 * part), 2 * x) and ALONE.total(x) is x
