"""Launching the Triton kernels. Imported only when the Triton backend runs."""

import torch
import triton
from torch import Tensor

from ..dispatch import multiprocessors
from .configs import lse_tile, row_tile
from .triton_kernels import gradient_rows, partial_lse

TRITON_DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def check_dtype(dtype: torch.dtype) -> None:
    """The kernels sum in fp32, so they refuse fp64 rather than return half of its digits."""
    if dtype not in TRITON_DTYPES:
        raise ValueError(f"hidden had dtype {dtype}; the Triton backend takes float32, bfloat16 or float16")


class GradientRows:
    """The row pass of `torch_path.sweep` as one kernel."""

    def __init__(self, logits_CV: Tensor):
        check_dtype(logits_CV.dtype)

    def __call__(self, logits_CV: Tensor, targets_C: Tensor, dlogits_wanted: bool) -> tuple[Tensor, Tensor]:
        rows, vocabulary = logits_CV.shape
        highest_C, excess_C = torch.empty(2, rows, dtype=torch.float32, device=logits_CV.device)
        tile = row_tile(vocabulary)
        with torch.cuda.device_of(logits_CV):
            gradient_rows[(rows,)](
                logits_CV,
                targets_C,
                highest_C,
                excess_C,
                vocabulary,
                logits_CV.stride(0),
                BLOCK_V=tile.block_v,
                WHOLE_ROW=tile.whole_row,
                num_warps=tile.num_warps,
            )
        return highest_C, excess_C


def log_sum_exp(
    hidden_TE: Tensor, weight_VE: Tensor, bias_V: Tensor | None, targets_T: Tensor, splits: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """-> the largest logit, the log-sum-exp minus it, and the target's logit, all (T,) fp32; no logit reaches memory.

    The vocabulary is shared out over `splits` programs for each token tile; None takes enough to fill the chip. Their
    (max, sum, target logit) triples meet in a fixed order, so the result does not depend on which finishes first. The
    same triples would join the shares of a vocabulary that is spread over several devices.
    """
    check_dtype(hidden_TE.dtype)
    (tokens, width), vocabulary = hidden_TE.shape, len(weight_VE)
    tile = lse_tile(TRITON_DTYPES[hidden_TE.dtype], width)
    token_tiles, vocabulary_tiles = triton.cdiv(tokens, tile.block_t), triton.cdiv(vocabulary, tile.block_v)
    if splits is None:
        splits = triton.cdiv(4 * multiprocessors(hidden_TE.device), max(1, token_tiles))
    # Whole tiles to each split; no split without work.
    tiles_per_split = triton.cdiv(vocabulary_tiles, max(1, min(splits, vocabulary_tiles)))
    splits = triton.cdiv(vocabulary_tiles, tiles_per_split)

    highest_ST, total_ST, target_ST = hidden_TE.new_empty(3, splits, tokens, dtype=torch.float32)
    if tokens:
        with torch.cuda.device_of(hidden_TE):
            partial_lse[(token_tiles, splits)](
                hidden_TE,
                weight_VE,
                weight_VE if bias_V is None else bias_V,
                targets_T,
                highest_ST,
                total_ST,
                target_ST,
                tokens,
                vocabulary,
                hidden_TE.stride(0),
                weight_VE.stride(0),
                tiles_per_split * tile.block_v,
                E=width,
                HAS_BIAS=bias_V is not None,
                BLOCK_T=tile.block_t,
                BLOCK_V=tile.block_v,
                BLOCK_E=tile.block_e,
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
            )
    highest_T = highest_ST.amax(0)
    total_T = (total_ST * torch.exp(highest_ST - highest_T)).sum(0)
    return highest_T, torch.log(total_T), target_ST.sum(0)
