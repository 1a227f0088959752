"""The number of threads follows what is fastest now, and trying the others costs less the longer they lose."""

import os
from pathlib import Path

import pytest
import torch

from training.threads import RAREST, Threads, available_cores


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def slices(chooser: Threads, count: int, speed: dict[int, float]) -> tuple[list[int], list[int]]:
    """What each slice was trained with, and every number that was tried."""
    tried: list[int] = []

    def rate(seconds: float) -> float:
        tried.append(torch.get_num_threads())
        return speed[tried[-1]]

    chosen = []
    for _ in range(count):
        chooser.choose(rate)
        chosen.append(torch.get_num_threads())
    return chosen, tried


QUIET, BUSY = {4: 100.0, 3: 80.0, 2: 60.0}, {4: 5.0, 3: 30.0, 2: 60.0}


def test_the_fastest_number_trains() -> None:
    assert Threads().candidates == [4, 3, 2]
    assert set(slices(Threads(), 10, QUIET)[0]) == {4}
    assert set(slices(Threads(), 10, BUSY)[0]) == {2}


def test_it_follows_the_machine_within_a_few_slices() -> None:
    chooser = Threads()
    slices(chooser, 40, QUIET)
    assert slices(chooser, RAREST + 1, BUSY)[0][-1] == 2
    assert slices(chooser, RAREST + 1, QUIET)[0][-1] == 4


def test_losers_are_tried_rarely() -> None:
    _, tried = slices(Threads(), 80, BUSY)
    assert tried.count(4) <= 80 / RAREST + 4


def test_one_core_is_left_alone() -> None:
    torch.set_num_threads(1)
    chosen, tried = slices(Threads(), 5, {1: 1.0})
    assert chosen == [1] * 5 and tried == []


@pytest.mark.parametrize(
    ("text", "cores"), [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None), ("", None)]
)
def test_a_container_s_quota_is_seen(text: str, cores: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    bound = len(os.sched_getaffinity(0))
    assert available_cores(tmp_path) == (min(cores, bound) if cores else bound)
