"""The specification: linear cross-entropy in float64, with every logit in memory.

    z_tv   = hidden_t . weight_v + bias_v
    lse_t  = log sum_v exp z_tv
    loss_t = lse_t - z_{t, y_t}          (0 where y_t is ignored)

Every other implementation in this folder is tested against these lines.
"""

import torch
from torch import Tensor


def linear_cross_entropy_reference(
    hidden_TE: Tensor,
    weight_VE: Tensor,
    targets_T: Tensor,
    bias_V: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """Return (loss, lse_T) in float64, differentiable by autograd. The mean over no targets is 0."""
    logits_TV = hidden_TE.double() @ weight_VE.double().T
    if bias_V is not None:
        logits_TV = logits_TV + bias_V.double()
    kept_T = targets_T != ignore_index
    lse_T = logits_TV.logsumexp(-1)
    target_logit_T = logits_TV.gather(1, targets_T.where(kept_T, 0)[:, None])[:, 0]
    loss_T = lse_T - target_logit_T
    zero = loss_T.new_zeros(())
    loss_T, lse_T = torch.where(kept_T, loss_T, zero), torch.where(kept_T, lse_T, zero)
    if reduction == "none":
        return loss_T, lse_T
    return loss_T.sum() / (kept_T.sum().clamp(min=1) if reduction == "mean" else 1), lse_T
