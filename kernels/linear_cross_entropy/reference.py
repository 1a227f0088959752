"""The specification: linear cross-entropy in float64, with every logit in memory.

    z_tv   = hidden_t . weight_v + bias_v, or k tanh of it / k if there is a softcap k
    lse_t  = log sum_v exp z_tv
    loss_t = lse_t - (1 - s) z_{t, y_t} - s mean_v z_tv + c lse_t^2          (0 where y_t is ignored)

`s` is label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7), `c` the z-loss coefficient (Chowdhery et al.
2022, PaLM, arXiv 2204.02311, section 5), `k` the softcap of Gemma 2 (2024, arXiv 2408.00118, section 2). Every other
implementation in this folder is tested against these lines.
"""

import torch
from torch import Tensor


def linear_cross_entropy_reference(
    hidden_TE: Tensor,
    weight_VE: Tensor,
    targets_T: Tensor,
    bias_V: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return (loss, lse_T) in float64, differentiable by autograd. The mean over no targets is 0."""
    logits_TV = hidden_TE.double() @ weight_VE.double().T
    if bias_V is not None:
        logits_TV = logits_TV + bias_V.double()
    if softcap:
        logits_TV = softcap * torch.tanh(logits_TV / softcap)
    kept_T = targets_T != ignore_index
    lse_T = logits_TV.logsumexp(-1)
    target_logit_T = logits_TV.gather(1, targets_T.where(kept_T, 0)[:, None])[:, 0]
    loss_T = lse_T - (1 - label_smoothing) * target_logit_T + z_loss * lse_T.square()
    if label_smoothing:
        loss_T = loss_T - label_smoothing * logits_TV.mean(-1)
    zero = loss_T.new_zeros(())
    loss_T, lse_T = torch.where(kept_T, loss_T, zero), torch.where(kept_T, lse_T, zero)
    if reduction == "none":
        return loss_T, lse_T
    return loss_T.sum() / (kept_T.sum().clamp(min=1) if reduction == "mean" else 1), lse_T
