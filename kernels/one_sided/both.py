"""Both sides at once, for readers who are farther away than the taps: past + future - x.

In eager code on a CPU one depthwise convolution of 2 T + 1 taps, oneDNN's, does the work of two convolutions and two sums,
and so does another one backward. Elsewhere it is made of `one_sided`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.layout import Layout, layout_of
from ..dispatch import choose_backend
from ..first_order import first_order_only
from .api import ONE_PASS, fitted, one_sided, weight_gradient


def two_sided(
    x: Tensor, weight: Tensor, documents: Tensor | Layout | None = None, backend: str | None = None
) -> Tensor:
    """x_j plus a weighted sum of its neighbours on both sides, channel by channel.

    Args:
        x: (B, N, C) float32, bfloat16, float16 or float64; its dtype is that of the result.
        weight: (2, T, C); [0, t - 1] multiplies the neighbour at distance t before, [1, t - 1] the one after.
        documents, backend: as in `one_sided`.

    Returns:
        (B, N, C).

    Raises:
        ValueError: an argument that is not as above.
    """
    if x.dim() != 3 or weight.dim() != 3 or len(weight) != 2 or weight.shape[2] != x.shape[2]:
        raise ValueError(
            f"x had shape {tuple(x.shape)} and weight {tuple(weight.shape)}; they must be (B, N, C) and (2, taps, C)"
        )
    x, weight = fitted(x, weight)
    if not weight.numel():
        return x
    eager = not torch.compiler.is_compiling() and x.device.type == "cpu" and x.dtype in ONE_PASS
    if eager and choose_backend(x.device, backend) == "torch":
        return _TwoSided.apply(x, weight, None if documents is None else layout_of(documents))
    past, future = (one_sided(x, w, side, documents, backend) for w, side in zip(weight, ("past", "future")))
    return past + future - x


class _TwoSided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, layout):
        ctx.save_for_backward(x, weight)
        ctx.layout = layout
        return _convolve(x, weight, layout)

    @staticmethod
    def backward(ctx, grad):
        """Of x: the same with the sides exchanged, since x_j enters the sum of j + t with the weight of the past."""
        x, weight = ctx.saved_tensors
        with torch.no_grad():
            dx = _convolve(grad, weight.flip(0), ctx.layout)
            sides = [weight_gradient(grad, x, weight.shape[1], past, ctx.layout) for past in (True, False)]
            gradients = dx, torch.stack(sides).to(weight.dtype)
        return *first_order_only("two_sided", gradients, (grad, x, weight)), None


def _convolve(x: Tensor, weight: Tensor, layout: Layout | None) -> Tensor:
    """First every row is convolved as one document. Then the few positions near a document border are computed again."""
    taps, channels = weight.shape[1:]
    kernel = torch.cat([weight[0].flip(0), torch.ones_like(weight[0, :1]), weight[1]])  # (2 T + 1, C)
    image = x.contiguous().transpose(1, 2).unsqueeze(2)  # (B, C, 1, N), channels last, which is how x lies
    out = F.conv2d(image, kernel.T[:, None, None], padding=(0, taps), groups=channels).squeeze(2).transpose(1, 2)
    if layout is None:
        return out
    positions, neighbours = _near_borders(layout, taps)
    flat = x.flatten(0, 1)
    rows = flat.index_select(0, positions)
    for w, (others, seen) in zip(weight.flatten(0, 1), neighbours):
        rows += w * torch.where(seen, flat.index_select(0, others), 0.0)
    out[positions // x.shape[1], positions % x.shape[1]] = rows
    return out


@torch.inference_mode(False)  # what the layout keeps may serve training later
def _near_borders(layout: Layout, taps: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Positions (P,), as indices into the flattened batch, with a neighbour outside their document; and for each of the taps,
    before and then after, nearest first, those neighbours (P,) and whether they are in the document (P, 1)."""
    key = ("two_sided", taps)
    if key not in layout.plans:
        rows, length = layout.shape
        position = torch.arange(length, device=layout.device).expand(rows, length)
        before, after = (
            (position - layout.start).flatten(),
            (layout.end - 1 - position).flatten(),
        )  # neighbours there are
        positions = (torch.minimum(before, after) < taps).nonzero()[:, 0]
        found = []
        for room, step in ((before, -1), (after, 1)):
            for t in range(1, taps + 1):
                seen = room[positions] >= t
                found.append((torch.where(seen, positions + step * t, positions), seen[:, None]))
        layout.plans[key] = positions, found
    return layout.plans[key]
