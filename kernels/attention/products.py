"""Batched matrix products for the CPU path, by whichever library is faster.

PyTorch sends float32 products to MKL, which on processors that are not from Intel runs at half the rate of oneDNN (on
Zen 5 104 against 218 GFLOP/s a core, 1024 x 1024 x 256). oneDNN is reached through the operator that Inductor uses
for linear layers: one matrix at a time, with a fixed cost of some microseconds, so small products stay batched in MKL.
"""

import torch
from torch import Tensor

LARGE = 2**15  # elements of one result from which oneDNN wins

_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def matmul(a_ZMC: Tensor, b_ZCN: Tensor, out_ZMN: Tensor) -> Tensor:
    """a b into out. Operands are contiguous or transposes of contiguous matrices."""
    if _linear is None or a_ZMC.dtype != torch.float32 or max(_size(a_ZMC), _size(b_ZCN), _size(out_ZMN)) < LARGE:
        return torch.bmm(a_ZMC, b_ZCN, out=out_ZMN)
    for a, b, out in zip(a_ZMC, b_ZCN, out_ZMN):
        if a.stride(-1) == 1:
            out.copy_(_linear(a, b.t(), None, "none", [], ""))
        else:  # the first operand has to be contiguous, so compute the transpose
            out.copy_(_linear(b.t().contiguous(), a, None, "none", [], "").t())
    return out_ZMN


def _size(x: Tensor) -> int:
    return x.shape[1] * x.shape[2]
