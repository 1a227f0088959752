"""What a run is made from. Frozen, validated, written to runs/NAME/run.json, read again by --resume."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from data.files import to_json
from data.options import check_types
from data.prepare import DataConfig
from data.text import read_text
from model import size_names
from training.budget import Budget
from training.entry import Entry
from training.optimizer import OptimizerConfig
from training.sampling import SHORTEST

DEFAULT = (
    "local:n_layers=2,name=local",
    "vanilla:narrow=1,name=narrow-vanilla",
    "vanilla:narrow=1,words=1.0,masking_rate=0.2,name=narrow-vanilla-by-words",
)
"""Ours, and of the vanilla models that were tuned the best on tokens and the best on whole words (docs/tuning.md)."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How often, and on how much held-out text, models are measured."""

    tokens: int = 4096
    """How many tokens of the held-out test half the final score is measured on, and as many of the dev half. Vanilla needs a
    pass for each."""
    curve_tokens: int = 1024
    """How many of the dev half's tokens are scored at each point of the curve."""
    words: int = 1024
    """How many words of the test half are scored whole, with all of their tokens hidden together, and as many of the dev half.
    This measure compares tokenizers. 0 scores none."""
    points: int = 16
    """Evaluations along the budget, denser at its start, where the curves fall fastest."""
    positions: int = 16
    """Scored tokens in each window."""
    seed: int = 0
    """Seed that chooses the windows and positions: the same in every run, unless you change it."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.words < 0 or self.seed < 0:
            raise ValueError(f"evaluation.words {self.words} and evaluation.seed {self.seed} must not be negative.")
        for name in ("tokens", "curve_tokens", "points", "positions"):
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

    architectures: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help_behavior_hint="(default: local with two layers, and the best vanilla of each measure)"),
    ] = DEFAULT
    """The models to train: names of architectures, with options if wanted, as in `vanilla:masking_rate=0.4,learning_rate=2e-3`,
    or `tta:budget=0.25`, which gets a quarter of the budget, annealed to its end."""
    budget: str = "3m"
    """The budget of each model: wall-clock (90s, 5m, 2h), arithmetic (2e13flop) or tokens (20Mtok)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights and data order: one model of each architecture for each seed. Several give a mean and a deviation."""
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    size: Literal[size_names()] = "tiny"  # type: ignore[valid-type]
    """Width and depth: tiny 128x4, small 256x4, medium 512x6, base 768x12, large 1024x24."""
    preset: Literal["modern", "bert"] = "modern"
    """The kind of block: modern (pre-norm, rotary, gated, direct head) or bert (post-norm, learned positions, erf-GELU, dense
    head)."""
    dropout: float = 0.0
    """Dropout of the embeddings and of what is added to the residual stream."""
    d_embed: int | Literal["auto"] = 0
    """Width of the embedding table. 0: the width of the model. auto: what the vocabulary needs (8.33 ln V)."""
    sequence_length: int = 128
    """Tokens in a window."""
    batch_size: int = 8
    """Windows in a batch. Small models on small budgets gain more from many steps than from large batches."""
    accumulate: int = 1
    """Batches whose gradients are summed for one step."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 (by autocast; weights stay fp32) where the machine multiplies it in hardware, else fp32."""
    compile: bool = False
    """Compile the loss with torch.compile, as one graph, before the clock starts. On 2 CPU cores this takes half a minute and
    gains 1 to 2%; on GPUs it has not been measured."""
    workers: int = 1
    """How many models train side by side, each in its own process with its share of the cores; 0 is one for each core. Only
    with FLOP and token budgets on a CPU. A small model gains little from a second core."""
    slice_seconds: float = 4.0
    """Seconds that one model trains before the next has its turn. Turns are short, so that other work on the machine slows all
    models alike."""
    save_seconds: float = 60.0
    """Seconds between checkpoints of a model."""
    shard: bool = False
    """With torchrun: keep weights, gradients and optimiser states in shards (FSDP2), for models that do not fit on one
    device."""
    track: Literal["", "wandb", "trackio"] = ""
    """Send scalars to this tracker too; it must be installed. TensorBoard always gets them."""
    device: str = "auto"
    """auto takes a GPU if there is one, else the CPU."""
    runs: Path = Path("runs")
    """The folder in which run folders are made."""
    name: str = ""
    """Name of the run's folder; by default made of corpus, budget and time."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.architectures:
            raise ValueError("No architecture is named; give one or more, as in --architectures tta vanilla.")
        if len(set(self.architectures)) < len(self.architectures):
            raise ValueError(f"An architecture is named twice in {' '.join(self.architectures)}; name each once.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds are {self.seeds}; give one or more of 0 and above, each once.")
        if max(self.seeds) >= 1 << 63:
            raise ValueError(f"A seed is {max(self.seeds)}; seeds must be below 2^63.")
        for name in ("sequence_length", "batch_size", "accumulate", "slice_seconds", "save_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0.")
        if self.sequence_length < SHORTEST:
            raise ValueError(f"sequence_length is {self.sequence_length}; it must be at least {SHORTEST} tokens.")
        budget = Budget.parse(self.budget)
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 (one for each core) or more.")
        if self.workers != 1 and budget.kind == "seconds":
            raise ValueError(
                f"workers is {self.workers} and the budget is wall-clock: contestants that share a machine would share "
                "its time unequally. Give a budget in FLOPs or tokens, as 2e13flop or 20Mtok, or workers 1."
            )
        entries = [Entry.parse(text) for text in self.architectures]
        if len({entry.identity for entry in entries}) < len(entries):
            raise ValueError(f"One contestant is named twice, in different words, in {' '.join(self.architectures)}.")
        if len({entry.label for entry in entries}) < len(entries):
            raise ValueError(
                f"Two contestants have the same name in {' '.join(self.architectures)}; give each its own."
            )

    def to_json(self) -> str:
        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(inner) for name, inner in value.items()}
            return str(value) if isinstance(value, Path) else value

        return to_json(plain(dataclasses.asdict(self)), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "PretrainConfig":
        """What `to_json` wrote. Raises ValueError for anything else."""
        try:
            fields = json.loads(text)
            data: dict[str, Any] = {
                n: Path(v) if n in ("tokenizer", "cache", "dictionary") and v else v for n, v in fields["data"].items()
            }
            fields["data"] = DataConfig(**data)
            if fields.pop("zero_head", False):
                raise ValueError(
                    "it was begun with zero_head, which this revision no longer has; continue it with 482f64a"
                )
            if "places" in fields["evaluation"]:  # until December 2026
                fields["evaluation"]["positions"] = fields["evaluation"].pop("places")
            fields["evaluation"] = EvaluationConfig(**fields["evaluation"])
            fields["optimizer"]["betas"] = tuple(fields["optimizer"]["betas"])
            fields["optimizer"] = OptimizerConfig(**fields["optimizer"])
            fields["architectures"], fields["seeds"] = tuple(fields["architectures"]), tuple(fields["seeds"])
            fields["runs"] = Path(fields["runs"])
            return cls(**fields)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"found something other than the configuration of a run ({error})") from error

    @classmethod
    def load(cls, folder: Path) -> "PretrainConfig":
        """Of the run in `folder`. Raises FileNotFoundError or ValueError if there is none."""
        path = folder / "run.json"
        if not path.exists():
            raise FileNotFoundError(f"{folder} holds no run (no run.json); give a folder that `pretrain.py` made.")
        try:
            return cls.from_json(read_text(path))
        except ValueError as error:
            raise ValueError(f"{path} is not what `pretrain.py` wrote: {error}; start a new run.") from error
