"""Texts by a model that writes (generate.py): beam search, and sampling from the likeliest tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.generate import Writer


def beam_search(
    writer: Writer,
    source: Sequence[int],
    end: int,
    longest: int,
    beams: int = 4,
    banned: Sequence[int] = (),
    penalty: float = 1.0,
) -> list[int]:
    """The likeliest target that beam search finds, without `end`: by its log-probability over the number of its tokens (`end`
    counted) to the power `penalty`.

    banned: tokens that are never written. A target that has not ended after `longest` tokens is taken as it is.
    """
    written, scores, device = writer.begin(source), torch.zeros(1), next(writer.parameters()).device
    rows: list[list[int]] = [[]]
    best: tuple[float, list[int]] = (-float("inf"), [])
    for step in range(1, longest + 1):
        found = written.log_probs().cpu()
        found[:, list(banned)] = -float("inf")
        total = scores[:, None] + found
        flat, index = total.flatten().topk(min(2 * beams, total.numel()))
        size = total.shape[1]
        kept: list[tuple[float, int, int]] = []
        for value, number in zip(flat.tolist(), index.tolist()):
            row, token = divmod(number, size)
            if token == end:
                best = max(best, (value / step**penalty, rows[row]), key=lambda pair: pair[0])
            elif len(kept) < beams and value > -float("inf"):
                kept.append((value, row, token))
        if not kept or best[0] >= kept[0][0] / longest**penalty:  # no longer text can be better
            break
        if step == longest:
            return max(best, (kept[0][0] / step**penalty, [*rows[kept[0][1]], kept[0][2]]), key=lambda pair: pair[0])[1]
        scores = torch.tensor([value for value, _, _ in kept])
        rows = [[*rows[row], token] for _, row, token in kept]
        written.select(torch.tensor([row for _, row, _ in kept], device=device))
        written.append(torch.tensor([token for _, _, token in kept], device=device))
    return best[1]


def sample(
    writer: Writer, source: Sequence[int], end: int, longest: int, *, top_k: int = 0, top_p: float = 1.0,
    banned: Sequence[int] = (), generator: torch.Generator | None = None,
) -> list[int]:  # fmt: skip
    """A target drawn token by token from the `top_k` likeliest (0: all), of these from the fewest that hold `top_p` of the
    probability (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751)."""
    written, device = writer.begin(source), next(writer.parameters()).device
    found: list[int] = []
    for _ in range(longest):
        log_probs = written.log_probs()[0].cpu()
        log_probs[list(banned)] = -float("inf")
        token = draw(log_probs, top_k, top_p, generator)
        if token == end:
            break
        found.append(token)
        written.append(torch.tensor([token], device=device))
    return found


def draw(log_probs: Tensor, top_k: int, top_p: float, generator: torch.Generator | None) -> int:
    """A token from (V,) log-probabilities."""
    values, order = log_probs.sort(descending=True)
    p = values.softmax(0)
    keep = p.cumsum(0) - p < top_p  # those before it do not hold top_p yet
    keep[0] = True
    if top_k:
        keep[top_k:] = False
    return int(order[torch.multinomial(p * keep, 1, generator=generator)])
