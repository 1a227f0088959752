"""The yardstick: how well a model predicts a held-out token from all other tokens of its window.

MLM loss at 15%, at 40% and the loss over all positions are different quantities; leave-one-out is the same question for
every architecture. Vanilla masks one token at a time and needs a pass for each; two-stream models need one pass.

Leave-one-out of tokens does not compare tokenizers: a token whose neighbours are pieces of the same word is easy, and the
easier the finer the pieces. Whole-word leave-one-out does: the places of a word are hidden together, and what the word
costs is divided by its characters.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.batch import Batch
from data.batches import HeldOut
from data.tokenizer import Tokenizer
from model import MaskedLM
from report.statistics import clustered_mean

WINDOWS_PER_BATCH = 16
FEWEST_WORDS = 0.1  # share of tokens that begin a word, below which the text is taken to be written without spaces


@dataclass(frozen=True)
class Clusters:
    """Sums over the scored places of each document; neighbours in a document are no independent witnesses."""

    documents: list[int]
    counts: list[int]
    sums: list[float]

    @classmethod
    def of(cls, values: np.ndarray, documents: np.ndarray) -> "Clusters":
        names, index = np.unique(documents, return_inverse=True)
        sums = np.bincount(index, values, len(names))
        return cls(names.tolist(), np.bincount(index, minlength=len(names)).tolist(), sums.tolist())


@dataclass(frozen=True)
class LeaveOneOutScore:
    """nll: mean, nats a token; standard_error: of that mean, clustered by document; accuracy: share of places whose top
    token is right; passes: forward passes a sentence took; tokens: scored; clusters: what the errors are made from."""

    nll: float
    standard_error: float | None
    accuracy: float
    passes: int
    tokens: int
    clusters: Clusters


@dataclass(frozen=True)
class WholeWordScore:
    """bits_per_character of words hidden whole, nats_per_word, and how many words were scored."""

    bits_per_character: float
    nats_per_word: float
    words: int


@dataclass(frozen=True)
class Yardstick:
    """Held-out windows and the sampled places that every model is scored on.

    tokens (W, N) int64, documents (W, N) int32 or None, places (W, P) int64, origin (W, N) the held-out document of each
    place.
    """

    tokens: Tensor
    documents: Tensor | None
    places: Tensor
    origin: np.ndarray

    @classmethod
    def sample(cls, held_out: HeldOut, special_ids: tuple[int, ...], places: int, seed: int) -> "Yardstick":
        """At most `places` ordinary tokens from each window, without replacement, a pure function of the seed.

        As many from each: the fewest that any window has. Raises ValueError if a window has no ordinary token.
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
        chosen = noise.topk(min(places, fewest), dim=1).indices.sort(dim=1).values
        return cls(batch.tokens, batch.documents, chosen, held_out.document)

    @property
    def scored(self) -> int:
        return self.places.numel()

    def first(self, tokens: int) -> "Yardstick":
        """As many of the first windows as hold this many places."""
        windows = -(-tokens // self.places.shape[1])
        documents = None if self.documents is None else self.documents[:windows]
        return replace(
            self,
            tokens=self.tokens[:windows],
            documents=documents,
            places=self.places[:windows],
            origin=self.origin[:windows],
        )

    @torch.no_grad()
    def measure(self, model: MaskedLM) -> LeaveOneOutScore:
        """Score a model in eval mode (training mode is restored). The caller sets precision by autocast."""
        nll, right, passes = [], 0, 1
        with _evaluating(model):
            for rows in self._chunks():
                batch, places = self._batch(rows, model), self.places[rows].to(_device(model))
                scored = model.leave_one_out(batch, places)
                nll.append(scored.nll.flatten().double().cpu())
                right += int((scored.top[..., 0] == batch.tokens.gather(1, places)).sum())
                passes = scored.passes
        every = torch.cat(nll).numpy()
        clusters = Clusters.of(every, np.take_along_axis(self.origin, self.places.numpy(), 1).flatten())
        mean, error = clustered_mean(clusters.sums, clusters.counts)
        # A sampled place stands for a token; a vanilla pass per place is what a whole sentence of N would take N of.
        return LeaveOneOutScore(
            nll=mean,
            standard_error=error,
            accuracy=right / len(every),
            passes=1 if passes == 1 else self.tokens.shape[1],
            tokens=len(every),
            clusters=clusters,
        )

    @torch.no_grad()
    def measure_words(self, model: MaskedLM, tokenizer: Tokenizer, words: int) -> WholeWordScore | None:
        """About `words` words, the same number from each window, each with all of its places hidden together.

        None where the text has too few words between spaces, as Chinese, or the architecture cannot hide words.
        """
        number, begins = word_numbers(self.tokens, self.documents, tokenizer)
        if begins < FEWEST_WORDS:
            return None
        each = max(1, -(-words // len(self.tokens)))
        total, characters, count = 0.0, 0, 0
        with _evaluating(model):
            for rows in self._chunks():
                chosen = [_some_words(number[r], self.places[r], each) for r in range(rows.start, rows.stop)]
                width = max(1, max(map(len, chosen)))
                places = torch.tensor([c + c[:1] * (width - len(c)) if c else [0] * width for c in chosen])
                real = torch.tensor([[True] * len(c) + [False] * (width - len(c)) for c in chosen])
                batch = self._batch(rows, model)
                same_word = (number[rows, :, None] == number[rows, None, :]).to(_device(model))
                try:
                    scored = model.leave_one_out(batch, places.to(_device(model)), hidden=same_word)
                except ValueError:
                    return None
                total += float(scored.nll.double().cpu()[real].sum())
                for row, own in zip(range(rows.start, rows.stop), chosen):
                    characters += len(tokenizer.text_of(self.tokens[row, own].tolist()))
                    count += len({int(number[row, place]) for place in own})
            if not characters:
                return None
        return WholeWordScore(total / math.log(2) / characters, total / count, count)

    def _chunks(self) -> list[slice]:
        starts = range(0, len(self.tokens), WINDOWS_PER_BATCH)
        return [slice(start, min(start + WINDOWS_PER_BATCH, len(self.tokens))) for start in starts]

    def _batch(self, rows: slice, model: MaskedLM) -> Batch:
        documents = None if self.documents is None else self.documents[rows]
        if documents is not None and bool((documents == documents[:, :1]).all()) and bool((documents >= 0).all()):
            documents = None  # whole rows: no mask needed
        return Batch(self.tokens[rows], documents).to(_device(model))


def word_numbers(tokens: Tensor, documents: Tensor | None, tokenizer: Tokenizer) -> tuple[Tensor, float]:
    """(W, N) int64, the word of its row that each place belongs to, and the share of tokens that begin one.

    A word is what stands between spaces. Specials, and the first place of a document, begin words of their own.
    """
    starts = torch.from_numpy(tokenizer.starts_word)[tokens]
    share = float(starts.double().mean())
    special = torch.isin(tokens, torch.tensor(tokenizer.special_ids))
    starts = starts | special
    starts[:, 1:] |= special[:, :-1]
    if documents is not None:
        starts[:, 1:] |= documents[:, 1:] != documents[:, :-1]
    return starts.long().cumsum(1), share


def _some_words(number: Tensor, places: Tensor, count: int) -> list[int]:
    """All places of the first `count` words that hold one of `places`, in a row; words cut by the window are left out."""
    whole = [int(number[p]) for p in places.tolist() if number[p] not in (number[0], number[-1])]
    wanted = list(dict.fromkeys(whole))[:count]
    return [i for word in wanted for i in (number == word).nonzero()[:, 0].tolist()]


def _device(model: MaskedLM) -> torch.device:
    return next(model.parameters()).device


class _evaluating:
    """Eval mode inside, the mode before afterwards."""

    def __init__(self, model: MaskedLM) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)
