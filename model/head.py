"""From a hidden state to a distribution over the vocabulary, by the tied table and a bias."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.linear_cross_entropy import TopK, linear_cross_entropy, linear_nll, linear_top_k
from model.config import ModelConfig
from model.layers import make_norm


class Head(nn.Module):
    """`direct`: norm, table. A state that holds a token's embedding names that token, so attention can copy. `dense`: BERT's,
    with a dense layer and a GELU before the table, which have to learn that first.

    With a factorised table a dense layer is the way down from D to E in both.
    """

    def __init__(self, config: ModelConfig, table: nn.Embedding) -> None:
        super().__init__()
        # In pre-norm no layer normalises the last residual stream, so the head does.
        self.norm_in = make_norm(config, config.d_model) if config.norm == "pre" else nn.Identity()
        self.gelu = config.head == "dense"
        narrow = config.table_width < config.d_model
        self.dense = nn.Linear(config.d_model, config.table_width, bias=config.bias) if self.gelu or narrow else None
        self.norm_out = make_norm(config, config.table_width)
        self.table = table  # shared with the input embedding, not copied
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def features(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., E): what is multiplied with the table."""
        x = self.norm_in(hidden)
        x = x if self.dense is None else self.dense(x)
        return self.norm_out(F.gelu(x) if self.gelu else x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V). For a few rows; losses and scores never hold all logits at once."""
        return F.linear(self.features(hidden), self.table.weight, self.bias)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of targets (T,), each a token, given hidden (T, D)."""
        output = self.features(hidden), self.table.weight, targets, self.bias
        return linear_cross_entropy(*output, ignore_index=None)

    def score(self, hidden: Tensor, targets: Tensor, k: int = 1) -> TopK:
        """Likelihood of targets (T,) given hidden (T, D), and the k likeliest tokens, in one sweep; no gradient.

        k = 0 asks for the likelihood alone, which takes less.
        """
        if not k:
            output = self.features(hidden), self.table.weight, targets, self.bias
            nll, lse = linear_nll(*output)
            return TopK(nll, lse, targets.new_empty(len(targets), 0), nll.new_empty(len(targets), 0))
        return linear_top_k(self.features(hidden), self.table.weight, targets, self.bias, k=k)
