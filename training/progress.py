"""What a contestant has done and spent, and the clock that measures its training time."""

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from training.budget import Spent


@dataclass
class Progress:
    """What a contestant has done; all of it is in its checkpoint.

    sessions: for each process that trained it, the machine it ran on and the step at which it took over.
    diverged: the share of the budget that was spent when its loss was no longer a number, or None.
    suspended: seconds for which the process was stopped while it trained; they are not counted.
    """

    step: int = 0
    spent: Spent = field(default_factory=Spent)
    history: list[dict[str, Any]] = field(default_factory=list)  # one record for each evaluation
    evaluated: int = 0  # evaluation points passed
    sessions: list[dict[str, Any]] = field(default_factory=list)
    diverged: float | None = None
    suspended: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Progress":
        return cls(**{**fields, "spent": Spent(**fields["spent"])})


class Clock:
    """Seconds since it was made, without those in which the process was suspended or stalled for whole seconds."""

    STILL = 2.0  # seconds without work between two ticks that are taken for a stop

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.work = time.process_time()
        self.suspended, self.longest = 0.0, 0.0

    def tick(self) -> float:
        """Call it after each step. A step that took long without using the CPU counts as long as the longest before it."""
        now, work = time.perf_counter(), time.process_time()
        took, worked = now - self.last, work - self.work
        if took - worked > self.STILL and took > 10 * max(self.longest, worked):
            self.suspended += took - max(self.longest, worked)
        else:
            self.longest = max(self.longest, took)
        self.last, self.work = now, work
        return now - self.start - self.suspended
