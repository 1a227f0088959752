"""T-TA: diagonal-masked attention over raw embeddings (Shin et al., ACL 2020, arXiv 2004.08097).

    content   e_j = embedding(x_j), the same in every layer
    query     g_i starts from [MASK] plus place; layer l:  g_i <- Block_l(g_i, K_l e_j, V_l e_j for all j != i)

Why content stays raw: the diagonal mask protects one layer only. Were content contextual, e_j would hold x_i after the
first layer, and place i would read itself through j in the second. As no layer changes content, the keys and values of
all layers are one matrix multiplication before the first (K/V hoisting).
"""

from torch import Tensor, nn

from data.batch import Batch
from model.architectures.base import Architecture
from model.config import ModelConfig
from model.layers import Block, block_flops, hoisted_keys_values


class TTA(Architecture):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))

    def predict(self, batch: Batch) -> Tensor:
        return self.query_stream(batch, "exclude_self")

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        return self.query_stream(batch, "full" if with_self else "exclude_self")

    def query_stream(self, batch: Batch, visibility: str) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)  # (B, N, D)
        query = self.embedding.queries(batch.tokens, batch.documents)  # (B, N, D)
        for block, (k, v) in zip(self.blocks, hoisted_keys_values(self.blocks, content)):
            query = block(query, k, v, visibility, batch.documents)
        return query

    def flops_per_token(self, sequence_length: int) -> float:
        config = self.config
        widen = 2.0 * config.d_embed * config.d_model if config.d_embed < config.d_model else 0.0
        return widen + config.n_layers * block_flops(config, sequence_length)
