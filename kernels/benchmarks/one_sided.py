"""The convolutions of one side and of both against shifts under autograd, and against PyTorch's depthwise convolution."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..one_sided import one_sided, two_sided
from ..one_sided.reference import one_sided_reference
from .contest import Contest, Contestant, Inputs

TAPS = 3
# (B, N, C); the first is what the model `local` of size tiny convolves in a step: keys and values of four layers.
SHAPES = [(8, 128, 1024), (8, 512, 2048)]
GPU_SHAPES = [(64, 512, 2048), (32, 512, 12288)]


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    """Forward and backward of one side, and of both."""
    for shape in (GPU_SHAPES if device.type == "cuda" else SHAPES)[: 1 if quick else None]:
        for dtype in (torch.bfloat16,) if device.type == "cuda" else (torch.bfloat16, torch.float32):
            yield _contest("past", shape, dtype)
            yield _contest("both", shape, dtype)


def _contest(variant: str, shape: tuple[int, int, int], dtype: torch.dtype) -> Contest:
    rows, length, channels = shape
    both = variant == "both"
    numbers = float(rows * length * channels) * (1 + both)
    return Contest(
        operator="two_sided" if both else "one_sided",
        variant=variant,
        shape={"B": rows, "N": length, "C": channels},
        check_shape={"B": 2, "N": 16, "C": 32},
        dtype=dtype,
        make_inputs=_inputs_of_both if both else _inputs,
        reference=_both_reference if both else lambda x: one_sided_reference(x["x"], x["weight"], None, "past"),
        contestants=BOTH if both else CONTESTANTS,
        flops=2 * TAPS * numbers,
        backward_flops=4 * TAPS * numbers,
        baseline="one_sided, twice" if both else "shifts, autograd",
        differentiated=("x", "weight"),
        bytes_moved=2.0 * torch.finfo(dtype).bits // 8 * rows * length * channels,
    )


def _inputs(shape: dict[str, int], dtype: torch.dtype, device: torch.device) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape["B"], shape["N"], shape["C"], generator=generator)
    weight = 0.3 * torch.randn(TAPS, shape["C"], generator=generator)
    return {"x": x.to(device, dtype).requires_grad_(), "weight": weight.to(device, dtype).requires_grad_()}


def _inputs_of_both(shape: dict[str, int], dtype: torch.dtype, device: torch.device) -> Inputs:
    found = _inputs(shape, dtype, device)
    weight = found["weight"].detach()
    return found | {"weight": torch.stack([weight, -weight]).requires_grad_()}


def _both_reference(x: Inputs) -> Tensor:
    past, future = (one_sided_reference(x["x"], w, None, side) for w, side in zip(x["weight"], ("past", "future")))
    return past + future - x["x"]


def _one_by_one(x: Inputs) -> Tensor:
    past, future = (one_sided(x["x"], w, side) for w, side in zip(x["weight"], ("past", "future")))
    return past + future - x["x"]


def _depthwise_both(x: Inputs) -> Tensor:
    past, future = x["weight"]
    kernel = torch.cat([past.flip(0), torch.ones_like(past[:1]), future]).T[:, None]
    return F.conv1d(x["x"].transpose(1, 2), kernel, padding=TAPS, groups=len(kernel)).transpose(1, 2)


def _shifts(x: Inputs) -> Tensor:
    out, length = x["x"], x["x"].shape[1]
    padded = F.pad(out, (0, 0, TAPS, 0))
    for t in range(1, TAPS + 1):
        out = out + padded[:, TAPS - t : TAPS - t + length] * x["weight"][t - 1]
    return out


def _depthwise(x: Inputs) -> Tensor:
    channels = x["x"].shape[2]
    kernel = torch.cat([x["weight"].flip(0), torch.ones_like(x["weight"][:1])]).T[:, None]
    return F.conv1d(F.pad(x["x"].transpose(1, 2), (TAPS, 0)), kernel, groups=channels).transpose(1, 2)


CONTESTANTS = [
    Contestant("one_sided", lambda x: lambda: one_sided(x["x"], x["weight"], "past"), ours=True),
    Contestant("shifts, autograd", lambda x: lambda: _shifts(x)),
    Contestant("F.conv1d, depthwise", lambda x: lambda: _depthwise(x)),
]
BOTH = [
    Contestant("two_sided", lambda x: lambda: two_sided(x["x"], x["weight"]), ours=True),
    Contestant("one_sided, twice", lambda x: lambda: _one_by_one(x)),
    Contestant("F.conv1d, depthwise", lambda x: lambda: _depthwise_both(x)),
]
