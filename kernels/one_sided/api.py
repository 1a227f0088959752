"""The public operator: a depthwise convolution of one side, with a backward of its own.

Written with shifts and products, autograd keeps a copy of the input for each tap and side; here the backward reads the one
input again.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.layout import Layout, layout_of, remembered
from ..attention.operators import ranges_of
from ..attention.reference import ids_of
from ..dispatch import autocast_dtype, choose_backend, choose_in_operator
from ..first_order import first_order_only
from .reference import one_sided_reference

SIDES = ("past", "future")
ONE_PASS = (torch.bfloat16, torch.float32)  # oneDNN has no others


def one_sided(
    x: Tensor, weight: Tensor, side: str, documents: Tensor | Layout | None = None, backend: str | None = None
) -> Tensor:
    """x_j plus a weighted sum of its neighbours before it (past) or after it (future), channel by channel.

    Args:
        x: (B, N, C) float32, bfloat16, float16 or float64; its dtype is that of the result.
        weight: (T, C); row t - 1 multiplies the neighbour at distance t. Cast to the dtype of x.
        side: past or future.
        documents: as in `kernels.attention.attention`; neighbours of another document, and of padding, count nothing.
        backend: reference, torch or triton; None leaves it to `kernels.dispatch`.

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
    x, weight = fitted(x, weight)
    past = side == "past"
    if torch.compiler.is_compiling():  # the operator chooses when it runs
        return _operator(x, weight, past, *ranges_of(documents), backend or "")
    name = choose_backend(x.device, backend)
    if name == "reference":
        return one_sided_reference(x, weight, None if documents is None else ids_of(x, documents), side).to(x.dtype)
    return _OneSided.apply(x, weight, past, None if documents is None else layout_of(documents), name)


def fitted(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """In one dtype, that of autocast where it is on, without taps (.., T, C) that no position has a neighbour for."""
    dtype = autocast_dtype(x.device)
    if dtype is not None and x.dtype != torch.float64:
        x = x.to(dtype)
    return x, weight[..., : max(x.shape[1] - 1, 0), :].to(x.dtype)


class _OneSided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, past, layout, backend):
        ctx.save_for_backward(x, weight)
        ctx.past, ctx.layout, ctx.backend = past, layout, backend
        return _convolve(x, weight, past, layout, backend)

    @staticmethod
    def backward(ctx, grad):
        with torch.no_grad():
            gradients = _gradients(grad, *ctx.saved_tensors, ctx.past, ctx.layout, ctx.backend)
        return *first_order_only("one_sided", gradients, (grad, *ctx.saved_tensors)), None, None, None


@torch.library.custom_op("twostream::one_sided", mutates_args=())
def _operator(x: Tensor, weight: Tensor, past: bool, start: Tensor | None, end: Tensor | None, backend: str) -> Tensor:
    """In compiled code, opaque to the compiler."""
    return _convolve(x, weight, past, remembered(start, end), choose_in_operator(x.device, backend)).contiguous()


@torch.library.custom_op("twostream::one_sided_backward", mutates_args=())
def _operator_backward(
    grad: Tensor, x: Tensor, weight: Tensor, past: bool, start: Tensor | None, end: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    dx, dweight = _gradients(grad, x, weight, past, remembered(start, end), choose_in_operator(x.device, backend))
    return dx.contiguous(), dweight


@_operator.register_fake
def _(x, weight, past, start, end, backend):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_operator_backward.register_fake
def _(grad, x, weight, past, start, end, backend):
    return torch.empty_like(grad, memory_format=torch.contiguous_format), torch.empty_like(weight)


def _remember(ctx, inputs, output):
    x, weight, ctx.past, ctx.start, ctx.end, ctx.backend = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad):
    gradients = _operator_backward(grad, *ctx.saved_tensors, ctx.past, ctx.start, ctx.end, ctx.backend)
    return *gradients, None, None, None, None


_operator.register_autograd(_backward, setup_context=_remember)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, past: bool, layout: Layout | None, backend: str
) -> tuple[Tensor, Tensor]:
    """Of x: the convolution of the other side. Of the weight: products of neighbours, summed in fp32."""
    dx = _convolve(grad, weight, not past, layout, backend)
    if backend == "triton":
        from .triton_path import weight_gradient as on_gpu

        return dx, on_gpu(grad, x, len(weight), past, layout).to(weight.dtype)
    return dx, weight_gradient(grad, x, len(weight), past, layout).to(weight.dtype)


def weight_gradient(grad: Tensor, x: Tensor, taps: int, past: bool, layout: Layout | None) -> Tensor:
    """Of one side, (taps, C): products of neighbours, summed in fp32 (fp64 for fp64)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    dweight = torch.empty(taps, x.shape[2], dtype=dtype, device=x.device)
    borders = _borders(layout, taps, past)
    for t in range(1, taps + 1):
        here, there = _pair(t, past)
        dweight[t - 1] = _sum_of_products(grad[:, here], x[:, there])
        if borders is not None:  # what the sum should not have counted
            positions, others = borders.crossing[t - 1]
            product = grad.flatten(0, 1).index_select(0, positions) * x.flatten(0, 1).index_select(0, others)
            dweight[t - 1] -= product.sum(0, dtype=dweight.dtype)
    return dweight


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """(B, N, C) twice -> (C,)."""
    if a.device.type != "cpu" or a.dtype not in (torch.float32, torch.float64) or not len(a):
        # PyTorch sums narrow numbers in fp32 and rounds once; asked for an fp32 result, it takes six times as long.
        return (a * b).flatten(0, 1).sum(0)
    products = a[0] * b[0]
    for one, two in zip(a[1:], b[1:]):  # what is small enough for the cache is written, not all products
        products.addcmul_(one, two)
    return products.sum(0)


def _pair(t: int, past: bool) -> tuple[slice, slice]:
    """Positions that have a neighbour at distance t on this side, and these neighbours."""
    return (slice(t, None), slice(None, -t)) if past else (slice(None, -t), slice(t, None))


def _convolve(x: Tensor, weight: Tensor, past: bool, layout: Layout | None, backend: str) -> Tensor:
    if backend == "triton":
        from .triton_path import convolve

        return convolve(x, weight, past, layout)
    return _by_shifts(x, weight, past, layout)


def _by_shifts(x: Tensor, weight: Tensor, past: bool, layout: Layout | None) -> Tensor:
    """First every row is convolved as one document. Then the few positions near a document border are computed again.

    Subtracting the terms of the other document instead would leave their rounding error behind, and that is a leak.
    """
    if x.device.type == "cpu" and x.dtype in ONE_PASS and len(weight):
        out = _one_pass(x, weight, past)
    else:
        out = x.clone(memory_format=torch.contiguous_format)
        for t, w in enumerate(weight, start=1):
            here, there = _pair(t, past)
            out[:, here].addcmul_(x[:, there], w)
    borders = _borders(layout, len(weight), past)
    if borders is not None:
        flat = x.flatten(0, 1)
        rows = flat.index_select(0, borders.positions)
        for w, others in zip(weight, borders.others):
            rows[: len(others)].addcmul_(flat.index_select(0, others), w)
        length = x.shape[1]
        out[borders.positions // length, borders.positions % length] = rows
    return out


def _one_pass(x: Tensor, weight: Tensor, past: bool) -> Tensor:
    """oneDNN's depthwise convolution of (B, C, 1, N), channels last, which is how x lies: a fifth of the time of shifts.

    Its result has taps positions too many, on the side where nothing is read; backward it is slow, and not used.
    """
    own = torch.ones_like(weight[:1])
    kernel = torch.cat([weight.flip(0), own] if past else [own, weight])  # (T + 1, C)
    image = x.contiguous().transpose(1, 2).unsqueeze(2)
    out = F.conv2d(image, kernel.T[:, None, None], padding=(0, len(weight)), groups=x.shape[2])
    return out.squeeze(2).transpose(1, 2).narrow(1, 0 if past else len(weight), x.shape[1])


@dataclass(frozen=True)
class _Borders:
    """Positions (P,), as indices into the flattened batch, some neighbour of which lies outside their document.

    Those with most neighbours come first, so that others[t - 1] (P_t,), the neighbours at distance t, belong to the first
    P_t positions. crossing[t - 1]: positions and their neighbours at distance t, in the row and not in the document.
    """

    positions: Tensor
    others: list[Tensor]
    crossing: list[tuple[Tensor, Tensor]]


@torch.inference_mode(False)  # what the layout keeps may serve training later
def _borders(layout: Layout | None, taps: int, past: bool) -> _Borders | None:
    if layout is None:
        return None
    key = ("one_sided", taps, past)
    if key not in layout.plans:
        rows, length = layout.shape
        position = torch.arange(length, device=layout.device).expand(rows, length)
        room = position - layout.start if past else layout.end - 1 - position  # neighbours of the document on this side
        in_row = position if past else length - 1 - position
        room, in_row = room.flatten(), in_row.flatten()
        positions = (room < taps).nonzero()[:, 0]
        positions = positions[room[positions].argsort(descending=True)]
        step = -1 if past else 1
        others, crossing = [], []
        for t in range(1, taps + 1):
            others.append(positions[room[positions] >= t] + step * t)
            across = positions[(room[positions] < t) & (in_row[positions] >= t)]
            crossing.append((across, across + step * t))
        layout.plans[key] = _Borders(positions, others, crossing)
    return layout.plans[key]
