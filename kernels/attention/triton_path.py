"""The Triton path: allocate, launch. The kernels are in `triton_forward.py` and `triton_backward.py`.

Importing this module imports Triton.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from .configs import HEAD_WIDTHS, config, constants, padded
from .layout import Layout
from .triton_backward import backward_delta, backward_kv, backward_q
from .triton_forward import forward as forward_kernel
from .visibility import gap_of

READS_RESULTS = True  # the backward needs the outputs and the log-sum-exps
CHECKS = False  # whether a gradient is finite is not known without waiting for the device


def forward(qs, kv, visibility: str, layout: Layout | None, scale: float, keep: bool = True, spans=None):
    """See `operators.attend`. Returns outs and, for the backward, the log-sum-exps (B, H, N): natural, float32."""
    _check(qs, kv)
    qs, kv = _same_strides(qs), _paired(kv)
    outs = [_stored(q) for q in qs]
    lses = [torch.empty(q.shape[:3], dtype=torch.float32, device=q.device) for q in qs]
    launch = _Launch(qs, kv, visibility, layout, scale, spans)
    launch.run(
        forward_kernel, "forward", (qs[0], qs[-1], *kv[:2], *kv[-2:], outs[0], outs[-1], lses[0], lses[-1]), outs[0],
        UNION=launch.union,
    )  # fmt: skip
    return outs, lses


def backward(grads, qs, kv, outs, lses, visibility: str, layout: Layout | None, scale: float, spans=None):
    """The gradients of qs and of kv, given those of the outputs."""
    qs, kv = _same_strides(qs), _paired(kv)
    grads = [g.transpose(1, 2).contiguous().transpose(1, 2) for g in grads]
    deltas = [_delta(out, grad) for out, grad in zip(outs, grads)]
    launch = _Launch(qs, kv, visibility, layout, scale, spans)
    rows = (grads[0], grads[-1], lses[0], lses[-1], deltas[0], deltas[-1])
    dqs = [_stored(q) for q in qs]
    launch.run(
        backward_q, "backward_q", (qs[0], qs[-1], *kv[:2], *kv[-2:], *rows, dqs[0], dqs[-1]), grads[0],
        UNION=launch.union,
    )  # fmt: skip
    dkv = [_stored(x) for x in kv]
    for s in range(0, len(kv), 2):
        mode = "after" if s == 2 else launch.mode
        pointers = (qs[0], qs[-1], *kv[s : s + 2], *rows, *dkv[s : s + 2])
        launch.run(backward_kv, "backward_kv", pointers, grads[0], MODE=mode)
    return dqs, dkv


class _Launch:
    """What the launches of one call share."""

    def __init__(self, qs, kv, visibility, layout, scale, spans):
        q = qs[0]
        self.streams, self.union = len(qs), visibility == "union"
        self.mode = "before" if self.union else visibility.removesuffix("_strict")
        self.strict = visibility.endswith(("_strict", "union")) or gap_of(visibility) is not None
        self.shape = q.shape
        self.scale, self.documents, self.spans = scale, layout is not None, spans is not None
        self.ranges = (layout.start, layout.end) if layout is not None else (q, q)  # never read without documents
        self.ranges += (spans.first, spans.last) if spans is not None else (q, q)
        self.inputs = q.stride()[:3] + kv[0].stride()[:3] + kv[1].stride()[:3]
        self.arch = 80 if q.device.type != "cuda" else _arch(q.device)
        self.fp32 = q.dtype == torch.float32

    def run(self, kernel, name, pointers, stored, MODE=None, **constexprs):
        b, h, n, width = self.shape
        chosen = config(name, self.arch, width, self.fp32)
        mode = self.mode if MODE is None else MODE
        constexprs |= constants(chosen, width, mode, self.strict, self.streams, self.documents, self.spans)
        owned = chosen.block_n if name == "backward_kv" else chosen.block_m // self.streams
        grid = (-(-n // owned) * b * h,)
        numbers = (self.scale, h, n, *self.inputs, *stored.stride()[:3])
        with _device(stored):
            kernel[grid](
                *pointers, *self.ranges, *numbers, **constexprs,
                num_warps=chosen.num_warps, num_stages=chosen.num_stages,
            )  # fmt: skip


def _delta(out: Tensor, grad: Tensor) -> Tensor:
    b, h, n, width = out.shape
    delta = torch.empty(b, h, n, dtype=torch.float32, device=out.device)
    with _device(out):
        backward_delta[(-(-b * h * n // 64),)](
            out, grad, delta, b * h * n, h, n, WIDTH=width, BLOCK_M=64, BLOCK_D=padded(width), num_warps=4
        )
    return delta


def _stored(x: Tensor) -> Tensor:
    """Like x (B, H, N, K), stored as (B, N, H, K)."""
    b, h, n, width = x.shape
    return x.new_empty(b, n, h, width).transpose(1, 2)


def _same_strides(xs):
    """Kernels take one set of strides for both streams, and for both sets of keys: copy what differs from the first."""
    first = xs[0]
    return [
        x if x.stride() == first.stride() else first.new_empty_strided(first.shape, first.stride()).copy_(x) for x in xs
    ]


def _paired(kv):
    keys, values = _same_strides(kv[0::2]), _same_strides(kv[1::2])
    return [x for pair in zip(keys, values) for x in pair]


def _check(qs, kv) -> None:
    names: tuple[str, ...] = ("q",) if len(qs) == 1 else ("q_content", "q_query")
    names += ("k", "v") if len(kv) == 2 else ("k_past", "v_past", "k_future", "v_future")
    if qs[0].shape[-1] not in HEAD_WIDTHS:
        raise ValueError(
            f"{names[0]} had head width {qs[0].shape[-1]}; for Triton it must be a multiple of 16 up to 128"
        )
    if qs[0].dtype == torch.float64:
        raise ValueError(f"{names[0]} had dtype float64; for Triton it must be float32, float16 or bfloat16")
    for name, x in zip(names, (*qs, *kv)):
        if x.stride(-1) != 1 or any(step % 16 for step in x.stride()[:-1]):
            raise ValueError(
                f"{name} had strides {x.stride()}; for Triton the last must be 1 and the others multiples of 16"
            )


def _arch(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _device(x: Tensor):
    """Triton launches on the current device, which need not be that of the tensors."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()
