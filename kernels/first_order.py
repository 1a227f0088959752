"""Gradients that cannot be differentiated again, and say so.

A hand-written backward computes numbers, not a graph. Asked for a second derivative (a gradient penalty, a Hessian),
autograd would take its results for constants and return a wrong gradient in silence.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class _FirstOrderOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, name, count, *tensors):
        ctx.name = name
        return tuple(x.clone() if x.requires_grad else x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(
            f"{ctx.name} has no second derivative: its backward is written by hand. For a gradient penalty or a Hessian "
            "compute the same quantity with plain PyTorch operations, or call it with backend='reference'."
        )


def first_order_only(name: str, gradients: Sequence[Tensor], inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """The gradients as they are; differentiating them with respect to `inputs` raises RuntimeError."""
    inputs = [x for x in inputs if x is not None and x.requires_grad]
    if not torch.is_grad_enabled() or not inputs:
        return list(gradients)
    return list(_FirstOrderOnly.apply(name, len(gradients), *gradients, *inputs))
