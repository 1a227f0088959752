"""Classification as a cloze: a pattern asks, and the words that stand for the labels are what may fill its slot.

(PET: Schick and Schütze 2021, arXiv 2001.07676.) A label's score is the mean log-probability of its word's tokens, each
predicted from all but the slot. Words of k tokens are read from a slot of k positions, so that labels need not be single tokens.
An all-position model reads the slot like any other position, in one pass; it does not know that it is asked.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.tokenizer import Tokenizer
from model import MaskedLM
from model.batch import padded
from training.machine import precision

SLOT = "{slot}"


@dataclass(frozen=True)
class Question:
    """One row of a task: its fields, the words of its labels, and the number of the right one (None: not told)."""

    fields: dict[str, str]
    words: tuple[str, ...]
    label: int | None


@dataclass(frozen=True)
class Cloze:
    """Ids before the slot and after it, the words' ids by label, and the label."""

    before: list[int]
    after: list[int]
    words: tuple[tuple[int, ...], ...]
    label: int | None


def fill(question: Question, pattern: str, tokenizer: Tokenizer, longest: int) -> Cloze:
    """pattern: text with {field}s and one {slot}. Too long, the longest field loses its last tokens.

    A space before the slot belongs to the word. Raises ValueError for a pattern without a slot, or an unknown field.
    """
    pieces = [piece for piece in re.split(r"(\{\w+\})", pattern) if piece]
    if pieces.count(SLOT) != 1:
        raise ValueError(f"The pattern {pattern!r} has {pieces.count(SLOT)} slots; expected one {SLOT}.")
    at = pieces.index(SLOT)
    spaced = at == 0 or pieces[at - 1].endswith(" ")
    if at and spaced:
        pieces[at - 1] = pieces[at - 1].removesuffix(" ")
    encode = tokenizer.encode if not at else tokenizer.encode_after_space if spaced else tokenizer.encode_inside
    words = tuple(tuple(encode(word)) for word in question.words)
    if empty := [word for word, ids in zip(question.words, words) if not ids]:
        raise ValueError(f"The word {empty[0]!r} of a label has no tokens.")
    parts: list[list[int]] = []
    for i, piece in enumerate(pieces):
        text = piece
        if piece.startswith("{") and piece != SLOT:
            if piece[1:-1] not in question.fields:
                raise ValueError(f"The pattern {pattern!r} asks for {piece}; there are {', '.join(question.fields)}.")
            text = question.fields[piece[1:-1]]
        if piece == SLOT:
            parts.append([])
        elif i == 0:
            parts.append(tokenizer.encode(text))
        else:  # one leading space is what `encode` puts there anyway
            parts.append(
                tokenizer.encode_after_space(text[1:]) if text.startswith(" ") else tokenizer.encode_inside(text)
            )
    fields = [part for piece, part in zip(pieces, parts) if piece.startswith("{") and piece != SLOT]
    excess = sum(map(len, parts)) + max(map(len, words)) + 2 - longest
    if excess > sum(map(len, fields)):
        raise ValueError(
            f"The pattern {pattern!r} alone is longer than the {longest} tokens that the model reads; use a model with a larger "
            "max_length."
        )
    for _ in range(max(0, excess)):
        max(fields, key=len).pop()
    before = [tokenizer.bos_id, *(token for part in parts[:at] for token in part)]
    after = [*(token for part in parts[at:] for token in part), tokenizer.eos_id]
    return Cloze(before, after, words, question.label)


def label_scores(model: MaskedLM, tokenizer: Tokenizer, clozes: Sequence[Cloze]) -> Tensor:
    """(clozes, most labels) float32, nats; -inf where a cloze has fewer labels. Carries gradients."""
    device = next(model.parameters()).device
    scores = torch.full((len(clozes), max(len(c.words) for c in clozes)), float("-inf"), device=device)
    for k in sorted({len(word) for cloze in clozes for word in cloze.words}):
        asked = [i for i, cloze in enumerate(clozes) if any(len(word) == k for word in cloze.words)]
        batch = padded(
            [[*clozes[i].before, *[tokenizer.mask_id] * k, *clozes[i].after] for i in asked], tokenizer.pad_id
        )
        batch = batch.to(device)
        first = torch.tensor([len(clozes[i].before) for i in asked], device=device)
        positions = first[:, None] + torch.arange(k, device=device)  # (asked, k)
        if k > 1:
            every = torch.arange(batch.tokens.shape[1])
            start = torch.tensor([len(clozes[i].before) for i in asked])[:, None]
            slot = (every >= start) & (every < start + k)
            batch = batch.hiding(torch.where(slot, start, every), torch.where(slot, start + k - 1, every))
        states, _ = model.architecture.leave_one_out(batch, positions)  # (asked, k, D)
        log_p = model.head.logits(states).float().log_softmax(-1)  # (asked, k, V)
        entries = [
            (a, i, j, word) for a, i in enumerate(asked) for j, word in enumerate(clozes[i].words) if len(word) == k
        ]
        row, cloze, label = (torch.tensor([entry[n] for entry in entries], device=device) for n in range(3))
        ids = torch.tensor([entry[3] for entry in entries], device=device)  # (entries, k)
        found = log_p[row].gather(2, ids[..., None])[..., 0].mean(1)
        scores = scores.index_put((cloze, label), found)
    return scores


@torch.no_grad()
def all_scores(
    model: MaskedLM, tokenizer: Tokenizer, clozes: Sequence[Cloze], autocast: torch.dtype | None = None
) -> Tensor:
    """(clozes, labels) float32 on the CPU, in batches of similar length. Puts the model in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(clozes)), key=lambda i: len(clozes[i].before) + len(clozes[i].after))
    found = torch.full((len(clozes), max(len(c.words) for c in clozes)), float("-inf"))
    for start in range(0, len(order), 64):
        numbers = order[start : start + 64]
        with precision(device, autocast):
            scores = label_scores(model, tokenizer, [clozes[i] for i in numbers]).float().cpu()
        if scores.isnan().any():
            raise ValueError("a label's likelihood is not a number: the model has diverged.")
        found[numbers, : scores.shape[1]] = scores
    return found
