"""The faster of the two fp32 matrix products that PyTorch carries on a CPU.

On AMD's Zen 5 oneDNN may multiply fp32 matrices at 2.2 times the rate of MKL, PyTorch's default (4,096 x 256 x 16,384 on
one core: 0.16 s against 0.37 s; on another machine of the same processor 0.34 s). PyTorch hands fp32 products to oneDNN
only when it is told that bfloat16 arithmetic would do. On a CPU without matrix-multiply tiles (AMX) oneDNN has no such
arithmetic for fp32 operands and computes in full fp32. So: ask once, by a product that bfloat16 gets wrong, and take
oneDNN only where the answer is fp32-exact.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def exact_float32_products(operand: Tensor) -> Iterator[None]:
    """Run fp32 CPU products in the block through oneDNN where that is exact; else, and for other dtypes, do nothing."""
    if operand.dtype != torch.float32 or operand.device.type != "cpu" or not onednn_is_exact():
        yield
        return
    with _bfloat16_allowed():
        yield


@functools.cache
def onednn_is_exact() -> bool:
    """Whether oneDNN keeps fp32 precision when it is allowed not to."""
    if not torch.backends.mkldnn.is_available():
        return False
    # 1 + 2^-12 is 1 in bfloat16 and in TensorFloat-32; 256 products of it differ from 256 by 0.125.
    ones = torch.full((512, 256), 1 + 2**-12)
    with _bfloat16_allowed():
        product = ones @ ones.T
    return bool((product.double() - 256 * (1 + 2**-12) ** 2).abs().max() < 1e-3)


@contextmanager
def _bfloat16_allowed() -> Iterator[None]:
    matmul: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009  (not in PyTorch's type stubs)
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
