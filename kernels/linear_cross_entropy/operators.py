"""The custom operators behind the public functions: opaque to torch.compile, with fakes and autograd rules.

    loss_and_gradients   scalar loss; gradients are made in the forward and only scaled in the backward
    losses               a loss for every row; its backward is the third operator, which computes the logits again
    losses_backward

All take rows that may be ignored, drop them, and sweep over the rest with the implementation that `backend` names.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..dispatch import choose_in_operator
from ..first_order import first_order_only
from .torch_path import SoftmaxRows, Sweep, sweep

# A CPU chunk should stay in the last-level cache, and allocations below 32 MiB come back to the process without fresh
# page faults (glibc's M_MMAP_THRESHOLD). A GPU chunk should give each matrix product enough rows to fill the chip.
CHUNK_BYTES = {"cpu": 24 << 20, "cuda": 256 << 20}
NOTHING_IGNORED = -(1 << 40)  # operators take integers: this one stands for an ignore_index of None


@torch.library.custom_op("twostream::linear_cross_entropy", mutates_args=())
def loss_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    mean: bool,
    needs: list[bool],
    compute_dtype: torch.dtype,
    chunk_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> loss (), dhidden (T, E), dweight (V, E), dbias (V,); a gradient not needed is empty.

    The gradients are fp32 or wider, whatever the parameters are: a loss scale arrives in the backward, and what fp16 had
    rounded away before would stay lost.
    """
    kept = kept_rows(targets, ignore_index, weight.shape[0])
    scale = 1 / max(1, len(targets) if kept is None else len(kept)) if mean else 1.0
    swept = _sweep(
        hidden,
        weight,
        targets,
        bias,
        kept,
        needs,
        compute_dtype,
        chunk_bytes,
        backend,
        scale=scale,
    )
    dhidden_TE = None if swept.dhidden_TE is None else _all_rows(swept.dhidden_TE, kept, len(targets))
    dhidden, dweight, dbias = (
        swept.loss_T.new_empty(0) if gradient is None else gradient
        for gradient in (dhidden_TE, swept.dweight_VE, swept.dbias_V)
    )
    return swept.loss_T.sum() * scale, dhidden, dweight, dbias


@loss_and_gradients.register_fake
def _(hidden, weight, targets, bias, ignore_index, mean, needs, compute_dtype, *_):
    wide = torch.promote_types(compute_dtype, torch.float32)
    shapes = [p.shape if needed and p is not None else (0,) for needed, p in zip(needs, (hidden, weight, bias))]
    return tuple(hidden.new_empty(shape, dtype=wide) for shape in ((), *shapes))


def _save_gradients(ctx, inputs, output):
    _, *gradients = output
    ctx.save_for_backward(inputs[0], inputs[1], inputs[3], *gradients)
    ctx.mark_non_differentiable(*gradients)
    ctx.set_materialize_grads(False)  # or the backward would be handed zeros the size of every gradient
    ctx.needs = inputs[6]


def _scale_gradients(ctx, grad_loss, *_):
    if grad_loss is None:
        return (None,) * 10
    # The usual gradient of a loss is exactly 1. Reading it costs nothing on a CPU and saves a copy of every gradient;
    # in a traced backward (a subclass of Tensor) there is no value to read.
    readable = type(grad_loss) is Tensor and grad_loss.device.type == "cpu"
    as_they_are = readable and grad_loss.item() == 1
    parameters, gradients = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
    found = [
        (g if as_they_are else g * grad_loss).to(p.dtype)
        for needed, p, g in zip(ctx.needs, parameters, gradients)
        if needed
    ]
    found = iter(first_order_only("linear_cross_entropy", found, (grad_loss, *parameters)))
    hidden, weight, bias = (next(found) if needed else None for needed in ctx.needs)
    return hidden, weight, None, bias, *[None] * 6


loss_and_gradients.register_autograd(_scale_gradients, setup_context=_save_gradients)


@torch.library.custom_op("twostream::linear_cross_entropy_rows", mutates_args=())
def losses(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    compute_dtype: torch.dtype,
    chunk_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """-> loss (T,), lse (T,); 0 where ignored. No gradient is prepared."""
    kept = kept_rows(targets, ignore_index, weight.shape[0])
    swept = _sweep(
        hidden,
        weight,
        targets,
        bias,
        kept,
        [False] * 3,
        compute_dtype,
        chunk_bytes,
        backend,
    )
    return _all_rows(swept.loss_T, kept, len(targets)), _all_rows(swept.lse_T, kept, len(targets))


@losses.register_fake
def _(hidden, weight, targets, bias, ignore_index, compute_dtype, *_):
    wide = torch.promote_types(compute_dtype, torch.float32)
    return hidden.new_empty(len(targets), dtype=wide), hidden.new_empty(len(targets), dtype=wide)


@torch.library.custom_op("twostream::linear_cross_entropy_rows_backward", mutates_args=())
def losses_backward(
    grad_losses: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    ignore_index: int,
    needs: list[bool],
    compute_dtype: torch.dtype,
    chunk_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum_t grad_losses_t loss_t -> dhidden (T, E), dweight (V, E), dbias (V,); unneeded ones empty."""
    kept = kept_rows(targets, ignore_index, weight.shape[0])
    row_gradient = grad_losses if kept is None else grad_losses[kept]
    swept = _sweep(
        hidden,
        weight,
        targets,
        bias,
        kept,
        needs,
        compute_dtype,
        chunk_bytes,
        backend,
        row_gradient,
    )
    dhidden_TE = None if swept.dhidden_TE is None else _all_rows(swept.dhidden_TE, kept, len(targets))
    return (
        _gradient(dhidden_TE, hidden),
        _gradient(swept.dweight_VE, weight),
        _gradient(swept.dbias_V, weight if bias is None else bias),
    )


@losses_backward.register_fake
def _(grad_losses, hidden, weight, targets, bias, ignore_index, needs, *_):
    return (
        torch.empty_like(hidden, memory_format=torch.contiguous_format) if needs[0] else hidden.new_empty(0),
        torch.empty_like(weight, memory_format=torch.contiguous_format) if needs[1] else weight.new_empty(0),
        torch.empty_like(bias) if needs[2] and bias is not None else weight.new_empty(0),
    )


def _save_inputs(ctx, inputs, output):
    hidden, weight, targets, bias, *ctx.settings = inputs
    ctx.save_for_backward(hidden, weight, targets, bias)
    ctx.mark_non_differentiable(output[1])


def _backward_rows(ctx, grad_losses, _):
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 3)]
    with torch.no_grad():
        gradients = losses_backward(
            grad_losses.contiguous(), *ctx.saved_tensors, *ctx.settings[:1], needs, *ctx.settings[1:]
        )
    gradients = first_order_only("linear_cross_entropy", gradients, (grad_losses, *ctx.saved_tensors))
    hidden, weight, bias = (g if needed else None for needed, g in zip(needs, gradients))
    return hidden, weight, None, bias, *[None] * 4


losses.register_autograd(_backward_rows, setup_context=_save_inputs)


def _sweep(
    hidden,
    weight,
    targets,
    bias,
    kept,
    needs,
    dtype,
    chunk_bytes,
    backend,
    row_gradient=None,
    scale=1.0,
) -> Sweep:
    """Sweep over the kept rows with the chosen implementation."""
    if kept is not None:
        hidden, targets = hidden[kept], targets[kept]
    backend = choose_in_operator(hidden.device, backend)
    with torch.amp.autocast(hidden.device.type, enabled=False):
        hidden, weight = hidden.to(dtype).contiguous(), weight.to(dtype).contiguous()
        bias = None if bias is None else bias.to(dtype)
        make_row_pass: Callable[[Tensor], Any] = SoftmaxRows
        if backend == "triton":
            from . import triton_path

            if not any(needs):
                highest, excess, target_logit = triton_path.log_sum_exp(hidden, weight, bias, targets)
                return Sweep(excess + (highest - target_logit), highest + excess, None, None, None)
            make_row_pass = triton_path.GradientRows
        return sweep(
            hidden,
            weight,
            bias,
            targets,
            chunk_bytes=chunk_bytes or CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"]),
            make_row_pass=make_row_pass,
            needs=tuple(needs),
            row_gradient_T=row_gradient,
            scale=scale,
        )


def kept_rows(targets: Tensor, ignore_index: int, vocabulary: int) -> Tensor | None:
    """Indices of the rows that have a target, None for all; a target that is not a token is an error.

    Where nothing is ignored, a GPU is not asked: it would have to be waited for.
    """
    if ignore_index == NOTHING_IGNORED and targets.device.type != "cpu":
        return None
    ignored = targets == ignore_index
    wrong = ((targets < 0) | (targets >= vocabulary)) & ~ignored
    any_ignored, any_wrong = torch.stack([ignored.any(), wrong.any()]).tolist()  # one wait for the device
    if any_wrong:
        row = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"targets[{row}] was {int(targets[row])}; it must be a token id from 0 to {vocabulary - 1} "
            f"(weight has {vocabulary} rows)" + ("" if ignore_index == NOTHING_IGNORED else f" or {ignore_index=}")
        )
    return (~ignored).nonzero()[:, 0] if any_ignored else None


def _all_rows(kept_values: Tensor, kept: Tensor | None, tokens: int) -> Tensor:
    """Put the rows back in place, zeros where they were ignored."""
    if kept is None:
        return kept_values
    return kept_values.new_zeros(tokens, *kept_values.shape[1:]).index_copy_(0, kept, kept_values)


def _gradient(wide: Tensor | None, parameter: Tensor) -> Tensor:
    """The gradient in its parameter's dtype; an operator must return a tensor, so an empty one stands for None."""
    return parameter.new_empty(0) if wide is None else wide.to(parameter.dtype)


@register_flop_formula([torch.ops.twostream.linear_cross_entropy, torch.ops.twostream.linear_cross_entropy_rows])
def _flops(hidden_shape, weight_shape, *arguments, **_) -> int:
    """Of the forward, and of the gradients where they are made in it."""
    needs = arguments[4] if isinstance(arguments[4], list | tuple) else []
    return 2 * hidden_shape[0] * weight_shape[0] * weight_shape[1] * (1 + sum(map(bool, needs[:2])))


@register_flop_formula(torch.ops.twostream.linear_cross_entropy_rows_backward)
def _flops_of_backward(grad_shape, hidden_shape, weight_shape, *_, **__) -> int:
    """The gradients alone; the logits that are computed again count nothing, as in every model's FLOPs."""
    return 4 * hidden_shape[0] * weight_shape[0] * weight_shape[1]
