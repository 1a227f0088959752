"""The yardstick: how well a model predicts a held-out token from all other tokens of its window.

MLM loss at 15%, at 40% and the loss over all positions are different quantities; leave-one-out is the same question for
every architecture. Vanilla masks one token at a time and needs a pass for each; two-stream models need one pass.

Leave-one-out of tokens does not compare tokenizers: a token whose neighbours are pieces of the same word is easy, and the
easier the finer the pieces. `whole_words.py` asks for whole words, and is reported beside it, always.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from data.statistics import clustered_mean
from data.words import word_bounds, word_starts
from model import MaskedLM
from model.batch import Batch
from training.sampling import HeldOut

WINDOWS_PER_BATCH = 16
KINDS = ("one-piece word", "first piece", "later piece", "copied", "not copied")
"""Of scored tokens: by their position in their word, and by whether their two neighbours stand around another position of the
window too, from where a model could copy what stands between them."""


@dataclass(frozen=True)
class Clusters:
    """Sums over the scored positions of each document; neighbours in a document are not independent."""

    documents: list[int]
    counts: list[int]
    sums: list[float]

    @classmethod
    def of(cls, values: np.ndarray, documents: np.ndarray, counts: np.ndarray | None = None) -> "Clusters":
        """counts: what each value counts for, as the characters of a word; by default 1."""
        names, index = np.unique(documents, return_inverse=True)
        sums = np.bincount(index, values, len(names))
        counts = np.bincount(index, counts, len(names)).astype(int)
        return cls(names.tolist(), counts.tolist(), sums.tolist())


@dataclass(frozen=True)
class LeaveOneOutScore:
    """nll: mean, nats a token; standard_error: of that mean, clustered by document; accuracy: share of positions whose top
    token is right; passes: forward passes a sentence took; tokens: scored; clusters: what the errors are made from; kinds: for
    each of KINDS that was told apart, how many tokens it has and the sum of their NLL."""

    nll: float
    standard_error: float | None
    accuracy: float
    passes: int
    tokens: int
    clusters: Clusters
    kinds: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class Yardstick:
    """Held-out windows and the sampled positions that every model is scored on.

    tokens (W, N) int64, documents (W, N) int32 or None, positions (W, P) int64, origin (W, N) the held-out document of each
    position, kinds: by name of KINDS, (W, P) bool.
    """

    tokens: Tensor
    documents: Tensor | None
    positions: Tensor
    origin: np.ndarray
    kinds: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def sample(
        cls,
        held_out: HeldOut,
        special_ids: tuple[int, ...],
        positions: int,
        seed: int,
        starts_word: np.ndarray | None = None,
    ) -> "Yardstick":
        """At most `positions` ordinary tokens from each window, without replacement, a pure function of the seed.

        As many from each: the fewest that any window has. starts_word, of the tokenizer: with it tokens are told apart by kind.
        Raises ValueError if a window has no ordinary token.
        """
        batch = held_out.batch
        ordinary = ~torch.isin(batch.tokens, torch.tensor(special_ids))
        fewest = int(ordinary.sum(1).min())
        if fewest < 1:
            raise ValueError(
                f"A held-out window of {batch.tokens.shape[1]} tokens has no ordinary token, so nothing can be scored "
                "in it; use longer windows, or text with longer documents."
            )
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(batch.tokens.shape, generator=generator).masked_fill(~ordinary, -1.0)
        chosen = noise.topk(min(positions, fewest), dim=1).indices.sort(dim=1).values
        starts = (
            held_out.begins if starts_word is None or held_out.begins is not None else starts_word[batch.tokens.numpy()]
        )
        kinds = {} if starts is None else kinds_of(batch, chosen, starts, special_ids)
        return cls(batch.tokens, batch.documents, chosen, held_out.document, kinds)

    @property
    def scored(self) -> int:
        return self.positions.numel()

    def first(self, tokens: int) -> "Yardstick":
        """The first windows that together have this many positions."""
        windows = -(-tokens // self.positions.shape[1])
        documents = None if self.documents is None else self.documents[:windows]
        return replace(
            self,
            tokens=self.tokens[:windows],
            documents=documents,
            positions=self.positions[:windows],
            origin=self.origin[:windows],
            kinds={name: found[:windows] for name, found in self.kinds.items()},
        )

    @torch.no_grad()
    def measure(self, model: MaskedLM) -> LeaveOneOutScore:
        """Score a model in eval mode (training mode is restored). The caller sets precision by autocast."""
        nll, right, passes = [], 0, 1
        with evaluating(model):
            for rows in self._chunks():
                batch, positions = self._batch(rows, model), self.positions[rows].to(device_of(model))
                scored = model.leave_one_out(batch, positions)
                nll.append(scored.nll.flatten().double().cpu())
                right += int((scored.top[..., 0] == batch.tokens.gather(1, positions)).sum())
                passes = scored.passes
        every = torch.cat(nll).numpy()
        clusters = Clusters.of(every, np.take_along_axis(self.origin, self.positions.numpy(), 1).flatten())
        mean, error = clustered_mean(clusters.sums, clusters.counts)
        # Only a sample of the positions is scored. A masked model would need N passes for all N tokens, and that is reported.
        return LeaveOneOutScore(
            nll=mean,
            standard_error=error,
            accuracy=right / len(every),
            passes=1 if passes == 1 else self.tokens.shape[1],
            tokens=len(every),
            clusters=clusters,
            kinds={
                name: (int(own.sum()), float(every[own.flatten().numpy()].sum())) for name, own in self.kinds.items()
            },
        )

    def _chunks(self) -> list[slice]:
        return chunks(len(self.tokens))

    def _batch(self, rows: slice, model: MaskedLM) -> Batch:
        return rows_of(self.tokens, self.documents, rows).to(device_of(model))


def chunks(windows: int) -> list[slice]:
    """Of the windows that are scored together."""
    starts = range(0, windows, WINDOWS_PER_BATCH)
    return [slice(start, min(start + WINDOWS_PER_BATCH, windows)) for start in starts]


def rows_of(tokens: Tensor, documents: Tensor | None, rows: slice) -> Batch:
    """Some windows as a batch, without documents where each is a whole one: kernels then need no mask."""
    documents = None if documents is None else documents[rows]
    if documents is not None and bool((documents == documents[:, :1]).all()) and bool((documents >= 0).all()):
        documents = None
    return Batch(tokens[rows], documents)


def kinds_of(batch: Batch, positions: Tensor, begins: np.ndarray, special_ids: tuple[int, ...]) -> dict[str, Tensor]:
    """For each of KINDS, which of the positions (W, P) are of this kind. begins: (W, N) bool, which tokens begin a word."""
    tokens = batch.tokens.numpy()
    documents = None if batch.documents is None else batch.documents.numpy()
    starts = word_starts(tokens, begins, special_ids, documents)
    first, last = word_bounds(starts)
    position = np.arange(tokens.shape[1])
    pair = np.full(tokens.shape, -1, np.int64)  # the two neighbours as one number
    pair[:, 1:-1] = tokens[:, :-2] * (int(tokens.max()) + 1) + tokens[:, 2:]
    copied = np.array([np.isin(row, doubles(row)) for row in pair]) & (pair >= 0)
    found = (first == last, (first == position) & (last > first), first < position, copied, ~copied)
    return {name: torch.from_numpy(own).gather(1, positions) for name, own in zip(KINDS, found)}


def doubles(row: np.ndarray) -> np.ndarray:
    """What stands more than once in a row."""
    values, count = np.unique(row, return_counts=True)
    return values[count > 1]


def device_of(model: MaskedLM) -> torch.device:
    return next(model.parameters()).device


class evaluating:
    """Eval mode inside, the mode before afterwards."""

    def __init__(self, model: MaskedLM) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)
