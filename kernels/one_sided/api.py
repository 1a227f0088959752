"""The public operator: a depthwise convolution of one side, with a backward of its own.

Written with shifts and products, autograd keeps a copy of the input for each tap and side; here the backward reads the one
input again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.layout import Layout, layout_of, remembered
from ..attention.operators import ranges_of
from ..dispatch import autocast_dtype
from ..first_order import first_order_only

SIDES = ("past", "future")


def one_sided(x: Tensor, weight: Tensor, side: str, documents: Tensor | Layout | None = None) -> Tensor:
    """x_j plus a weighted sum of its neighbours before it (past) or after it (future), channel by channel.

    Args:
        x: (B, N, C) float32, bfloat16, float16 or float64; its dtype is that of the result.
        weight: (T, C); row t - 1 multiplies the neighbour at distance t. Cast to the dtype of x.
        side: past or future.
        documents: as in `kernels.attention.attention`; neighbours of another document, and of padding, count nothing.

    Returns:
        (B, N, C).

    Raises:
        ValueError: an argument that is not as above.
    """
    if side not in SIDES:
        raise ValueError(f"side was {side!r}; it must be past or future")
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[1] != x.shape[2]:
        raise ValueError(
            f"x had shape {tuple(x.shape)} and weight {tuple(weight.shape)}; they must be (B, N, C) and (taps, C)"
        )
    if len(weight) >= x.shape[1]:
        weight = weight[: x.shape[1] - 1]  # no place has a neighbour that far
    dtype = autocast_dtype(x.device)
    if dtype is not None and x.dtype != torch.float64:
        x = x.to(dtype)
    weight, past = weight.to(x.dtype), side == "past"
    if torch.compiler.is_compiling():
        return _operator(x, weight, past, *ranges_of(documents))
    return _OneSided.apply(x, weight, past, None if documents is None else layout_of(documents))


class _OneSided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, past, layout):
        ctx.save_for_backward(x, weight)
        ctx.past, ctx.layout = past, layout
        return _convolve(x, weight, past, layout)

    @staticmethod
    def backward(ctx, grad):
        with torch.no_grad():
            gradients = _gradients(grad, *ctx.saved_tensors, ctx.past, ctx.layout)
        return *first_order_only("one_sided", gradients, (grad, *ctx.saved_tensors)), None, None


@torch.library.custom_op("twostream::one_sided", mutates_args=())
def _operator(x: Tensor, weight: Tensor, past: bool, start: Tensor | None, end: Tensor | None) -> Tensor:
    """In compiled code, opaque to the compiler."""
    return _convolve(x, weight, past, remembered(start, end))


@torch.library.custom_op("twostream::one_sided_backward", mutates_args=())
def _operator_backward(
    grad: Tensor, x: Tensor, weight: Tensor, past: bool, start: Tensor | None, end: Tensor | None
) -> tuple[Tensor, Tensor]:
    return _gradients(grad, x, weight, past, remembered(start, end))


@_operator.register_fake
def _(x, weight, past, start, end):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_operator_backward.register_fake
def _(grad, x, weight, past, start, end):
    return torch.empty_like(grad, memory_format=torch.contiguous_format), torch.empty_like(weight)


def _remember(ctx, inputs, output):
    x, weight, ctx.past, ctx.start, ctx.end = inputs
    ctx.save_for_backward(x, weight)


_operator.register_autograd(
    lambda ctx, grad: (*_operator_backward(grad, *ctx.saved_tensors, ctx.past, ctx.start, ctx.end), None, None, None),
    setup_context=_remember,
)


def _gradients(grad: Tensor, x: Tensor, weight: Tensor, past: bool, layout: Layout | None) -> tuple[Tensor, Tensor]:
    """Of x: the convolution of the other side. Of the weight: products of neighbours, summed in fp32."""
    dweight = torch.empty(weight.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    borders = _borders(layout, len(weight), past)
    for t in range(1, len(weight) + 1):
        here, there = _pair(t, past)
        # PyTorch sums narrow numbers in fp32 and rounds once; asked for an fp32 result, it takes six times as long.
        dweight[t - 1] = (grad[:, here] * x[:, there]).flatten(0, 1).sum(0)
        if borders is not None:  # what the sum should not have counted
            places, others = borders.places, borders.others[t - 1]
            crossing = borders.in_row[t - 1] & ~borders.inside[t - 1]
            product = grad.flatten(0, 1)[places] * x.flatten(0, 1)[others]
            dweight[t - 1] -= torch.where(crossing[:, None], product, 0.0).sum(0, dtype=dweight.dtype)
    return _convolve(grad, weight, not past, layout), dweight.to(weight.dtype)


def _pair(t: int, past: bool) -> tuple[slice, slice]:
    """Places that have a neighbour at distance t on this side, and these neighbours."""
    return (slice(t, None), slice(None, -t)) if past else (slice(None, -t), slice(t, None))


def _convolve(x: Tensor, weight: Tensor, past: bool, layout: Layout | None) -> Tensor:
    """Everywhere as if each row were one document; then the few places near a border again, from their own neighbours.

    Again, not corrected: taking away what was added would leave its rounding behind, and rounding is a leak.
    """
    out = x.clone(memory_format=torch.contiguous_format)
    for t, w in enumerate(weight, start=1):
        here, there = _pair(t, past)
        out[:, here].addcmul_(x[:, there], w)
    borders = _borders(layout, len(weight), past)
    if borders is not None:
        flat = x.flatten(0, 1)
        rows = flat.index_select(0, borders.places)
        for w, others, inside in zip(weight, borders.others, borders.inside):
            rows.addcmul_(torch.where(inside[:, None], flat.index_select(0, others), 0.0), w)
        out.flatten(0, 1).index_copy_(0, borders.places, rows)
    return out


@dataclass(frozen=True)
class _Borders:
    """Places (P,), counted through the batch, some neighbour of which lies outside their document.

    For each distance: others (P,), the neighbour's place (any, if there is none); in_row and inside (P,) bool, whether it
    is in the row, and in the document.
    """

    places: Tensor
    others: list[Tensor]
    in_row: list[Tensor]
    inside: list[Tensor]


@torch.inference_mode(False)  # what the layout keeps may serve training later
def _borders(layout: Layout | None, taps: int, past: bool) -> _Borders | None:
    if layout is None:
        return None
    key = ("one_sided", taps, past)
    if key not in layout.plans:
        rows, length = layout.shape
        place = torch.arange(length, device=layout.device).expand(rows, length)
        room = place - layout.start if past else layout.end - 1 - place  # neighbours of the document on this side
        places = (room < taps).flatten().nonzero()[:, 0]
        step = -1 if past else 1
        own, room = (y.flatten()[places] for y in (place, room))
        others, in_row, inside = [], [], []
        for t in range(1, taps + 1):
            in_row.append((own + step * t >= 0) & (own + step * t < length))
            inside.append(room >= t)
            others.append(torch.where(in_row[-1], places + step * t, places))
        layout.plans[key] = _Borders(places, others, in_row, inside)
    return layout.plans[key]
