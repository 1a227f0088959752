"""Random numbers for each sample: they depend on the sample's number in the data, not on the batch that it is in."""

import torch
from torch import Tensor

from data.permutation import hash64
from model.batch import Batch


def uniform(batch: Batch, salt: int = 0) -> Tensor:
    """(B, N) float64 in [0, 1), of the data's seed, a row's sample, the position in its document and `salt` alone. On the batch's
    device, without a wait; a batch without samples counts as sample 0."""
    device = batch.tokens.device
    rows, length = batch.tokens.shape
    position = torch.arange(length, device=device).expand(rows, length)
    if batch.layout is not None:
        position = position - batch.layout.start
    samples = torch.tensor(batch.samples or [0] * rows).to(device, non_blocking=True)
    samples = samples + (hash64(batch.seed) >> 1 if batch.seed else 0)
    bits = _mix(_mix(_mix(samples[:, None] + 1) + salt + 1) + position + 1) >> 11 & (1 << 53) - 1
    return bits.double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    """splitmix64 (Steele, Lea and Flood 2014) on int64, which wraps around; shifts without the sign."""
    x = x * -7046029254386353131
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * -4658895280553007687
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * -7723592293110705685
    return x ^ (x >> 31 & (1 << 33) - 1)
