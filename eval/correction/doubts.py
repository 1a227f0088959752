"""Tokens that the rest of a sentence does not expect, what should stand there, and how corrections are measured.

See eval/correct.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

import torch
from rapidfuzz import fuzz

from data.text import read_lines
from data.tokenizer import Tokenizer
from eval.scoring.likelihood import UNSPACED, by_length, windows_of
from model import MaskedLM
from model.architectures.base import tokens_of_a_pass
from model.batch import padded

MARGINS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0)


@dataclass(frozen=True)
class Doubt:
    """text[begin:end] is less likely than `alternatives`, best first, each with its log-probability; margin in nats."""

    begin: int
    end: int
    margin: float
    alternatives: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """What may stand for a token. similar: least likeness of spelling, 0 to 1; confusions: by character, if given."""

    similar: float = 0.0
    confusions: dict[str, str] | None = None

    def allow(self, old: str, new: str) -> bool:
        if old.strip() == new.strip() or not new.strip() or old[:1].isspace() != new[:1].isspace():
            return False
        if self.confusions is not None:
            return len(old) == len(new) and all(a == b or b in self.confusions.get(a, "") for a, b in zip(old, new))
        return self.similar == 0.0 or fuzz.ratio(old.strip(), new.strip()) >= 100 * self.similar


ANY = Limits()


@torch.no_grad()
def doubts(
    model: MaskedLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    limits: Limits = ANY,
    k: int = 8,
    least: float = MARGINS[0],
) -> list[list[Doubt]]:
    """For each text, where another token is likelier by at least `least` nats, in order. Puts the model in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    encoded = [tokenizer.encode_with_offsets(text) for text in texts]
    k = min(k if limits.confusions is None and not limits.similar else 8 * k, tokenizer.vocab_size)
    found: list[list[Doubt]] = [[] for _ in texts]
    windows = [(i, w) for i, tokens in enumerate(encoded) for w in windows_of(len(tokens), model.config.max_length - 2)]
    for group in by_length(windows, tokens_of_a_pass(device)):
        rows = [
            [tokenizer.bos_id, *(t for t, _, _ in encoded[i][w.start : w.stop]), tokenizer.eos_id] for i, w in group
        ]
        batch = padded(rows, tokenizer.pad_id).to(device)
        positions = torch.arange(batch.tokens.shape[1], device=device).expand(batch.tokens.shape)
        scored = model.leave_one_out(batch, positions, k)
        if not torch.isfinite(scored.nll[batch.documents >= 0] if batch.documents is not None else scored.nll).all():
            raise ValueError("a token's likelihood is not a number: the checkpoint has diverged.")
        nll, top, log_p = scored.nll.tolist(), scored.top.tolist(), scored.log_probabilities.tolist()
        for r, (i, w) in enumerate(group):
            for at in range(w.first, w.last):
                position = 1 + at - w.start
                _, begin, end = encoded[i][at]
                beside = [encoded[i][n][1:] for n in (at - 1, at + 1) if 0 <= n < len(encoded[i])]
                if log_p[r][position][0] + nll[r][position] < least or begin == end or (begin, end) in beside:
                    continue  # nothing to replace, or one of several bytes of a character, which the others give away
                old = texts[i][begin:end]
                likely = [
                    (tokenizer.text_of([token]), p)
                    for token, p in zip(top[r][position], log_p[r][position])
                    if token not in tokenizer.special_ids and p + nll[r][position] >= least
                ]
                # The first token of a text has a space in its piece and none in the text.
                likely = [
                    (new.removeprefix(" ") if begin == 0 and not old.startswith(" ") else new, p) for new, p in likely
                ]
                allowed = [(new, p) for new, p in likely if "\ufffd" not in new and limits.allow(old, new)]
                if allowed:
                    found[i].append(Doubt(begin, end, allowed[0][1] + nll[r][position], allowed))
    return found


def corrected(text: str, found: Sequence[Doubt], margin: float) -> str:
    """With the first alternative of every doubt whose margin is larger. Of two that touch, the larger alone: each was
    predicted from the other."""
    chosen: list[Doubt] = []
    for doubt in sorted((d for d in found if d.margin > margin), key=lambda d: -d.margin):
        if all(doubt.end < other.begin or other.end < doubt.begin for other in chosen):
            chosen.append(doubt)
    for doubt in sorted(chosen, key=lambda d: -d.begin):
        text = text[: doubt.begin] + doubt.alternatives[0][0] + text[doubt.end :]
    return text


def units(text: str) -> list[str]:
    """Characters of Chinese and Japanese one by one, what else stands between spaces whole."""
    return re.findall(rf"[{UNSPACED}]|[^\s{UNSPACED}]+", text)


def edits(before: str, after: str) -> set[tuple[int, int, str]]:
    """Stretches of `before` that differ, in words, or in characters of a script without spaces, with what stands there in
    `after`."""
    a, b = units(before), units(after)
    codes = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return {(i, j, " ".join(b[k:m])) for kind, i, j, k, m in codes if kind != "equal"}


def measured(wrong: Sequence[str], right: Sequence[str], proposed: Sequence[str]) -> dict[str, float]:
    """Precision, recall and F1 of detection and correction, x 100, where something is wrong; and how many right sentences
    were left alone, where some are right."""
    counts = dict.fromkeys(("gold", "made", "detection", "correction"), 0)
    untouched = [w == p for w, r, p in zip(wrong, right, proposed) if w == r]
    for w, r, p in zip(wrong, right, proposed):
        due, done = edits(w, r), edits(w, p)
        counts["gold"] += len(due)
        counts["made"] += len(done)
        counts["correction"] += len(due & done)
        counts["detection"] += len({e[:2] for e in due} & {e[:2] for e in done})
    found = {}
    if not counts["gold"]:  # nothing is wrong, so nothing can be found: no precision, no recall
        return {"right sentences left alone": 100 * sum(untouched) / len(untouched)} if untouched else {}
    for name in ("detection", "correction"):
        hit, made, gold = counts[name], counts["made"], counts["gold"]
        found[f"{name} precision"] = 100 * hit / made if made else 0.0
        found[f"{name} recall"] = 100 * hit / gold if gold else 0.0
        found[f"{name} F1"] = 200 * hit / (made + gold) if made + gold else 0.0
    if untouched:
        found["right sentences left alone"] = 100 * sum(untouched) / len(untouched)
    return found


def read_pairs(path: Path) -> tuple[list[str], list[str]]:
    """Raises FileNotFoundError, or ValueError that names file and line."""
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split("\t")
        if len(cells) != 2:
            raise ValueError(
                f"{path}, line {number}: {len(cells)} columns, expected the wrong text, a tab, the right one."
            )
        rows.append(cells)
    if not rows:
        raise ValueError(f"{path} is empty; expected wrong and right texts.")
    return [a for a, _ in rows], [b for _, b in rows]


def read_confusions(path: Path) -> dict[str, str]:
    """Raises ValueError for a line that does not begin with a single character."""
    found: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        first, *rest = line.replace(":", " ", 1).split()
        if len(first) != 1 or not rest:
            raise ValueError(
                f"{path}, line {number}: found {line[:20]!r}, expected a character, a space, its confusions."
            )
        found[first] = found.get(first, "") + "".join(rest)
    return found
