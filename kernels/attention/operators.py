"""One differentiable operator under all public ones: the rows of one or two streams over one or two sets of keys.

In eager mode it is an `autograd.Function` around a backend. Under `torch.compile` it is the custom operator
`twostream::attention`, opaque to the compiler, with a fake implementation that only knows shapes.
"""

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..dispatch import choose_backend, operators_wanted
from ..first_order import first_order_only
from . import guarded, reference
from .layout import Layout, layout_of, rank_order, remembered
from .spans import Spans, remembered_spans

_MODULES = {"torch": ".torch_path", "triton": ".triton_path"}


def attend(
    backend: str,
    qs: Sequence[Tensor],
    kv: Sequence[Tensor],
    visibility: str,
    documents: Tensor | Layout | None,
    scale: float,
    rank: Tensor | None = None,
    spans: Spans | None = None,
) -> list[Tensor]:
    """qs: (B, H, N, K) of each stream; kv: k, v or k_past, v_past, k_future, v_future; rank for the reference alone.

    Two streams are named by what their query rows see. Returns what each stream reads.
    """
    if torch.compiler.is_compiling() or operators_wanted():
        ranges = (*ranges_of(documents), *((None, None) if spans is None else (spans.first, spans.last)))
        return _operator(list(qs), list(kv), visibility, *ranges, scale, backend)[: len(qs)]
    if backend == "reference" and guarded.is_clean((*qs, *kv)):
        return reference.attention(qs, kv, visibility, documents, rank, scale, spans)[0]
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (*qs, *kv))
    return list(_Attend.apply(backend, len(qs), visibility, documents, rank, spans, scale, keep, *qs, *kv))


def in_rank_order(rank: Tensor, documents: Tensor | Layout | None) -> tuple[Tensor, Tensor]:
    """`layout.rank_order`, which reads contents: opaque to the compiler."""
    if not torch.compiler.is_compiling():
        return rank_order(rank, documents)
    return _rank_order(rank, *ranges_of(documents))


@torch.library.custom_op("twostream::rank_order", mutates_args=())
def _rank_order(rank: Tensor, start: Tensor | None, end: Tensor | None) -> tuple[Tensor, Tensor]:
    order, slot = rank_order(rank, remembered(start, end))
    return order.clone(), slot.clone()  # the originals may be remembered


@_rank_order.register_fake
def _(rank, start, end):
    return rank.new_empty(rank.shape, dtype=torch.int64), rank.new_empty(rank.shape, dtype=torch.int64)


def ranges_of(documents: Tensor | Layout | None) -> tuple[Tensor | None, Tensor | None]:
    """The layout as the tensors that an operator can take."""
    if documents is None:
        return None, None
    return (documents.start, documents.end) if isinstance(documents, Layout) else _ranges(documents)


@torch.library.custom_op("twostream::document_ranges", mutates_args=())
def _ranges(documents: Tensor) -> tuple[Tensor, Tensor]:
    layout = layout_of(documents)
    return layout.start.clone(), layout.end.clone()


@_ranges.register_fake
def _(documents):
    return tuple(documents.new_empty(documents.shape, dtype=torch.int32) for _ in range(2))


def _backend(name: str, device: torch.device):
    """The module of a backend; "" is chosen now, as in compiled code, where nobody chose before."""
    name = name or choose_backend(device)
    if name not in _MODULES:
        raise ValueError(f"backend was {name!r}; in compiled code it must be one of {', '.join(_MODULES)}")
    return import_module(_MODULES[name], __package__)  # Triton is imported here, if ever


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, backend, streams, visibility, documents, rank, spans, scale, keep, *tensors):
        qs, kv = tensors[:streams], tensors[streams:]
        kept, module, layout = [], None, None
        if backend == "reference" or (backend == "torch" and not guarded.is_clean(tensors)):
            outs = guarded.forward(qs, kv, visibility, documents, rank, scale, spans)
            if backend != "reference":
                outs = [out.to(q.dtype).transpose(1, 2).contiguous().transpose(1, 2) for q, out in zip(qs, outs)]
        else:
            module, layout = _backend(backend, qs[0].device), None if documents is None else layout_of(documents)
            outs, kept = module.forward(qs, kv, visibility, layout, scale, keep, spans)
        results = outs if module is not None and module.READS_RESULTS else []
        ctx.save_for_backward(*qs, *kv, *results, *kept)
        ctx.call = module, streams, len(kv), len(results), visibility, layout, scale
        ctx.documents, ctx.rank, ctx.spans = documents, rank, spans
        return tuple(outs)

    @staticmethod
    def backward(ctx, *grads):
        module, streams, sets, results, visibility, layout, scale = ctx.call
        saved = ctx.saved_tensors
        qs, kv, outs, kept = _split(saved, streams, sets, results)
        with torch.no_grad():
            if module is None or (module.CHECKS and not guarded.is_clean(grads)):
                dqs, dkv = guarded.backward(grads, qs, kv, visibility, ctx.documents, ctx.rank, scale, ctx.spans)
                dqs, dkv = ([g.to(x.dtype) for g, x in zip(found, xs)] for found, xs in ((dqs, qs), (dkv, kv)))
            else:
                dqs, dkv = module.backward(grads, qs, kv, outs, kept, visibility, layout, scale, ctx.spans)
        gradients = first_order_only("attention", [*dqs, *dkv], (*grads, *qs, *kv))
        return (None,) * 8 + tuple(gradients)


@torch.library.custom_op("twostream::attention", mutates_args=())
def _operator(
    qs: list[Tensor],
    kv: list[Tensor],
    visibility: str,
    start: Tensor | None,
    end: Tensor | None,
    first: Tensor | None,
    last: Tensor | None,
    scale: float,
    backend: str,
) -> list[Tensor]:
    """-> what each stream reads, then the log-sum-exps of its rows, which the CPU path does not make: NaN."""
    module = _backend(backend, qs[0].device)
    ranges = remembered(start, end), remembered_spans(first, last)
    outs, lses = module.forward(qs, kv, visibility, ranges[0], scale, False, ranges[1])
    return outs + (lses or [q.new_full(q.shape[:3], float("nan"), dtype=torch.float32) for q in qs])


@_operator.register_fake
def _(qs, kv, visibility, start, end, first, last, scale, backend):
    return [_like(q) for q in qs] + [q.new_empty(q.shape[:3], dtype=torch.float32) for q in qs]


@torch.library.custom_op("twostream::attention_backward", mutates_args=())
def _operator_backward(
    grads: list[Tensor],
    qs: list[Tensor],
    kv: list[Tensor],
    results: list[Tensor],
    visibility: str,
    start: Tensor | None,
    end: Tensor | None,
    first: Tensor | None,
    last: Tensor | None,
    scale: float,
    backend: str,
) -> list[Tensor]:
    outs, lses = results[: len(qs)], results[len(qs) :]
    module, layout = _backend(backend, qs[0].device), remembered(start, end)
    kept, spans = lses if module.READS_RESULTS else [], remembered_spans(first, last)
    dqs, dkv = module.backward(grads, qs, kv, outs, kept, visibility, layout, scale, spans)
    return [*dqs, *dkv]


@_operator_backward.register_fake
def _(grads, qs, kv, results, visibility, start, end, first, last, scale, backend):
    return [_like(x) for x in (*qs, *kv)]


def _remember(ctx, inputs, output):
    qs, kv, visibility, *ranges, scale, backend = inputs
    ctx.save_for_backward(*qs, *kv, *output, *(x for x in ranges if x is not None))
    ctx.call = len(qs), len(kv), [x is not None for x in ranges], visibility, scale, backend


def _differentiate(ctx, grads):
    streams, sets, given, visibility, scale, backend = ctx.call
    qs, kv, results, ranges = _split(ctx.saved_tensors, streams, sets, 2 * streams)
    each = iter(ranges)
    ranges = [next(each) if there else None for there in given]
    found = torch.ops.twostream.attention_backward(
        grads[:streams], qs, kv, results, visibility, *ranges, scale, backend
    )
    return found[:streams], found[streams:], *(None,) * 7


_operator.register_autograd(_differentiate, setup_context=_remember)


@register_flop_formula(torch.ops.twostream.attention)
def _flops(qs, kv, visibility, *_, **__) -> int:
    """Two products for every pair that is seen; a row of an ordered visibility sees half of the positions on average."""
    b, h, n, width = qs[0]
    sees = 0.5 if visibility.startswith(("before", "after")) else 1.0
    return int(4 * b * h * n * n * width * sees) * len(qs)


@register_flop_formula(torch.ops.twostream.attention_backward)
def _flops_of_backward(grads, qs, kv, results, visibility, *_, **__) -> int:
    """Four products: scores that are computed again count nothing."""
    return 2 * _flops(qs, kv, visibility)


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
