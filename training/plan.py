"""What a large run would need: `python pretrain.py --plan --size base --tokens 100B --gpu h100 --count 64`.

Calculated: nothing here has run on the GPUs it speaks of. FLOPs are counted as the model runs, and so are the tensors
that a backward pass keeps, on two windows on this machine's CPU; the rest follows from the assumptions that are printed.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from data.options import check_types
from kernels.dispatch import as_operators
from kernels.roofline import CHIPS, Chip
from model import MaskedLM, ModelConfig, size_names
from model.flops import step_flops
from training.entry import Entry
from training.machine import precision
from training.memory import activation_bytes, some_batch
from training.optimizer import OptimizerConfig, Optimizers

GEMM, MEMORY = 0.7, 0.8  # shares of the data sheet's peaks that large products and plain copies reach
TRAFFIC = (
    4  # times that each kept activation moves: written, read by the next operator, read backward, its gradient written
)
UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
RESERVE = 2 << 30  # bytes of a device for the CUDA context and workspaces


@dataclass(frozen=True)
class PlanConfig:
    """Memory, arithmetic, days and communication of a run that does not begin."""

    plan: bool = True
    """Print a plan: what a large run will need."""
    architectures: tuple[str, ...] = ("local", "vanilla:narrow=1", "vanilla")
    """Architectures, as in a run; options of the architecture and of the model are used."""
    size: Literal[size_names()] = "base"  # type: ignore[valid-type]
    """Width and depth, as in a run."""
    vocab_size: int = 32_768
    """Vocabulary size."""
    sequence_length: int = 512
    """Tokens in a window."""
    batch_size: int = 32
    """Windows in a micro-batch of one device."""
    accumulate: int = 0
    """Micro-batches in a step, of all devices together; 0 is one for each device."""
    tokens: str = "100B"
    """Tokens to read: 20M, 100B, 1T."""
    gpu: Literal["a100", "h100"] = "h100"
    """The GPU whose data sheet is used."""
    count: Annotated[int, tyro.conf.arg(aliases=["--gpus"])] = 8
    """Number of devices."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("vocab_size", "sequence_length", "batch_size", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.accumulate < 0 or self.accumulate % self.count:
            raise ValueError(f"accumulate is {self.accumulate}; give a multiple of the {self.count} devices, or 0.")
        number_of_tokens(self.tokens)


@dataclass(frozen=True)
class Plan:
    """Of one model. Bytes are of one device: weights with gradients and optimiser states, and kept activations."""

    parameters: int
    flops_per_token: float
    state_bytes: float
    activation_bytes: float
    seconds_per_step: float
    share_of_peak: float
    sent_bytes: float
    steps: float

    @property
    def bytes(self) -> float:
        return self.state_bytes + self.activation_bytes

    @property
    def days(self) -> float:
        return self.steps * self.seconds_per_step / 86_400


def number_of_tokens(text: str) -> float:
    match = re.fullmatch(r"([0-9.]+)\s*([kKmMbBtT]?)", text.strip())
    try:
        return float(match[1]) * UNITS[match[2].lower()]  # type: ignore[index]
    except (TypeError, ValueError):
        raise ValueError(f"tokens is {text!r}; write 20M, 100B or 1T.") from None


def planned(entry: Entry, config: PlanConfig, chip: Chip) -> Plan:
    shape = {"vocab_size": config.vocab_size, "mask_id": 3, "max_length": max(512, config.sequence_length)}
    made = ModelConfig.preset(
        entry.architecture, size=config.size, options=entry.options, **{**shape, **dict(entry.model)}
    )
    model = MaskedLM(made)
    parameters = model.parameter_count()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    states = Optimizers(model, config.optimizer).state_bytes()
    rows, length = config.batch_size, config.sequence_length
    with as_operators(), precision(torch.device("cpu"), torch.bfloat16):  # the operators that a GPU runs too
        one, two = (activation_bytes(model, some_batch(model, r, length)) for r in (1, 2))
    kept = one + (two - one) * (rows - 1)
    predicted = some_batch(model, rows, length).predicted
    flops = step_flops(made, rows, length)(predicted)
    micro = (config.accumulate or config.count) // config.count
    products = micro * flops / (GEMM * chip.flops)
    moved = micro * (TRAFFIC * kept + 2 * weights) + 3 * (weights + states)
    seconds = products + moved / (MEMORY * chip.bandwidth)
    tokens = micro * config.count * rows * length
    ring = 2 * (config.count - 1) / config.count
    return Plan(
        parameters=parameters,
        flops_per_token=flops / (rows * length),
        state_bytes=2 * weights + states,
        activation_bytes=kept,
        seconds_per_step=seconds,
        share_of_peak=micro * flops / chip.flops / seconds,
        sent_bytes=ring * weights,
        steps=number_of_tokens(config.tokens) / tokens,
    )


def plan(config: PlanConfig, console: Console) -> None:
    chip = next(chip for chip in CHIPS if chip.name.lower() == config.gpu)
    windows = config.batch_size * (config.accumulate or config.count)
    table = Table(
        title=f"{config.tokens} tokens, size {config.size}, {config.count} x {chip.name}, steps of {windows:,} windows of "
        f"{config.sequence_length}",
        title_justify="left",
    )
    for column in ("", "parameters", "FLOPs a token", "GB a device", "of these activations", "ms a step", "of peak", "days",
                   "GB sent a step"):  # fmt: skip
        table.add_column(column, justify="right" if column else "left")
    for text in config.architectures:
        found = planned(Entry.parse(text), config, chip)
        table.add_row(
            text,
            f"{found.parameters / 1e6:,.0f} M",
            f"{found.flops_per_token / 1e6:,.0f} M",
            f"{(found.bytes + RESERVE) / 1e9:.1f}",
            f"{found.activation_bytes / 1e9:.1f}",
            f"{1e3 * found.seconds_per_step:,.0f}",
            f"{found.share_of_peak:.0%}",
            f"{found.days:.2f}",
            f"{found.sent_bytes / 1e9:.2f}",
        )
    console.print(table)
    console.print(
        f"Assumed: bf16 products at {GEMM:.0%} of {chip.flops / 1e12:,.0f} TFLOP/s; each kept activation moved {TRAFFIC} times "
        f"and weights and states once a step, at {MEMORY:.0%} of {chip.bandwidth / 1e12:.2f} TB/s; nothing overlaps, except that "
        "gradients are sent (fp32, ring) while the backward pass computes; weights, gradients and states are whole on each "
        f"device; {RESERVE / 2**30:.0f} GiB for the context and workspaces. Calculated, never measured on a GPU.",
        soft_wrap=True,
    )
