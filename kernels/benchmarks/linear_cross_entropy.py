"""The loss and scoring against what a user would write: logits, then cross_entropy."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

from ..linear_cross_entropy import linear_cross_entropy, linear_nll
from ..linear_cross_entropy.reference import linear_cross_entropy_reference
from .contest import Contest, Contestant, Inputs

# (T, E, V); the first is the one the project's target is stated for.
SHAPES = [(4096, 256, 16384), (8192, 128, 4096), (4096, 128, 8192), (4096, 512, 8192)]
GPU_SHAPES = [(8192, 256, 16384), (16384, 512, 32768), (16384, 768, 50304), (8192, 768, 128256)]


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    """Training (loss and gradients) and scoring (forward only) over widths and vocabularies."""
    shapes = GPU_SHAPES if device.type == "cuda" else SHAPES
    for shape in shapes[: 2 if quick else None]:
        for dtype in (torch.bfloat16,) if device.type == "cuda" else (torch.float32, torch.bfloat16):
            yield _contest("training", shape, dtype, quick)
            if dtype != torch.bfloat16 or device.type == "cuda":
                yield _contest("scoring", shape, dtype, quick)


def _contest(variant: str, shape: tuple[int, int, int], dtype: torch.dtype, quick: bool) -> Contest:
    tokens, width, vocabulary = shape
    product = 2.0 * tokens * width * vocabulary
    training = variant == "training"
    contestants = [c for c in (TRAINING if training else SCORING) if not (quick and "compiled" in c.name)]
    element = torch.finfo(dtype).bits // 8
    return Contest(
        operator="linear_cross_entropy",
        variant=variant,
        shape={"T": tokens, "E": width, "V": vocabulary},
        check_shape={"T": 64, "E": 32, "V": 500},
        dtype=dtype,
        make_inputs=_inputs,
        reference=_reference if training else _reference_nll,
        contestants=contestants,
        flops=product,
        backward_flops=2 * product,
        baseline="logits + cross_entropy",
        differentiated=("hidden", "weight") if training else (),
        bytes_moved=element * (tokens + vocabulary) * width + 12.0 * tokens,
    )


def _inputs(shape: dict[str, int], dtype: torch.dtype, device: torch.device) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(shape["T"], shape["E"], generator=generator)
    weight = torch.randn(shape["V"], shape["E"], generator=generator) * shape["E"] ** -0.5
    return {
        "hidden": hidden.to(device, dtype).requires_grad_(),
        "weight": weight.to(device, dtype).requires_grad_(),
        "targets": torch.randint(0, shape["V"], (shape["T"],), generator=generator).to(device),
    }


def _reference(x: Inputs) -> Tensor:
    return linear_cross_entropy_reference(x["hidden"], x["weight"], x["targets"], None, -100, "mean")[0]


def _reference_nll(x: Inputs) -> Tensor:
    return linear_cross_entropy_reference(x["hidden"], x["weight"], x["targets"], None, -100, "none")[0]


def _plain(x: Inputs, reduction: str = "mean") -> Tensor:
    return F.cross_entropy((x["hidden"] @ x["weight"].T).float(), x["targets"], reduction=reduction)


def _pytorch_chunked(x: Inputs) -> Tensor:
    options = LinearCrossEntropyOptions(batch_chunk_size=512)
    return F.linear_cross_entropy(x["hidden"], x["weight"], x["targets"], options=options)


def _compiled(x: Inputs):
    compiled = torch.compile(_plain, dynamic=False)
    return lambda: compiled(x)


TRAINING = [
    Contestant(
        "linear_cross_entropy",
        lambda x: lambda: linear_cross_entropy(x["hidden"], x["weight"], x["targets"]),
        ours=True,
    ),
    Contestant("logits + cross_entropy", lambda x: lambda: _plain(x)),
    Contestant("F.linear_cross_entropy, chunks of 512", lambda x: lambda: _pytorch_chunked(x)),
    Contestant("logits + cross_entropy, compiled", _compiled),
]
SCORING = [
    Contestant("linear_nll", lambda x: lambda: linear_nll(x["hidden"], x["weight"], x["targets"])[0], ours=True),
    Contestant("logits + cross_entropy", lambda x: lambda: _plain(x, "none")),
]
