"""What is measured: the same mathematics by several means, on the same inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Inputs = dict[str, Tensor]

# Relative Frobenius error against float64 beyond which a contestant is wrong, not merely rounded.
CHECK_BOUND = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Contestant:
    """One way to compute it. `prepare` may build masks and compile; what it returns is what is timed."""

    name: str
    prepare: Callable[[Inputs], Callable[[], Tensor]]
    ours: bool = False
    differentiable: bool = True  # False: only the forward is measured
    reference: Callable[[Inputs], Tensor] | None = None  # of a contestant that computes less than the contest asks for


@dataclass(frozen=True)
class Contest:
    """One row of the benchmark.

    `flops` are those of the forward that the mathematics needs, skipped tiles not counted; `backward_flops` likewise.
    `check_shape` is a small problem of the same kind, on which every contestant is checked before it is timed.
    """

    operator: str
    variant: str
    shape: dict[str, int]
    check_shape: dict[str, int]
    dtype: torch.dtype
    make_inputs: Callable[[dict[str, int], torch.dtype, torch.device], Inputs]
    reference: Callable[[Inputs], Tensor]  # float64
    contestants: list[Contestant]
    flops: float
    backward_flops: float
    baseline: str  # the contestant that ratios refer to: what a user would pick
    differentiated: tuple[str, ...] = ()  # the inputs that get gradients; () measures the forward alone
    bytes_moved: float = 0.0  # inputs read and outputs written once, forward

    @property
    def name(self) -> str:
        sizes = " ".join(f"{key}={value}" for key, value in self.shape.items())
        return f"{self.operator} {self.variant} {sizes} {str(self.dtype).removeprefix('torch.')}"


@dataclass
class Result:
    """Times in milliseconds, of one contestant in one contest; `refused` says why there are none."""

    contest: Contest
    contestant: Contestant
    error: float | None = None
    refused: str = ""
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    peak_mib: float | None = None

    @property
    def both(self) -> list[float]:
        return [f + b for f, b in zip(self.forward, self.backward)]
