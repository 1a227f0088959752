"""T-TA: diagonal-masked attention over raw embeddings (Shin et al., ACL 2020, arXiv 2004.08097).

    content   e_j = embedding(x_j), the same in every layer
    query     g_i starts from [MASK] plus place; layer l:  g_i <- Block_l(g_i, K_l e_j, V_l e_j for all j != i)

Why content stays raw: the diagonal mask protects one layer only. Were content contextual, e_j would hold x_i after the
first layer, and place i would read itself through j in the second. As no layer changes content, the keys and values of
all layers are one matrix multiplication before the first (K/V hoisting).
"""

from torch import Tensor, nn

from data.batch import Batch
from model.architectures.base import Architecture, flat_places
from model.config import ModelConfig
from model.layers import Block, hoisted_keys_values


class TTA(Architecture):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))

    def predict(self, batch: Batch, places: Tensor | None = None) -> Tensor:
        return self.query_stream(batch, "exclude_self", places)

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        return self.query_stream(batch, "full" if with_self else "exclude_self")

    def leave_one_out(self, batch: Batch, places: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, int]:
        """One pass. Content holds nothing of other places, so hiding a word takes no more than hiding its keys."""
        visibility = "exclude_self" if hidden is None else ~hidden
        states = self.query_stream(batch, visibility, flat_places(batch, places))
        return states.view(*places.shape, -1), 1

    def query_stream(self, batch: Batch, visibility: str | Tensor, places: Tensor | None = None) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)  # (B, N, D)
        query = self.embedding.queries(batch.tokens, batch.documents)  # (B, N, D), or one vector for all places
        last = len(self.blocks) - 1
        for i, (block, (k, v)) in enumerate(zip(self.blocks, hoisted_keys_values(self.blocks, content))):
            query = block(query, k, v, visibility, batch.layout, places if i == last else None)
        return query
