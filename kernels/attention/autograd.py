"""One differentiable operator under all public ones: the rows of one or two streams over one or two sets of keys.

In eager mode it is an `autograd.Function` around a backend. Under `torch.compile` it is the custom operator
`twostream::attention`, opaque to the compiler, with a fake implementation that only knows shapes.
"""

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from .layout import layout_of, rank_order

_MODULES = {"torch": ".blocked", "triton": ".fused"}


def attend(
    backend: str,
    qs: Sequence[Tensor],
    kv: Sequence[Tensor],
    visibility: str,
    documents: Tensor | None,
    scale: float,
    with_lse: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """qs: (B, H, N, K) of each stream; kv: k, v or k_past, v_past, k_future, v_future; visibility without ranks.

    Two streams are named by what their query rows see. Returns outs and log-sum-exps, which may be missing unless
    asked for.
    """
    if torch.compiler.is_compiling():
        results = _operator(list(qs), list(kv), visibility, documents, scale, backend)
    else:
        keep = torch.is_grad_enabled() and any(x.requires_grad for x in (*qs, *kv))
        results = _Attend.apply(backend, len(qs), visibility, documents, scale, with_lse, keep, *qs, *kv)
    return list(results[: len(qs)]), list(results[len(qs) :])


def in_rank_order(rank: Tensor, documents: Tensor | None) -> tuple[Tensor, Tensor]:
    """`layout.rank_order`, which reads contents: opaque to the compiler."""
    return _rank_order(rank, documents) if torch.compiler.is_compiling() else rank_order(rank, documents)


@torch.library.custom_op("twostream::rank_order", mutates_args=())
def _rank_order(rank: Tensor, documents: Tensor | None) -> tuple[Tensor, Tensor]:
    order, slot = rank_order(rank, documents)
    return order.clone(), slot.clone()  # the originals stay in the cache


@_rank_order.register_fake
def _(rank, documents):
    return rank.new_empty(rank.shape, dtype=torch.int64), rank.new_empty(rank.shape, dtype=torch.int64)


def _backend(name: str):
    return import_module(_MODULES[name], __package__)  # Triton is imported here, if ever


def _layout(documents: Tensor | None):
    return None if documents is None else layout_of(documents)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, backend, streams, visibility, documents, scale, with_lse, keep, *tensors):
        qs, kv = tensors[:streams], tensors[streams:]
        module, layout = _backend(backend), _layout(documents)
        outs, lses, kept = module.forward(qs, kv, visibility, layout, scale, with_lse, keep)
        results = [*outs, *lses] if module.KEEPS_RESULTS else []
        ctx.save_for_backward(*qs, *kv, *results, *kept)
        ctx.call = module, streams, len(kv), len(results), visibility, layout, scale
        ctx.mark_non_differentiable(*lses)
        return *outs, *lses

    @staticmethod
    def backward(ctx, *grads):
        module, streams, sets, results, visibility, layout, scale = ctx.call
        qs, kv, results, kept = _split(ctx.saved_tensors, streams, sets, results)
        outs, lses = results[:streams], results[streams:]
        dqs, dkv = module.backward(grads[:streams], qs, kv, outs, lses, kept, visibility, layout, scale)
        return None, None, None, None, None, None, None, *dqs, *dkv


@torch.library.custom_op("twostream::attention", mutates_args=())
def _operator(
    qs: list[Tensor], kv: list[Tensor], visibility: str, documents: Tensor | None, scale: float, backend: str
) -> list[Tensor]:
    outs, lses, _ = _backend(backend).forward(qs, kv, visibility, _layout(documents), scale, True, False)
    return outs + lses


@_operator.register_fake
def _(qs, kv, visibility, documents, scale, backend):
    return [_like(q) for q in qs] + [q.new_empty(q.shape[:3], dtype=torch.float32) for q in qs]


@torch.library.custom_op("twostream::attention_backward", mutates_args=())
def _operator_backward(
    grads: list[Tensor],
    qs: list[Tensor],
    kv: list[Tensor],
    results: list[Tensor],
    visibility: str,
    documents: Tensor | None,
    scale: float,
    backend: str,
) -> list[Tensor]:
    outs, lses = results[: len(qs)], results[len(qs) :]
    dqs, dkv = _backend(backend).backward(grads, qs, kv, outs, lses, [], visibility, _layout(documents), scale)
    return [*dqs, *dkv]


@_operator_backward.register_fake
def _(grads, qs, kv, results, visibility, documents, scale, backend):
    return [_like(x) for x in (*qs, *kv)]


def _remember(ctx, inputs, output):
    qs, kv, visibility, documents, scale, backend = inputs
    ctx.save_for_backward(*qs, *kv, *output, *(() if documents is None else (documents,)))
    ctx.call = len(qs), len(kv), visibility, documents is not None, scale, backend


def _differentiate(ctx, grads):
    streams, sets, visibility, packed, scale, backend = ctx.call
    qs, kv, results, documents = _split(ctx.saved_tensors, streams, sets, 2 * streams)
    documents = documents[0] if packed else None
    found = torch.ops.twostream.attention_backward(
        grads[:streams], qs, kv, results, visibility, documents, scale, backend
    )
    return found[:streams], found[streams:], None, None, None, None


_operator.register_autograd(_differentiate, setup_context=_remember)


def _split(tensors, *counts: int) -> list[list[Tensor]]:
    """Groups of the given sizes, and the rest."""
    groups, at = [], 0
    for count in counts:
        groups.append(list(tensors[at : at + count]))
        at += count
    return [*groups, list(tensors[at:])]


def _like(x: Tensor) -> Tensor:
    """What backends return: x (B, H, N, K) stored as (B, N, H, K)."""
    b, h, n, width = x.shape
    return x.new_empty(b, n, h, width).transpose(1, 2)
