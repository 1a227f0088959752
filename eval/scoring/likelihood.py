"""The pseudo-log-likelihood of sentences, in windows where they are long: `score(model, tokenizer, sentences)`.

See eval/score.py.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.tokenizer import Tokenizer
from data.words import word_bounds
from model import MaskedLM
from model.architectures.base import tokens_of_a_pass
from model.batch import Batch, padded

Variant = Literal["original", "within_word_l2r", "whole_word"]


UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # scripts without spaces between words: kana, Chinese characters


@dataclass(frozen=True)
class Score:
    """tokens: the pieces; log_probs: of each, nats; total: their sum; passes: forward passes that took."""

    tokens: list[str]
    log_probs: list[float]
    total: float
    passes: int


@torch.no_grad()
def score(
    model: MaskedLM,
    tokenizer: Tokenizer,
    sentences: Sequence[str],
    variant: Variant = "original",
    tokens: int | None = None,
) -> list[Score]:
    """One Score for each sentence, in order. Puts the model in eval mode; precision is the caller's, by autocast.

    Raises ValueError for a variant that hides whole words if a text has no spaces between words.
    """
    if variant != "original":
        for number, text in enumerate(sentences, start=1):
            if found := re.search(f"[{UNSPACED}]{{4,}}", text):
                raise ValueError(
                    f"text {number} is written without spaces ({found[0][:8]!r}), so {variant} finds no words to hide; score it "
                    "with --variant original."
                )
    model.eval()
    tokens = tokens or tokens_of_a_pass(next(model.parameters()).device)
    ids = [list(found) for found in tokenizer.encode_batch(list(sentences))]
    starts = tokenizer.starts_of(list(sentences)) if variant != "original" else []
    windows = [(i, w) for i, found in enumerate(ids) for w in windows_of(len(found), model.config.max_length - 2)]
    log_probs = [[0.0] * len(found) for found in ids]
    passes = [0] * len(ids)
    for group in by_length(windows, tokens):
        bos, eos = tokenizer.bos_id, tokenizer.eos_id
        batch = padded([[bos, *ids[i][w.start : w.stop], eos] for i, w in group], tokenizer.pad_id)
        if variant != "original":
            first, last = word_bounds(_word_starts([starts[i][w.start : w.stop] for i, w in group], batch))
            if variant == "within_word_l2r":
                first = np.tile(np.arange(first.shape[1]), (len(first), 1))  # itself, and what comes after it
            batch = batch.hiding(torch.from_numpy(first), torch.from_numpy(last))
        likely, count = _log_probs(model, batch)
        for (i, w), row in zip(group, likely.tolist()):
            # Positions of the window that are nearer to its middle than to that of any other.
            log_probs[i][w.first : w.last] = row[w.first - w.start : w.last - w.start]
            passes[i] += 1 if count == 1 else w.stop - w.start
    pieces = [tokenizer.pieces(found) for found in ids]
    return [Score(p, each, sum(each), n) for p, each, n in zip(pieces, log_probs, passes)]


@dataclass(frozen=True)
class Window:
    """Tokens start..stop-1 of a text are read, and first..last-1 of them scored."""

    start: int
    stop: int
    first: int
    last: int


def windows_of(length: int, longest: int) -> list[Window]:
    """One for a text that fits; else windows of `longest` that overlap by half, and each token once among the scored."""
    if length <= longest:
        return [Window(0, length, 0, length)] if length else []
    step = longest // 2
    starts = [*range(0, length - longest, step), length - longest]
    middles = [(a + b + longest) // 2 for a, b in itertools.pairwise(starts)]  # between two windows' middles
    edges = [0, *middles, length]
    return [Window(s, s + longest, a, b) for s, a, b in zip(starts, edges, edges[1:])]


def by_length(windows: list[tuple[int, Window]], tokens: int) -> Iterator[list[tuple[int, Window]]]:
    """Batches of windows of similar length, of at most so many `tokens` with their padding."""
    windows = sorted(windows, key=lambda entry: entry[1].stop - entry[1].start)
    group: list[tuple[int, Window]] = []
    for entry in windows:
        length = entry[1].stop - entry[1].start + 2
        if group and (len(group) + 1) * length > tokens:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _word_starts(rows: Sequence[np.ndarray], batch: Batch) -> np.ndarray:
    """(B, N) bool: where words start, BOS, EOS and each position of padding being words of their own."""
    found = np.ones(tuple(batch.tokens.shape), bool)
    for row, starts in zip(found, rows):
        row[1 : 1 + len(starts)] = starts
        row[1] = True
    return found


def _log_probs(model: MaskedLM, batch: Batch) -> tuple[Tensor, int]:
    """(B, N - 2) float32, without BOS and EOS of the longest rows, and the passes that one of its sentences took."""
    rows, length = batch.tokens.shape
    device = next(model.parameters()).device
    positions = torch.arange(1, length - 1, device=device).expand(rows, -1)
    scored = model.leave_one_out(batch.to(device), positions, k=0)
    return -scored.nll.float().cpu(), scored.passes
