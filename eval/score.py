"""Pseudo-log-likelihood of sentences: `python -m eval.score --checkpoint FOLDER --input FILE` (make score).

log p(x_i | everything else) of each token, and their sum, in nats (Salazar et al. 2020, arXiv 1910.14659). A two-stream model
needs one pass for a sentence, vanilla one for each of its tokens. Variants (Kauf and Ivanova 2023, arXiv 2305.10588):

    original          a token is predicted from all others
    within_word_l2r   not from the later tokens of its own word either: a long word's pieces no longer give each other away
    whole_word        from no token of its own word

All in the same passes: only what a place may see changes. A text is one BOS ... EOS, of which the tokens between are scored.
A text longer than the model reads is scored in windows that overlap by half, each token in the window in whose middle it
stands. Lines come out in their order, empty ones too.
"""

import itertools
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor
from tqdm import tqdm

from data.batch import Batch
from data.batches import padded
from data.files import to_json, user_path
from data.options import check_types
from data.text import CONVERT, decoded
from data.tokenizer import Tokenizer
from data.words import word_bounds
from eval.command import command, open_checkpoint
from model import MaskedLM
from model.architectures.base import tokens_of_a_pass

Variant = Literal["original", "within_word_l2r", "whole_word"]

UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # scripts without spaces between words: kana, Chinese characters
LINES = 2048  # read and put in order of length at a time


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

    Raises ValueError for a variant that hides whole words, and a text that is written without spaces between them.
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
                first = np.tile(np.arange(first.shape[1]), (len(first), 1))  # the place itself and what comes after it
            batch = batch.hiding(torch.from_numpy(first), torch.from_numpy(last))
        found, count = _log_probs(model, batch)
        for (i, w), row in zip(group, found.tolist()):
            # Places of the window that are nearer to its middle than to that of any other.
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
    """(B, N) bool: where words start, BOS, EOS and each place of padding being words of their own."""
    found = np.ones(tuple(batch.tokens.shape), bool)
    for row, starts in zip(found, rows):
        row[1 : 1 + len(starts)] = starts
        row[1] = True
    return found


def _log_probs(model: MaskedLM, batch: Batch) -> tuple[Tensor, int]:
    """(B, N - 2) float32, without BOS and EOS of the longest rows, and the passes that one of its sentences took."""
    rows, length = batch.tokens.shape
    device = next(model.parameters()).device
    places = torch.arange(1, length - 1, device=device).expand(rows, -1)
    scored = model.leave_one_out(batch.to(device), places, k=0)
    return -scored.nll.float().cpu(), scored.passes


@dataclass(frozen=True)
class ScoreConfig:
    """Pseudo-log-likelihood of each line."""

    checkpoint: Path
    """A folder of checkpoints that pretrain.py wrote."""
    input: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "-"
    """A text file with a sentence on each line; - reads standard input."""
    output: str = "-"
    """Where the JSON lines go; - is standard output."""
    variant: Variant = "original"
    """What a token is predicted from; see above."""
    per_token: bool = False
    """Tokens and their log-probabilities too, not only the totals."""

    def __post_init__(self) -> None:
        check_types(self)


def chunks(lines: Iterable[bytes], name: str, size: int = LINES) -> Iterator[list[str]]:
    """Raises ValueError that names the line for what is no text."""
    group: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            text = decoded(line, name) if number == 1 else line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 ({error.reason}); {CONVERT}.") from None
        group.append(text.removesuffix("\n").removesuffix("\r"))
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def run(config: ScoreConfig, console: Console) -> None:
    """Memory holds LINES lines, however long the input."""
    given, asked = user_path(config.input), user_path(config.output)
    if config.input != "-" and not given.is_file():
        raise FileNotFoundError(
            f"There is no file {config.input}; give a text file with a sentence on each line, or -."
        )
    model, tokenizer = open_checkpoint(config.checkpoint)
    partial = asked.with_name(f"{asked.name}.partial")  # renamed when whole
    source = nullcontext(sys.stdin.buffer) if config.input == "-" else open(given, "rb")  # noqa: SIM115
    target = nullcontext(sys.stdout) if config.output == "-" else open(partial, "w", encoding="utf-8")  # noqa: SIM115
    name, index = "standard input" if config.input == "-" else config.input, 0
    with source as read, target as written, tqdm(unit="sentences", disable=None, file=sys.stderr) as bar:
        for group in chunks(read, name):
            for found in score(model, tokenizer, group, config.variant):
                record = {"index": index, "total": found.total, "tokens": len(found.tokens), "passes": found.passes}
                if config.per_token:
                    record |= {"pieces": found.tokens, "log_probs": found.log_probs}
                if not math.isfinite(found.total):
                    raise ValueError(
                        f"{name}, line {index + 1}: its likelihood is no number; the checkpoint has diverged."
                    )
                written.write(to_json(record) + "\n")
                index += 1
            bar.update(len(group))
    if config.output != "-":
        partial.replace(asked)


def main() -> int:
    return command(ScoreConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
