"""torch.optim.Muon with matrices of one shape orthogonalised together, in the precision that the machine is fast in.

PyTorch's takes one matrix at a time and always bfloat16, which a processor without bf16 products does 25 times slower
than float32; on small models either costs a good part of a training step. The update is the same.

Among several ranks each orthogonalises its share of the matrices, whole, and sends the results: orthogonalising parts of a matrix
would be another update.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.machine import has_fast_bf16
from training.ranks import ALONE, Ranks
from training.sharding import like, whole


def orthogonalise(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, epsilon: float, dtype: torch.dtype
) -> Tensor:
    """Newton-Schulz on (M, A, B): each matrix with its singular values pushed towards 1 (Jordan et al. 2024)."""
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=epsilon)  # no singular value above 1
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _orthogonal(matrices: Tensor, settings: tuple[Any, ...]) -> Tensor:
    return orthogonalise(matrices, *settings)


class Muon(torch.optim.Muon):
    """Options and state of torch.optim.Muon with adjust_lr_fn="match_rms_adamw"; only `step` is another."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, ranks: Ranks = ALONE, **options: Any) -> None:
        super().__init__(parameters, **options)
        self.ranks = ranks

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p, update in zip(given, self._with_momentum(given, group["momentum"], group["nesterov"])):
                by_shape[p.shape].append((p, update))
            for shape, pairs in by_shape.items():
                parameters = [p for p, _ in pairs]
                updates = torch.stack([whole(update) for _, update in pairs])
                dtype = torch.bfloat16 if has_fast_bf16(updates.device) else torch.float32
                settings = group["ns_coefficients"], group["ns_steps"], group["eps"], dtype
                updates = self.ranks.divided(updates, partial(_orthogonal, settings=settings))
                # The length of an AdamW step of this rate (Liu et al. 2025, arXiv 2502.16982, equation 4).
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                own = [like(u, p) for u, p in zip(updates.to(parameters[0].dtype).unbind(), parameters)]
                torch._foreach_add_(parameters, own, alpha=-rate)
        return loss

    def _with_momentum(self, parameters: list[Tensor], momentum: float, nesterov: bool) -> list[Tensor]:
        """The averaged gradients, all together."""
        if not parameters:
            return []
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, buffers, momentum)) if nesterov else buffers
