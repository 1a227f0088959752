"""The yardstick's second measure: whole words, hidden with all of their tokens, in bits a character.

Two ways to ask for a word of several tokens, in one pass each with two-stream models:

    together  each of its tokens is predicted while all of them are hidden, as a masked model trains; their sum
    chain     each is predicted from what stands outside of the word and from the word's tokens before it: the probability of the
              word, by the chain rule

Divided by the characters of the word both compare tokenizers too.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.statistics import clustered_mean
from data.tokenizer import Tokenizer
from data.words import word_bounds, word_starts
from model import MaskedLM
from model.batch import Batch
from training.leave_one_out import Clusters, chunks, device_of, evaluating, rows_of
from training.sampling import HeldOut

FEWEST_WORDS = 0.1  # share of tokens that begin a word, below which the text is taken to be written without spaces


@dataclass(frozen=True)
class WholeWordScore:
    """bits_per_character of words hidden together, and its standard error, clustered by document (None for a single one); chain:
    the same by the chain rule; accuracy: the share of words of which every token was the most probable one, all hidden together;
    words: scored; characters: of these; clusters, chain_clusters: sums of bits over counts of characters."""

    bits_per_character: float
    standard_error: float | None
    chain: float
    chain_standard_error: float | None
    accuracy: float
    words: int
    characters: int
    clusters: Clusters
    chain_clusters: Clusters

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "WholeWordScore":
        """From what `dataclasses.asdict` gives, and perhaps more."""
        own = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        return cls(**own | {name: Clusters(**own[name]) for name in ("clusters", "chain_clusters")})


@dataclass(frozen=True)
class WholeWords:
    """The words that every model is scored on.

    tokens (W, N) int64, documents (W, N) int32 or None. Of each of the K words, in the order of rows: row, first, last (K,)
    int64, its characters (K,) and the held-out document it is from (K,).
    """

    tokens: Tensor
    documents: Tensor | None
    row: np.ndarray
    first: np.ndarray
    last: np.ndarray
    characters: np.ndarray
    origin: np.ndarray

    @classmethod
    def sample(cls, held_out: HeldOut, tokenizer: Tokenizer, words: int, seed: int) -> "WholeWords | None":
        """At most `words` words, drawn from all that stand whole in the windows, each equally likely; a function of the seed.

        Of words found in a text without spaces only those of letters and digits: its punctuation stands by itself. None where
        words stand between spaces and the text has too few, as Chinese.
        """
        batch = held_out.batch
        tokens, length = batch.tokens.numpy(), batch.tokens.shape[1]
        documents = None if batch.documents is None else batch.documents.numpy()
        found = held_out.begins is not None
        begins = tokenizer.starts_word[tokens] if held_out.begins is None else held_out.begins
        if begins.mean() < FEWEST_WORDS:
            return None
        starts = word_starts(tokens, begins, tokenizer.special_ids, documents)
        first, last = word_bounds(starts)
        whole = (first == np.arange(length)) & (first > 0) & (last < length - 1)
        row, begin = (whole & ~np.isin(tokens, tokenizer.special_ids)).nonzero()
        if not len(row):
            return None
        order = np.random.default_rng(seed).permutation(len(row))
        texts: dict[int, str] = {}
        for number in order.tolist():
            if len(texts) == words:
                break
            r, a = row[number], begin[number]
            text = tokenizer.text_of(tokens[r, a : last[r, a] + 1].tolist())
            if not found or any(map(str.isalnum, text)):
                texts[number] = text
        if not texts:
            return None
        chosen = np.sort(np.array(list(texts)))
        row, begin = row[chosen], begin[chosen]
        end = last[row, begin]
        characters = np.array([len(texts[number]) for number in chosen.tolist()])
        return cls(batch.tokens, batch.documents, row, begin, end, characters, held_out.document[row, begin])

    @torch.no_grad()
    def measure(self, model: MaskedLM) -> WholeWordScore:
        """Score a model in eval mode (its mode is restored)."""
        together, chain = np.zeros(len(self.row)), np.zeros(len(self.row))
        right = np.ones(len(self.row), bool)
        with evaluating(model):
            for rows in chunks(len(self.tokens)):
                mine = ((self.row >= rows.start) & (self.row < rows.stop)).nonzero()[0]
                if not len(mine):
                    continue
                batch = rows_of(self.tokens, self.documents, rows)
                own, position = self._positions(mine, later_alone=False)
                nll, top = self._score(model, batch, rows, own, position, together=True)
                np.add.at(together, own, nll)
                np.logical_and.at(right, own, top)
                np.add.at(chain, own[position == self.first[own]], nll[position == self.first[own]])
                own, position = self._positions(mine, later_alone=True)
                if len(own):  # a word's first token sees the same either way
                    np.add.at(chain, own, self._score(model, batch, rows, own, position, together=False)[0])
        clusters, chain_clusters = (self._clusters(x / math.log(2)) for x in (together, chain))
        (bits, error), (chain_bits, chain_error) = (
            clustered_mean(c.sums, c.counts) for c in (clusters, chain_clusters)
        )
        return WholeWordScore(
            bits_per_character=bits,
            standard_error=error,
            chain=chain_bits,
            chain_standard_error=chain_error,
            accuracy=float(right.mean()),
            words=len(self.row),
            characters=int(self.characters.sum()),
            clusters=clusters,
            chain_clusters=chain_clusters,
        )

    def _positions(self, words: np.ndarray, later_alone: bool) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of these words, or all but the first of each: the word of each, and its position in the window."""
        begin = self.first[words] + later_alone
        count = self.last[words] + 1 - begin
        own = words.repeat(count)
        step = np.arange(len(own)) - (count.cumsum() - count).repeat(count)
        return own, begin.repeat(count) + step

    def _score(
        self, model: MaskedLM, batch: Batch, rows: slice, own: np.ndarray, position: np.ndarray, together: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """NLL in nats of each token, and whether it was the most probable one. `own` and `position` are in the order of
        rows."""
        row = self.row[own] - rows.start
        every = np.broadcast_to(np.arange(batch.tokens.shape[1]), batch.tokens.shape)
        begins, ends = every.copy(), every.copy()
        ends[row, position] = self.last[own]
        if together:
            begins[row, position] = self.first[own]
        first, last = torch.from_numpy(begins), torch.from_numpy(ends)
        if model.architecture.passes_each:  # a row for each token: nothing is computed for rows that have fewer
            documents = None if batch.documents is None else batch.documents[row]
            batch, first, last, row = Batch(batch.tokens[row], documents), first[row], last[row], np.arange(len(row))
        batch = batch.hiding(first, last)
        count = np.bincount(row, minlength=len(batch.tokens))
        slot = np.arange(len(row)) - (count.cumsum() - count)[row]
        positions = np.zeros((len(batch.tokens), count.max()), np.int64)
        positions[row, slot] = position
        device = device_of(model)
        scored = model.leave_one_out(batch.to(device), torch.from_numpy(positions).to(device))
        nll, top = scored.nll.double().cpu().numpy()[row, slot], scored.top[..., 0].cpu().numpy()[row, slot]
        return nll, top == batch.tokens.numpy()[row, position]

    def _clusters(self, bits: np.ndarray) -> Clusters:
        return Clusters.of(bits, self.origin, self.characters)
