"""Chooses the number of threads when other processes use the cores too.

The threads of a small operation meet at its end. When one of them has lost its core to another process, all wait for the
scheduler, at every operation: with one busy loop beside it, a step on both of two cores takes many times as long as a
step on one. So before a slice the plausible numbers are tried for a moment, and the fastest trains the slice. A number
that loses is tried less and less often, down to every eighth slice.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import torch

SECONDS = 0.2  # of a trial
CLEARLY = 1.1  # times as fast, to replace the number in use
RAREST = 8  # slices between the trials of a number that keeps losing


def available_cores(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: those that it is bound to, and no more than the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))  # "max" is not a number: there is no quota
    return cores


class Threads:
    """Chooses torch's number of threads; `rate` below trains for some seconds and returns tokens a second."""

    def __init__(self) -> None:
        most = torch.get_num_threads()
        self.candidates = sorted({most, max(1, most - 1), max(1, most // 2)}, reverse=True)
        self.last = most  # the number that trained the slice before
        self.rests = dict.fromkeys(self.candidates, 0)  # slices until a number is tried again
        self.pauses = dict.fromkeys(self.candidates, 1)  # and how many after it loses the next time

    def choose(self, rate: Callable[[float], float]) -> None:
        """Set the number for the next slice. Trains for SECONDS with each number whose turn it is, if there are two."""
        best = min(self.candidates, key=lambda n: (self.rests[n], -n))
        due = [n for n in self.candidates if self.rests[n] == 0]
        for n in self.candidates:
            self.rests[n] = max(0, self.rests[n] - 1)
        if len(due) > 1:
            rates = {}
            for n in due:
                torch.set_num_threads(n)
                rates[n] = rate(SECONDS)
            fastest = max(due, key=rates.__getitem__)
            # A short trial is noisy: the number in use stays, unless another is clearly faster.
            best = fastest if self.last not in rates or rates[fastest] > CLEARLY * rates[self.last] else self.last
            for n in due:
                self.pauses[n] = 1 if n == best else min(RAREST, 2 * self.pauses[n])
                self.rests[n] = 0 if n == best else self.pauses[n] - 1
        self.last = best
        torch.set_num_threads(best)
