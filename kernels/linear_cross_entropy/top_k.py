"""The k best tokens of every row and the target's likelihood, chunk by chunk: logits exist for one chunk at a time."""

from typing import Any

import torch
from torch import Tensor

from ..onednn import exact_float32_products
from .operators import CHUNK_BYTES, kept_rows
from .torch_path import chunk_rows


def top_k_rows(
    hidden_TE: Tensor,
    weight_VE: Tensor,
    targets_T: Tensor,
    bias_V: Tensor | None,
    k: int,
    ignore_index: int,
    dtype: torch.dtype,
    chunk_bytes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> nll (T,), lse (T,), indices (T, k), log-probabilities (T, k)."""
    kept_rows(targets_T, ignore_index, weight_VE.shape[0])  # refuses a target that is not a token
    wide = torch.promote_types(dtype, torch.float32)
    hidden_TE, weight_VE = hidden_TE.to(dtype), weight_VE.to(dtype)
    tokens, vocabulary = len(hidden_TE), len(weight_VE)
    budget = chunk_bytes or CHUNK_BYTES.get(hidden_TE.device.type, CHUNK_BYTES["cuda"])
    rows = chunk_rows(tokens, vocabulary, budget, hidden_TE.element_size())
    ignored_T = targets_T == ignore_index
    positions_T1 = targets_T.masked_fill(ignored_T, 0)[:, None]
    new: dict[str, Any] = {"dtype": wide, "device": hidden_TE.device}
    nll_T, lse_T, best_Tk = torch.empty(tokens, **new), torch.empty(tokens, **new), torch.empty(tokens, k, **new)
    indices_Tk = torch.empty(tokens, k, dtype=torch.int64, device=hidden_TE.device)
    buffer = torch.empty(rows * vocabulary, dtype=dtype, device=hidden_TE.device)
    with torch.amp.autocast(hidden_TE.device.type, enabled=False), exact_float32_products(hidden_TE):
        for start in range(0, tokens, rows):
            chunk = slice(start, min(start + rows, tokens))
            hidden_CE = hidden_TE[chunk]
            logits_CV = torch.mm(hidden_CE, weight_VE.T, out=buffer[: len(hidden_CE) * vocabulary].view(-1, vocabulary))
            if bias_V is not None:
                logits_CV.add_(bias_V.to(dtype))
            values_Ck, indices_Tk[chunk] = logits_CV.max(-1, keepdim=True) if k == 1 else logits_CV.topk(k, -1)
            target_C = logits_CV.gather(1, positions_T1[chunk])[:, 0].to(wide)
            wide_CV = logits_CV.to(wide)
            # The largest probability is 1 / sum: see SoftmaxRows. Differences first: an offset common to all logits cancels.
            torch.softmax(wide_CV, -1, out=wide_CV)
            highest_C1, excess_C1 = values_Ck[:, :1].to(wide), -wide_CV.amax(-1, keepdim=True).log()
            lse_T[chunk] = (highest_C1 + excess_C1)[:, 0]
            nll_T[chunk] = (highest_C1[:, 0] - target_C) + excess_C1[:, 0]
            best_Tk[chunk] = (values_Ck.to(wide) - highest_C1) - excess_C1
    return nll_T.masked_fill_(ignored_T, 0.0), lse_T, indices_Tk, best_Tk
