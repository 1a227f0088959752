"""Chunks of tokens through the vocabulary: library matrix products, one softmax pass, gradients in the same sweep.

        vocabulary V                       For each chunk of C tokens:
      +--------------+                       1. logits (C, V) = hidden @ weight.T     into one reused buffer
    C | logits chunk | -> lse, loss          2. in place: logits -> softmax - onehot
      +--------------+ -> d hidden           3. d hidden (C, E) = dlogits @ weight
    C |  (same       | -> d weight +=        4. d weight (V, E) += dlogits.T @ hidden   fp32 accumulator
      |   buffer)    |
      +--------------+                     The loss is a scalar, so its gradient is known in the forward but for one
      ...                                  factor: logits are computed once and never kept.

With a gradient g_t that arrives at row t (notation of reference.py), d loss / d z_tv = g_t (softmax_tv - [v = y_t]).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..onednn import exact_float32_products

# (logits_CV, targets_C, dlogits_wanted) -> the largest logit of each row, and its log-sum-exp
# minus that, (C,) each; turns logits into dlogits in place. Two parts, because the loss is (largest - target) + excess:
# neither term holds an offset that all logits share, where the log-sum-exp itself does and loses the digits behind it.
# Made once for a sweep from its (C, V) buffer of logits, so that scratch memory is reused from chunk to chunk.
RowPass = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]


class Sweep(NamedTuple):
    """What one sweep over the tokens gives; a gradient that was not asked for is None."""

    loss_T: Tensor
    lse_T: Tensor
    dhidden_TE: Tensor | None
    dweight_VE: Tensor | None
    dbias_V: Tensor | None


def sweep(
    hidden_TE: Tensor,
    weight_VE: Tensor,
    bias_V: Tensor | None,
    targets_T: Tensor,
    *,
    chunk_bytes: int,
    make_row_pass: Callable[[Tensor], RowPass],
    needs: tuple[bool, bool, bool] = (False, False, False),
    row_gradient_T: Tensor | None = None,
    scale: float | Tensor = 1.0,
) -> Sweep:
    """Loss, log-sum-exp and the gradients in `needs` (hidden, weight, bias) of rows that all have a target.

    hidden and weight have one dtype, in which the products run; sums and softmax run in fp32 (fp64 for fp64 input), and
    loss, lse and gradients come back in that wider dtype. `row_gradient_T` multiplies each row's gradient; None is 1.
    `scale` multiplies all gradients, in the wider dtype, so that 1 / T loses nothing in fp16; not the losses.
    """
    tokens, width = hidden_TE.shape
    vocabulary = weight_VE.shape[0]
    wide = torch.promote_types(hidden_TE.dtype, torch.float32)
    new: dict[str, Any] = {"device": hidden_TE.device, "dtype": wide}
    needs_hidden, needs_weight, needs_bias = needs[0], needs[1], needs[2] and bias_V is not None
    rows = chunk_rows(tokens, vocabulary, chunk_bytes, hidden_TE.element_size())

    highest_T, excess_T, target_logit_T = (torch.empty(tokens, **new) for _ in range(3))
    dhidden_TE = torch.empty(tokens, width, **new) if needs_hidden else None
    # The first chunk fills it; without a chunk nothing would.
    dweight_VE = (torch.empty if tokens else torch.zeros)(vocabulary, width, **new) if needs_weight else None
    dbias_V = torch.zeros(vocabulary, **new) if needs_bias else None

    narrow = hidden_TE.new_empty  # the dtype of the products
    logits_buffer = narrow(rows, vocabulary)
    row_pass = make_row_pass(logits_buffer)
    dhidden_buffer = narrow(width * rows if needs_hidden else 0)
    # Library products accumulate in fp32 inside; a narrow result has to be added to the fp32 sum afterwards.
    partial_VE = narrow(vocabulary, width) if needs_weight and hidden_TE.dtype != wide else None

    if row_gradient_T is not None and hidden_TE.dtype != wide and tokens:
        # A loss scale may have made them large: what is multiplied into narrow numbers stays at most 1.
        largest = row_gradient_T.abs().amax().clamp_min(torch.finfo(wide).tiny).to(wide)
        row_gradient_T, scale = row_gradient_T.to(wide) / largest, scale * largest
    with exact_float32_products(hidden_TE):
        for start in range(0, tokens, rows):
            chunk = slice(start, start + rows)
            hidden_CE, targets_C = hidden_TE[chunk], targets_T[chunk]
            count = len(hidden_CE)
            logits_CV = logits_buffer[:count]
            torch.mm(hidden_CE, weight_VE.T, out=logits_CV)
            if bias_V is not None:
                logits_CV.add_(bias_V)
            target_logit_T[chunk] = logits_CV.gather(1, targets_C[:, None])[:, 0]
            highest_T[chunk], excess_T[chunk] = row_pass(logits_CV, targets_C, any(needs))
            dlogits_CV = logits_CV  # the row pass has turned them into their gradients
            gradient_C1 = None if row_gradient_T is None else row_gradient_T[chunk, None].to(wide)
            if dhidden_TE is not None:
                # Transposed, (E, V) @ (V, C): oneDNN and MKL run it a fifth faster than (C, V) @ (V, E).
                dhidden_EC = dhidden_buffer[: width * count].view(width, count)
                torch.mm(weight_VE.T, dlogits_CV.T, out=dhidden_EC)
                dhidden_TE[chunk] = dhidden_EC.T
                dhidden_TE[chunk] *= scale if gradient_C1 is None else scale * gradient_C1
            if gradient_C1 is not None:
                hidden_CE = (hidden_CE * gradient_C1).to(hidden_CE.dtype)
            if partial_VE is not None and dweight_VE is not None:
                torch.mm(dlogits_CV.T, hidden_CE, out=partial_VE)
                if start == 0:
                    dweight_VE.copy_(partial_VE).mul_(scale)
                else:
                    dweight_VE.add_(partial_VE.to(wide) * scale)
            elif dweight_VE is not None:
                dweight_VE.addmm_(dlogits_CV.T, hidden_CE, beta=min(start, 1), alpha=float(scale))
            if dbias_V is not None:
                # Both sum in fp32 inside; the plain sum is four times as fast.
                if gradient_C1 is None:
                    bias_sum_V = dlogits_CV.sum(0)
                else:
                    bias_sum_V = torch.mv(dlogits_CV.T, gradient_C1[:, 0].to(dlogits_CV.dtype))
                dbias_V.add_(bias_sum_V.to(wide) * scale)

    return Sweep(excess_T + (highest_T - target_logit_T), highest_T + excess_T, dhidden_TE, dweight_VE, dbias_V)


def chunk_rows(tokens: int, vocabulary: int, chunk_bytes: int, element_size: int) -> int:
    """Tokens in a chunk: as many rows of logits as the budget holds, at least one."""
    return max(1, min(tokens, chunk_bytes // (vocabulary * element_size)))


# fp32 copies of narrow logits: a CPU's second-level cache, enough rows to fill a GPU.
SCRATCH_BYTES = {"cpu": 2 << 20, "cuda": 64 << 20}


class SoftmaxRows:
    """The row pass in PyTorch, in fp32 or wider; logits become softmax - onehot in place.

    PyTorch's in-position softmax is one fused, vectorised pass and its exp is faster than `exp_`. It keeps its sum to itself,
    but the largest probability of a row is 1 / sum, never below 1 / V, and gives it back.
    Narrow logits are widened a few rows at a time.
    """

    def __init__(self, logits_CV: Tensor):
        self.wide = torch.promote_types(logits_CV.dtype, torch.float32)
        self.rows, vocabulary = logits_CV.shape
        self.scratch = None
        if logits_CV.dtype != self.wide:
            budget = SCRATCH_BYTES.get(logits_CV.device.type, SCRATCH_BYTES["cuda"])
            self.rows = chunk_rows(self.rows, vocabulary, budget, self.wide.itemsize)
            self.scratch = logits_CV.new_empty(self.rows, vocabulary, dtype=self.wide)

    def __call__(self, logits_CV: Tensor, targets_C: Tensor, dlogits_wanted: bool) -> tuple[Tensor, Tensor]:
        highest_C, excess_C = logits_CV.new_empty(2, len(logits_CV), dtype=self.wide)
        for start in range(0, len(logits_CV), self.rows):
            rows = slice(start, min(start + self.rows, len(logits_CV)))
            logits_RV = logits_CV[rows]
            wide_RV = logits_RV if self.scratch is None else self.scratch[: len(logits_RV)].copy_(logits_RV)
            torch.amax(wide_RV, -1, out=highest_C[rows])
            torch.softmax(wide_RV, -1, out=wide_RV)
            excess_C[rows] = -wide_RV.amax(-1).log()
            if dlogits_wanted:
                wide_RV.scatter_add_(1, targets_C[rows, None], wide_RV.new_full((len(wide_RV), 1), -1))
                if wide_RV is not logits_RV:
                    logits_RV.copy_(wide_RV)
        return highest_C, excess_C
