"""Examples as a model reads them: BOS a EOS, or BOS a EOS b EOS, in batches of similar length."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from data.tokenizer import Tokenizer
from eval.finetune.tasks import Example
from model.batch import Batch, padded


@dataclass(frozen=True)
class Row:
    """What is read for (a part of) one example.

    tokens:   one sequence of ids, or one for each choice.
    label:    a class, a score, the number of the right choice, or the first and last position of a span; None.
    cut:      tokens that did not fit.
    example:  the number of the example.
    offsets:  of a span's row: the position of the passage's first token, and what part of the passage each one stands for.
    """

    tokens: tuple[list[int], ...]
    label: Any
    cut: int = 0
    example: int = 0
    offsets: tuple[int, list[tuple[int, int]]] = field(default=(0, []))

    @property
    def length(self) -> int:
        return max(map(len, self.tokens))


def joined(parts: Sequence[Sequence[int]], vocabulary, longest: int) -> tuple[list[int], int]:
    """Too long, the longer text loses its last token until the row fits. Returns the ids and how many were lost."""
    rest = [list(part) for part in parts]
    excess = max(0, sum(map(len, rest)) + 1 + len(rest) - longest)
    for _ in range(excess):
        max(rest, key=len).pop()
    ids = [vocabulary.bos_id]
    for part in rest:
        ids += [*part, vocabulary.eos_id]
    return ids, excess


def alternatives(example: Example) -> list[tuple[str, ...]]:
    """The texts of each choice: it completes the second text. Of an example without choices, its texts."""
    if not example.choices:
        return [example.texts]
    passage, question = example.texts
    return [(passage, question + choice) for choice in example.choices]


def buckets(rows: Sequence[Row], size: int, shuffle: random.Random | None) -> Iterator[list[int]]:
    """Numbers of rows that make a batch: of similar length, each row once. In random order if `shuffle` is given."""
    order = list(range(len(rows)))
    if shuffle is not None:
        shuffle.shuffle(order)
    pool = 50 * size if shuffle is not None else len(order)  # sorted within pools: batches still differ by epoch
    batches = []
    for start in range(0, len(order), max(1, pool)):
        near = sorted(order[start : start + pool], key=lambda i: rows[i].length)
        batches += [near[i : i + size] for i in range(0, len(near), size)]
    if shuffle is not None:
        shuffle.shuffle(batches)
    yield from batches


@torch.no_grad()
def states_of(
    read: Callable[[Batch], Tensor], texts: Sequence[str], tokenizer: Tokenizer, longest: int, device: torch.device
) -> tuple[Tensor, int]:
    """The result of `read` for each text by itself, (texts, width) float32 on the CPU; and how many texts were cut."""
    parts = [joined([ids], tokenizer, longest) for ids in tokenizer.encode_batch(list(texts))]
    rows = [Row((ids,), None, lost) for ids, lost in parts]
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for numbers in buckets(rows, 128, None):
        batch = padded([rows[i].tokens[0] for i in numbers], tokenizer.pad_id).to(device)
        for i, state in zip(numbers, read(batch).float().cpu()):
            found[i] = state
    return torch.stack(found), sum(row.cut > 0 for row in rows)


def compared(a: Tensor, b: Tensor) -> Tensor:
    """(..., D), (..., D) -> (..., 4 D): both, their difference and their product (Reimers and Gurevych 2019)."""
    return torch.cat([a, b, (a - b).abs(), a * b], -1)
