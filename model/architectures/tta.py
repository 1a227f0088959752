"""T-TA: diagonal-masked attention over raw embeddings (Shin et al., ACL 2020, arXiv 2004.08097).

    content   e_j = embedding(x_j), the same in every layer
    query     g_i starts from [MASK] plus position; layer l:  g_i <- Block_l(g_i, K_l e_j, V_l e_j for all j != i)

Why content stays raw: the diagonal mask protects one layer only. Were content contextual, e_j would hold x_i after the
first layer, and position i would read itself through j in the second. As no layer changes content, the keys and values of
all layers are one matrix multiplication before the first (K/V hoisting).

`words=p` hides a share p of the words whole from each of their own positions while training (`Batch.spans`), and tells queries
how long what is hidden is; in a share `rest` of these words a position sees the word's tokens before it.
"""

from dataclasses import dataclass

from torch import Tensor

from data.words import Hiding
from model.architectures.base import Architecture, flat_positions
from model.batch import Batch
from model.config import ModelConfig
from model.layers import Blocks, hoisted_keys_values
from model.neighbours import SpanEnds


class TTA(Architecture):
    @dataclass(frozen=True)
    class Options:
        words: float = 0.0
        rest: float = 0.0

        def __post_init__(self) -> None:
            Hiding(self.words, self.rest)

    learning_rate = 4.5e-3
    added_options = (("words", 0.0), ("rest", 0.0))

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.hiding = Hiding(self.options.words, self.options.rest)
        self.blocks = Blocks.of(config, config.n_layers)
        self.ends = SpanEnds(config) if self.options.words else None

    def predict(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        return self.query_stream(batch, "exclude_self", positions)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        return self.query_stream(batch, "full" if with_self else "exclude_self")

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        """One pass. Content holds nothing of other positions, so hiding a word takes no more than hiding its keys."""
        return self.predict(batch, flat_positions(batch, positions)).view(*positions.shape, -1), 1

    def query_stream(self, batch: Batch, visibility: str, positions: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)  # (B, N, D)
        query = self.embedding.queries(batch.tokens, batch.documents)  # (B, N, D), or one vector for all positions
        if self.ends is not None:
            query = query + self.ends(batch.spans)
        last = len(self.blocks) - 1
        for i, (block, (k, v)) in enumerate(zip(self.blocks, hoisted_keys_values(self.blocks, content))):
            query = block(query, k, v, visibility, batch.layout, positions if i == last else None, batch.spans)
        return query
