"""The yardstick: how well a model predicts a held-out token from all other tokens of its window.

MLM loss at 15%, at 40% and the loss over all positions are different quantities; leave-one-out is the same question for
every architecture. Vanilla masks one token at a time and needs a pass for each; two-stream models need one pass.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from data.batch import Batch
from model import MaskedLM

WINDOWS_PER_BATCH = 16


@dataclass(frozen=True)
class LeaveOneOutScore:
    """nll: mean, nats a token; standard_error: of that mean; accuracy: share of places whose top token is right;
    bits_per_character: of the held-out text at this rate; passes: forward passes a sentence took; tokens: scored."""

    nll: float
    standard_error: float
    bits_per_character: float
    accuracy: float
    passes: int
    tokens: int


@dataclass(frozen=True)
class Yardstick:
    """Held-out windows and the sampled places that every model is scored on.

    tokens (W, N) int64, documents (W, N) int32 or None, places (W, P) int64; characters_per_token of the held-out text.
    """

    tokens: Tensor
    documents: Tensor | None
    places: Tensor
    characters_per_token: float

    @classmethod
    def sample(
        cls, batch: Batch, special_ids: tuple[int, ...], places: int, seed: int, characters_per_token: float
    ) -> "Yardstick":
        """`places` ordinary tokens from each window of `batch`, without replacement, a pure function of the seed.

        Raises ValueError if a window has fewer ordinary tokens than that.
        """
        ordinary = ~torch.isin(batch.tokens, torch.tensor(special_ids))
        fewest = int(ordinary.sum(1).min())
        if fewest < places:
            raise ValueError(
                f"A held-out window of {batch.tokens.shape[1]} tokens has only {fewest} ordinary ones and {places} "
                "places are to be scored in each; score fewer places or use longer windows."
            )
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(batch.tokens.shape, generator=generator).masked_fill(~ordinary, -1.0)
        chosen = noise.topk(places, dim=1).indices.sort(dim=1).values
        return cls(batch.tokens, batch.documents, chosen, characters_per_token)

    def first(self, windows: int) -> "Yardstick":
        documents = None if self.documents is None else self.documents[:windows]
        return Yardstick(self.tokens[:windows], documents, self.places[:windows], self.characters_per_token)

    @torch.no_grad()
    def measure(self, model: MaskedLM) -> LeaveOneOutScore:
        """Score a model in eval mode (training mode is restored). The caller sets precision by autocast."""
        device = next(model.parameters()).device
        training = model.training
        model.eval()
        nll, right, passes = [], 0, 1
        for start in range(0, len(self.tokens), WINDOWS_PER_BATCH):
            rows = slice(start, start + WINDOWS_PER_BATCH)
            documents = None if self.documents is None else self.documents[rows]
            if documents is not None and bool((documents == documents[:, :1]).all()) and bool((documents >= 0).all()):
                documents = None  # whole rows: no mask needed
            batch = Batch(self.tokens[rows], documents).to(device)
            places = self.places[rows].to(device)
            scored = model.leave_one_out(batch, places)
            nll.append(scored.nll.flatten().double().cpu())
            right += int((scored.top[..., 0] == batch.tokens.gather(1, places)).sum())
            passes = scored.passes
        model.train(training)
        every = torch.cat(nll)
        mean = float(every.mean())
        # A sampled place stands for a token; a vanilla pass per place is what a whole sentence of N would take N of.
        return LeaveOneOutScore(
            nll=mean,
            standard_error=float(every.std() / math.sqrt(len(every))),
            bits_per_character=mean / math.log(2) / self.characters_per_token,
            accuracy=right / len(every),
            passes=1 if passes == 1 else self.tokens.shape[1],
            tokens=len(every),
        )
