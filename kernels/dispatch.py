"""Which implementation of an operator runs.

    reference   float64 mathematics, the specification; slow
    torch       PyTorch operations; the fast path on a CPU
    triton      Triton kernels; CUDA, or any device under Triton's interpreter (TRITON_INTERPRET=1)

The first of these that speaks decides: the `backend=` argument of the operator, the innermost `use_backend(...)` block,
the environment variable KERNELS, the device (CUDA: triton, everything else: torch). On AMD's GPUs it is torch: the
Triton kernels compile for gfx942, but some spill, two exceed its local memory, and nobody has run them there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

BACKENDS = ("reference", "torch", "triton")

_forced: ContextVar[str | None] = ContextVar("kernels_backend", default=None)


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run every operator inside the block on `backend`; blocks nest."""
    token = _forced.set(_checked(backend, "use_backend"))
    try:
        yield
    finally:
        _forced.reset(token)


_operators: ContextVar[bool] = ContextVar("kernels_operators", default=False)


@contextmanager
def as_operators() -> Iterator[None]:
    """Run attention as one custom operator, which `FlopCounterMode` and other dispatch modes can see."""
    token = _operators.set(True)
    try:
        yield
    finally:
        _operators.reset(token)


def operators_wanted() -> bool:
    return _operators.get()


def choose_backend(device: torch.device, backend: str | None = None) -> str:
    """Name of the backend for tensors on `device`.

    Raises:
        ValueError: an unknown name, or Triton for tensors it cannot reach.
    """
    if backend is not None:
        name = _checked(backend, "the argument backend")
    elif (forced := _forced.get()) is not None:
        name = forced
    elif environment := os.environ.get("KERNELS"):
        name = _checked(environment, "the environment variable KERNELS")
    else:
        return "triton" if device.type == "cuda" and torch.version.hip is None else "torch"
    if name == "triton" and device.type != "cuda" and not interpreting():
        raise ValueError(
            f"backend 'triton' was asked for tensors on {device}, but it runs on CUDA only: move the tensors, choose "
            "'torch', or set TRITON_INTERPRET=1 before the first import to run the kernels in the interpreter"
        )
    return name


def choose_in_operator(device: torch.device, backend: str) -> str:
    """The same inside a custom operator, where "" stands for None; the reference is no operator and cannot be compiled."""
    name = choose_backend(device, backend or None)
    if name == "reference":
        raise ValueError("backend was 'reference'; under torch.compile it must be 'torch' or 'triton'")
    return name


def multiprocessors(device: torch.device) -> int:
    """How many programs run at a time; 1 in the interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast would cast to on this device now; None outside autocast, and where there is none (meta tensors)."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's CPU interpreter (a property of the process, set before import)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source} was {name!r}; it must be one of {', '.join(BACKENDS)}")
    return name
