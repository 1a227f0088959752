"""The public functions: arguments are checked here, the work is done by the operators."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..dispatch import autocast_dtype, choose_backend
from . import operators
from .reference import linear_cross_entropy_reference
from .top_k import top_k_rows

IGNORE_INDEX = -100


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int | None = IGNORE_INDEX,
    reduction: str = "mean",
    chunk_bytes: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Cross-entropy of hidden @ weight.T + bias against targets, without the (T, V) logits in memory.

    Args:
        hidden: (T, E) states, fp32, bf16, fp16 or fp64.
        weight: (V, E) output table, same dtype (under autocast any: products then run in the autocast dtype, softmax
            and sums in fp32, gradients come back in each argument's own dtype without a rounding in between).
        targets: (T,) int64 token ids; rows equal to ignore_index are dropped before any work. With ignore_index=None
            every row has a token: a GPU is then not asked for the targets' values, which would wait for it.
        bias: (V,) or None.
        reduction: "mean" over the rows not ignored (0 if there are none), "sum", or "none" for (T,) with 0 where
            ignored. "mean" and "sum" make the gradients in the forward, while a chunk's logits are in cache; "none"
            computes the logits again in the backward.
        chunk_bytes: memory for one chunk of logits; None chooses by device.
        backend: "reference", "torch" or "triton"; None leaves it to `kernels.dispatch`.

    Returns:
        the loss in fp32 (fp64 for fp64 input).

    Raises:
        ValueError: a wrong shape, dtype, device, range or target, named in the message.
    """
    _check(hidden, weight, targets, bias)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction was {reduction!r}; it must be 'mean', 'sum' or 'none'")
    ignored, execution = _execution(hidden, ignore_index, chunk_bytes, backend)
    if execution[-1] == "reference":
        return _reference(hidden, weight, targets, bias, ignored, reduction)[0]
    needs = [torch.is_grad_enabled() and p is not None and p.requires_grad for p in (hidden, weight, bias)]
    if reduction != "none" and any(needs):
        mean = reduction == "mean"
        return operators.loss_and_gradients(hidden, weight, targets, bias, ignored, mean, needs, *execution)[0]
    loss, _ = operators.losses(hidden, weight, targets, bias, ignored, *execution)
    if reduction == "none":
        return loss
    return loss.sum() / ((targets != ignored).sum().clamp(min=1) if reduction == "mean" else 1)


@torch.no_grad()
def linear_nll(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    chunk_bytes: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of every target, for scoring: (nll (T,), lse (T,)), fp32 nats, 0 where ignored.

    Arguments and errors as in `linear_cross_entropy`; nothing is differentiable.
    """
    _check(hidden, weight, targets, bias)
    ignored, execution = _execution(hidden, ignore_index, chunk_bytes, backend)
    if execution[-1] == "reference":
        return _reference(hidden, weight, targets, bias, ignored, "none")
    return operators.losses(hidden, weight, targets, bias, ignored, *execution)


class TopK(NamedTuple):
    """Predictions and likelihoods of the same rows."""

    nll: Tensor  # (T,) nats, 0 where the target is ignored
    lse: Tensor  # (T,)
    indices: Tensor  # (T, k) int64, best first
    log_probabilities: Tensor  # (T, k)


@torch.no_grad()
def linear_top_k(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    k: int = 1,
    ignore_index: int = IGNORE_INDEX,
    chunk_bytes: int | None = None,
) -> TopK:
    """The k likeliest tokens of every row, ignored ones included, and the target's likelihood, in one sweep.

    Top-1 accuracy is `(top.indices[:, 0] == targets)` over the rows not ignored. Arguments and errors as in
    `linear_cross_entropy`; k from 1 to V.
    """
    _check(hidden, weight, targets, bias)
    if not 1 <= k <= len(weight):
        raise ValueError(f"k was {k}; it must be from 1 to the vocabulary, {len(weight)}")
    execution = _compute_dtype(hidden), _checked_chunk_bytes(chunk_bytes)
    return TopK(*top_k_rows(hidden, weight, targets, bias, k, ignore_index, *execution))


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> None:
    """Everything that can be checked without reading data."""
    autocast = autocast_dtype(hidden.device) is not None
    for name, tensor, shape in (
        ("hidden", hidden, "(T, E)"),
        ("weight", weight, "(V, E)"),
        ("targets", targets, "(T,)"),
        ("bias", bias, "(V,)"),
    ):
        if tensor is None:
            continue
        if tensor.ndim != shape.count(",") + (shape[-2] != ","):
            raise ValueError(f"{name} had shape {tuple(tensor.shape)}; it must be {shape}")
        if tensor.device != hidden.device:
            raise ValueError(f"{name} was on {tensor.device}; it must be on {hidden.device}, where hidden is")
        if name == "targets":
            if tensor.dtype != torch.int64:
                raise ValueError(f"targets had dtype {tensor.dtype}; it must be torch.int64")
        elif not tensor.is_floating_point():
            raise ValueError(f"{name} had dtype {tensor.dtype}; it must be floating point")
        elif tensor.dtype != hidden.dtype and not autocast:
            raise ValueError(
                f"{name} had dtype {tensor.dtype}; it must be {hidden.dtype}, as hidden is (outside autocast)"
            )
    if weight.shape[0] == 0 or weight.shape[1] == 0:
        raise ValueError(f"weight had shape {tuple(weight.shape)}; neither V nor E may be 0")
    for name, found, expected, source in (
        ("weight", weight.shape[1], hidden.shape[1], "columns, the width of hidden"),
        ("targets", targets.shape[0], hidden.shape[0], "entries, one for each row of hidden"),
        (
            "bias",
            weight.shape[0] if bias is None else bias.shape[0],
            weight.shape[0],
            "entries, one for each row of weight",
        ),
    ):
        if found != expected:
            raise ValueError(f"{name} had {found} {source.split(',')[0]}; it must have {expected} {source}")


def _execution(hidden, ignore_index, chunk_bytes, backend) -> tuple[int, tuple[torch.dtype, int, str]]:
    """The target that is ignored, and the last arguments of an operator: dtype of products, bytes of a chunk, backend."""
    ignored = operators.NOTHING_IGNORED if ignore_index is None else ignore_index
    return ignored, (_compute_dtype(hidden), _checked_chunk_bytes(chunk_bytes), _backend(hidden, backend))


def _reference(hidden, weight, targets, bias, ignored: int, reduction: str) -> tuple[Tensor, Tensor]:
    """The specification's loss and log-sum-exps, in fp32 or wider."""
    operators.kept_rows(targets, ignored, len(weight))  # refuses a target that is not a token
    loss, lse = linear_cross_entropy_reference(hidden, weight, targets, bias, ignored, reduction)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    return loss.to(wide), lse.to(wide)


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of the matrix products."""
    return autocast_dtype(hidden.device) or hidden.dtype


def _backend(hidden: Tensor, backend: str | None) -> str:
    """The backend's name, chosen now; "" in compiled code, where the operator chooses when it runs."""
    if torch.compiler.is_compiling():
        return backend or ""
    return choose_backend(hidden.device, backend)


def _checked_chunk_bytes(chunk_bytes: int | None) -> int:
    """0 stands for None in the operators, which take integers."""
    if chunk_bytes is not None and chunk_bytes < 1:
        raise ValueError(f"chunk_bytes was {chunk_bytes}; it must be at least 1, or None to choose by device")
    return chunk_bytes or 0
