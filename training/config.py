"""What a run is made from. Frozen, validated, written to runs/NAME/run.json, read again by --resume."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from data.prepare import DataConfig
from model import size_names
from training.budget import Budget
from training.contestant import Entry
from training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class EvaluationConfig:
    """How often, and on how much held-out text, models are measured."""

    tokens: int = 4096
    """Held-out tokens that each model's final score is read on; vanilla needs a pass for each."""
    curve_tokens: int = 1024
    """The first of these, scored at each point of the curve."""
    points: int = 16
    """Evaluations along the budget, denser at its start, where the curves fall fastest."""
    places: int = 16
    """Scored tokens in each window."""
    seed: int = 0
    """Which windows and places: the same for every run, unless you change it."""

    def __post_init__(self) -> None:
        for name in ("tokens", "curve_tokens", "points", "places"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.curve_tokens > self.tokens:
            raise ValueError(
                f"evaluation.curve_tokens {self.curve_tokens} are the first of evaluation.tokens {self.tokens}; "
                "they cannot be more."
            )

    def fractions(self) -> list[float]:
        """Shares of the budget at which to evaluate: quadratically spaced, the last one 1."""
        return [(i / self.points) ** 2 for i in range(1, self.points + 1)]


@dataclass(frozen=True)
class PretrainConfig:
    """Pretrain several architectures side by side under one budget each, and report which learned more."""

    architectures: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: tta vanilla)")] = (
        "tta",
        "vanilla",
    )
    """Who competes: names, each with options if wanted, as in `vanilla:masking_rate=0.4,learning_rate=2e-3`."""
    budget: str = "3m"
    """What each model may use: wall-clock (90s, 5m, 2h), arithmetic (2e13flop) or tokens (20Mtok)."""
    seeds: tuple[int, ...] = (0,)
    """One model of each architecture for each seed (weights and data order); several give mean and spread."""
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    size: Literal[size_names()] = "tiny"  # type: ignore[valid-type]
    """Width and depth: tiny 128x4, small 256x4, medium 512x6, base 768x12, large 1024x24."""
    preset: Literal["modern", "bert"] = "modern"
    """The block: modern (pre-norm, rotary, gated) or bert (post-norm, learned positions, erf-GELU)."""
    dropout: float = 0.0
    """Of embeddings and of what enters the residual stream."""
    d_embed: int = 0
    """Width of the embedding table; 0 is the model's."""
    sequence_length: int = 128
    """Tokens in a window."""
    batch_size: int = 8
    """Windows in a batch. Small models on small budgets gain more from many steps than from large batches."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 (by autocast; weights stay fp32) where the machine multiplies it in hardware, else fp32."""
    compile: bool = False
    """torch.compile the loss; compiling happens before the clock starts."""
    slice_seconds: float = 4.0
    """How long one model trains before the next has its turn: a noisy machine hits all alike."""
    save_seconds: float = 60.0
    """Wall-clock between checkpoints of a model."""
    device: str = "auto"
    """auto is a GPU if there is one, else the CPU."""
    runs: Path = Path("runs")
    """Where run folders are made."""
    name: str = ""
    """The run's folder under `runs`; by default corpus, budget and time."""

    def __post_init__(self) -> None:
        if not self.architectures:
            raise ValueError("No architecture is named; give one or more, as in --architectures tta vanilla.")
        if len(set(self.architectures)) < len(self.architectures):
            raise ValueError(f"An architecture is named twice in {' '.join(self.architectures)}; name each once.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; give one or more, each once.")
        for name in ("sequence_length", "batch_size", "accumulate", "slice_seconds", "save_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0.")
        Budget.parse(self.budget)
        for text in self.architectures:
            Entry.parse(text)

    def to_json(self) -> str:
        def plain(value: Any) -> Any:
            return str(value) if isinstance(value, Path) else value

        return json.dumps(dataclasses.asdict(self), indent=2, default=plain)

    @classmethod
    def from_json(cls, text: str) -> "PretrainConfig":
        fields = json.loads(text)
        fields["data"] = DataConfig(**fields["data"])
        fields["evaluation"] = EvaluationConfig(**fields["evaluation"])
        fields["optimizer"]["betas"] = tuple(fields["optimizer"]["betas"])
        fields["optimizer"] = OptimizerConfig(**fields["optimizer"])
        fields["architectures"], fields["seeds"] = tuple(fields["architectures"]), tuple(fields["seeds"])
        fields["runs"] = Path(fields["runs"])
        return cls(**fields)
