"""An architecture with its head: the training loss and the pseudo-log-likelihood."""

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from model.architectures import architecture_class
from model.batch import Batch
from model.config import ModelConfig
from model.head import Head
from model.layers import initialise, recorded


@dataclass(frozen=True)
class LeaveOneOut:
    """Predictions of positions (B, P), each given all other tokens of its document.

    nll:                (B, P) float32, nats, of the true tokens.
    top:                (B, P, k) int64, the most probable tokens, best first.
    log_probabilities:  (B, P, k) float32, of these.
    passes:             forward passes that one sentence took.
    """

    nll: Tensor
    top: Tensor
    log_probabilities: Tensor
    passes: int


@dataclass(frozen=True)
class PseudoLogLikelihood:
    """log p(x_i | all other tokens): `log_probs` (B, N) float32 in nats, 0 at padding; `passes` per sentence."""

    log_probs: Tensor
    passes: int


class MaskedLM(nn.Module):
    """`config.architecture` from the registry, wrapped with the LM head. Calling it gives the training loss."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.architecture = architecture_class(config.architecture)(config)
        # Every option is written out, so that a change of defaults does not change old checkpoints.
        options = tuple(asdict(self.architecture.options).items())
        self.config = config = replace(config, options=options)
        self.head = Head(config, self.architecture.embedding.table)
        initialise(self, config)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats over the positions that this pass predicts."""
        return self.architecture.loss(batch, self.head)

    forward = loss  # DDP and FSDP see calls of the module and nothing else

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        return self.architecture.encode(batch, with_self=with_self)

    def layer(self, batch: Batch, number: int, *, with_self: bool = True) -> Tensor:
        """(B, N, D): the raw embeddings (0), or what layer 1, 2, ... makes of its stream in `encode`."""
        if number == 0:
            return self.architecture.embedding(batch.tokens, batch.documents)
        with recorded(self.architecture) as layers:
            self.encode(batch, with_self=with_self)
        return layers[number - 1]

    @torch.no_grad()
    def leave_one_out(self, batch: Batch, positions: Tensor, k: int = 1) -> LeaveOneOut:
        """Score the tokens at `positions` (B, P), each predicted from all others, or from all outside of its span where
        `batch.spans` says so. Call in eval mode.

        k: likeliest tokens that are wanted too; without any it is faster.
        """
        states, passes = self.architecture.leave_one_out(batch, positions)
        scored = self.head.score(states.flatten(0, 1), batch.tokens.gather(1, positions).flatten(), k)
        nll, top, log_probabilities = (
            x.unflatten(0, positions.shape) for x in (scored.nll, scored.indices, scored.log_probabilities)
        )
        return LeaveOneOut(nll, top, log_probabilities, passes)

    @torch.no_grad()
    def pseudo_log_likelihood(self, batch: Batch) -> PseudoLogLikelihood:
        """The leave-one-out log-probability of every token: (B, N), 0 at padding. Call in eval mode."""
        rows, length = batch.tokens.shape
        positions = torch.arange(length, device=batch.tokens.device).expand(rows, length)
        scored = self.leave_one_out(batch, positions, k=0)
        log_probs = -scored.nll
        if batch.documents is not None:
            log_probs = log_probs.masked_fill(batch.documents < 0, 0.0)
        return PseudoLogLikelihood(log_probs, scored.passes)

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
