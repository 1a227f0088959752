"""The contract that every architecture keeps."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from data.batch import Batch
from data.batches import Masking
from model.config import ModelConfig
from model.layers import Embedding


class Architecture(nn.Module):
    """From a batch to a hidden state for each place.

    A subclass says what content is and which content a query may read: it builds its layers in `__init__` and offers
    `predict`, `encode` and `flops_per_token`. What `predict` returns at place i must not depend on token i in any way
    (tests/model/test_no_leak.py certifies every registered class); an architecture that cannot promise this for the
    true input masks its input instead, and says how in `masking`.
    """

    @dataclass(frozen=True)
    class Options:
        """The architecture's own options; a subclass replaces this class."""

    masking: Masking | None = None
    """How batches must be corrupted for `predict`, or None when it reads the true tokens and predicts every place."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.options = self.parse_options(dict(config.options))
        self.embedding = Embedding(config)

    @classmethod
    def parse_options(cls, given: dict[str, Any]) -> Any:
        """`Options` from names and values. Raises ValueError for a name that it does not have."""
        known = {field.name for field in dataclasses.fields(cls.Options)}
        if unknown := set(given) - known:
            takes = f"takes {', '.join(sorted(known))}" if known else "takes no options"
            raise ValueError(f"{cls.__name__} has no option {', '.join(sorted(unknown))}; it {takes}.")
        return cls.Options(**given)

    @property
    def predicted_fraction(self) -> float:
        """The share of positions that one training pass predicts."""
        return 1.0 if self.masking is None else self.masking.rate

    def predict(self, batch: Batch) -> Tensor:
        """(B, N, D): at each place a state independent of that place's token (with `masking`: at the masked places)."""
        raise TypeError(f"{type(self).__name__} does not define predict.")

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        """(B, N, D): at each place a state that may see everything, for fine-tuning and similarity.

        with_self=False asks for the states of `predict` where the architecture has them for the true tokens.
        """
        raise TypeError(f"{type(self).__name__} does not define encode.")

    def leave_one_out(self, batch: Batch, places: Tensor) -> tuple[Tensor, int]:
        """States of `places` (B, P), each seeing all other tokens: (B, P, D), and the passes that one sentence took.

        This one serves whenever a single `predict` shows every place all of the others.
        """
        hidden = self.predict(batch)
        return hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1])), 1

    def flops_per_token(self, sequence_length: int) -> float:
        """Forward FLOPs of `predict` for one input token, embedding to last hidden state, head not counted."""
        raise TypeError(f"{type(self).__name__} does not define flops_per_token.")
