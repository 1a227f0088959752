"""Attention over inputs that hold NaN or infinity somewhere: what is hidden from a row changes nothing for that row.

The fast path hides by arithmetic (it adds -inf to a score and multiplies a value by 0), and NaN survives both. So when
an input is not finite, the reference computes with such numbers replaced by 0, and the rows that truly see one of them
become NaN: those whose own query is not finite, and those that see a key or value that is not. The gradient is treated
alike: NaN arrives where a row that is NaN, or whose incoming gradient is, has a say, and nowhere else.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import reference

NAN = float("nan")


def is_clean(tensors: Sequence[Tensor]) -> bool:
    """Whether all numbers are finite. Asked for plain CPU tensors only: elsewhere reading would wait or is impossible."""
    plain = (x for x in tensors if x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter))
    with torch.no_grad():
        return all(
            bool(torch.isfinite(x.sum(dtype=None if x.dtype == torch.float64 else torch.float32))) for x in plain
        )


def forward(qs, kv, visibility, documents, rank, scale, spans=None) -> list[Tensor]:
    """Arguments of `reference.attention`; what each stream reads."""
    clean = [_clean(q) for q in qs], [_clean(x) for x in kv]
    outs, _ = reference.attention(*clean, visibility, documents, rank, scale, spans)
    for q, seen, out in zip(qs, _seen(qs, visibility, documents, rank, spans), outs):
        out.masked_fill_(_bad_rows(q, kv, seen)[..., None], NAN)
    return outs


def backward(grads, qs, kv, visibility, documents, rank, scale, spans=None) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients of qs and kv, given those of the outputs."""
    leaves = [_clean(x).double().requires_grad_() for x in (*qs, *kv)]
    with torch.enable_grad():
        outs, _ = reference.attention(leaves[: len(qs)], leaves[len(qs) :], visibility, documents, rank, scale, spans)
    found = list(torch.autograd.grad(outs, leaves, [_clean(g).double() for g in grads]))
    for s, (q, grad, seen) in enumerate(zip(qs, grads, _seen(qs, visibility, documents, rank, spans))):
        visible = seen.any(-1)[:, None]  # a row that sees nothing has no gradient
        bad = (_bad_rows(q, kv, seen) & grad.ne(0).any(-1)) | (_not_finite(grad) & visible)  # (B, H, N)
        found[s].masked_fill_(bad[..., None], NAN)
        reached = (bad[..., None] & seen[:, None]).any(-2)  # (B, H, M)
        for i, own in enumerate(reached.chunk(len(kv) // 2, -1)):  # each set of keys, with its values
            for x in found[len(qs) + 2 * i : len(qs) + 2 * i + 2]:
                x.masked_fill_(own[..., None], NAN)
    return found[: len(qs)], found[len(qs) :]


def _seen(qs, visibility, documents, rank, spans) -> list[Tensor]:
    return reference.seen_by(len(qs), visibility, reference.ids_of(qs[0], documents), rank, spans)


def _bad_rows(q: Tensor, kv: Sequence[Tensor], seen_BNM: Tensor) -> Tensor:
    """(B, H, N): rows that see anything, and of whose query, keys or values something is not finite."""
    keys = torch.cat([_not_finite(k) | _not_finite(v) for k, v in zip(kv[0::2], kv[1::2])], -1)  # (B, H, M)
    seen = seen_BNM[:, None]
    return (seen & keys[:, :, None]).any(-1) | (_not_finite(q) & seen.any(-1))


def _not_finite(x: Tensor) -> Tensor:
    return ~torch.isfinite(x).all(-1)


def _clean(x: Tensor) -> Tensor:
    return x.detach().nan_to_num(0.0, 0.0, 0.0)
