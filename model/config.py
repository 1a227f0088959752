"""What a model is made from: frozen, validated at construction, written beside every checkpoint."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, cast

from data.options import check_types


@dataclass(frozen=True)
class Size:
    """Width, depth and heads of a preset."""

    d_model: int
    n_layers: int
    n_heads: int


SIZES = {
    "tiny": Size(128, 4, 2),
    "small": Size(256, 4, 4),
    "medium": Size(512, 6, 8),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
}

# `modern`: pre-norm, rotary positions, gated feed-forward. Biases stay: with rotary positions the keys' bias is what
# lets a query attend by distance alone, and models of both kinds leave the plateau of word frequencies sooner with it.
# `bert`: the block of BERT and of T-TA's release.
PRESETS: dict[str, dict[str, Any]] = {
    "modern": {"norm": "pre", "positions": "rotary", "feed_forward": "gated", "head": "direct", "bias": True},
    "bert": {"norm": "post", "positions": "learned", "feed_forward": "gelu", "head": "dense", "bias": True},
}


REMOVED = {"zero_head": False, "softcap": 0.0}
"""Fields that were removed, with the value that means the same as not having them."""


def size_names() -> tuple[str, ...]:
    return tuple(SIZES)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shape and the arithmetic of a model.

    architecture:   a registered name (model/architectures/__init__.py).
    options:        the architecture's own options as (name, value) pairs; unknown names are refused.
    vocab_size:     rows of the embedding table, special tokens included.
    mask_id:        the id of [MASK], from which every query stream starts.
    d_embed:        width of the embedding table; narrower than d_model factorises it (ALBERT, arXiv 1909.11942). 0 is
                    d_model; auto is what the vocabulary needs, see `minimum_entropy_width`, and no more than d_model.
    head:           direct (norm, table) or dense (BERT's: a dense layer and a GELU before them), see model/head.py.
    max_length:     the longest sequence in tokens (learned positions cannot go beyond it; nothing else depends on it).
    """

    architecture: str
    vocab_size: int
    mask_id: int
    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 4
    d_ff: int = 0
    d_embed: int | Literal["auto"] = 0
    max_length: int = 512
    norm: Literal["pre", "post"] = "pre"
    positions: Literal["rotary", "learned"] = "rotary"
    feed_forward: Literal["gated", "gelu"] = "gated"
    head: Literal["direct", "dense"] = "direct"
    bias: bool = True
    dropout: float = 0.0
    norm_epsilon: float = 1e-6
    initializer_std: float = 0.02
    options: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        if self.d_ff == 0:
            # Both kinds hold 8 d^2 weights: two matrices of 4d, or three of 8d/3 (Shazeer 2020, arXiv 2002.05202).
            gated = self.feed_forward == "gated"
            object.__setattr__(self, "d_ff", self.d_model * 8 // 3 // 16 * 16 if gated else 4 * self.d_model)
        if self.d_embed == "auto":
            object.__setattr__(self, "d_embed", min(self.d_model, minimum_entropy_width(self.vocab_size)))
        if self.d_embed == 0:
            object.__setattr__(self, "d_embed", self.d_model)
        object.__setattr__(self, "options", tuple(sorted((str(k), v) for k, v in self.options)))
        self._validate()

    def _validate(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "d_embed", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} does not divide into {self.n_heads} heads; choose a multiple of the heads."
            )
        if self.positions == "rotary" and self.d_head % 2:
            raise ValueError(f"Rotary positions need an even head width; d_model / n_heads is {self.d_head}.")
        if not 0 <= self.mask_id < self.vocab_size:
            raise ValueError(f"mask_id {self.mask_id} lies outside the vocabulary of {self.vocab_size}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1).")
        if self.norm_epsilon <= 0 or self.initializer_std <= 0:
            raise ValueError(
                f"norm_epsilon {self.norm_epsilon} and initializer_std {self.initializer_std} must be more than 0."
            )
        if self.table_width > self.d_model:
            raise ValueError(f"d_embed {self.d_embed} is wider than d_model {self.d_model}; it must not be.")

    @property
    def table_width(self) -> int:
        """`d_embed`, which is a number once the config is made."""
        return cast(int, self.d_embed)

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @classmethod
    def preset(
        cls, architecture: str, *, size: str = "small", preset: str = "modern", **overrides: Any
    ) -> "ModelConfig":
        """A named size and block preset, with any field overridden.

        Raises ValueError for an unknown size, preset or field.
        """
        if size not in SIZES:
            raise ValueError(f"Unknown size {size!r}; choose one of {', '.join(SIZES)}.")
        if preset not in PRESETS:
            raise ValueError(f"Unknown block preset {preset!r}; choose one of {', '.join(PRESETS)}.")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(overrides) - known:
            raise ValueError(
                f"Unknown model option {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}."
            )
        return cls(**{"architecture": architecture, **dataclasses.asdict(SIZES[size]), **PRESETS[preset], **overrides})

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """What `to_json` wrote. Raises ValueError for anything else, a field of another type included."""
        try:
            fields = json.loads(text)
            fields["options"] = tuple((key, value) for key, value in fields["options"])
            fields.setdefault("head", "dense")  # the only one until there was a choice
            for name, off in REMOVED.items():
                if (value := fields.pop(name, off)) != off:
                    raise ValueError(
                        f"{name} is {value!r}, which this revision no longer has; read it with revision 482f64a."
                    )
            return cls(**fields)
        except (TypeError, KeyError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"This is not the model configuration of a checkpoint ({error}).") from error


def minimum_entropy_width(vocab_size: int) -> int:
    """The embedding width n > 8.33 ln V that the minimum-entropy argument asks for, rounded up to a multiple of 16.

    Source: Su Jianlin, "The principle of minimum entropy (VI): how to choose the dimension of word vectors", 2020.
    """
    return math.ceil(8.33 * math.log(vocab_size) / 16) * 16
