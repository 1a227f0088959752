"""First the check, then the clock: a contestant that is wrong gets no number."""

import ctypes
import random
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .contest import CHECK_BOUND, Contest, Contestant, Inputs, Result


def run_contest(contest: Contest, device: torch.device, rounds: int) -> list[Result]:
    """Check every contestant, then time those that are right in `rounds` interleaved rounds, in random order."""
    results = [check(contest, contestant, device) for contestant in contest.contestants]
    inputs = contest.make_inputs(contest.shape, contest.dtype, device)
    runs = {}
    for result in results:
        if result.refused:
            continue
        try:
            runs[id(result)] = result.contestant.prepare(inputs)
            result.peak_mib = peak_memory(lambda r=result: once(contest, r.contestant, runs[id(r)], inputs), device)
        except Exception as error:  # an alternative that this machine or this shape does not support
            result.refused = _first_line(error)
    order = [result for result in results if not result.refused]
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for result in order:
            forward, backward = once(contest, result.contestant, runs[id(result)], inputs)
            result.forward.append(forward)
            if backward is not None:
                result.backward.append(backward)
    return results


def check(contest: Contest, contestant: Contestant, device: torch.device) -> Result:
    """Value and gradients on the small problem against float64."""
    result = Result(contest, contestant)
    inputs = contest.make_inputs(contest.check_shape, contest.dtype, device)
    exact = {
        name: x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x
        for name, x in inputs.items()
    }
    expected = (contestant.reference or contest.reference)(exact)
    try:
        found = contestant.prepare(inputs)()
        errors = [_error(found, expected)]
        if found.shape == expected.shape and contest.differentiated and contestant.differentiable:
            seed = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).to(device)
            leaves = [[tensors[name] for name in contest.differentiated] for tensors in (inputs, exact)]
            gradients = torch.autograd.grad(found, leaves[0], seed.to(found.dtype))
            errors += map(_error, gradients, torch.autograd.grad(expected, leaves[1], seed.double()))
    except Exception as error:
        result.refused = _first_line(error)
        return result
    result.error = max(errors)
    bound = CHECK_BOUND[contest.dtype]
    if not result.error <= bound:
        result.refused = f"WRONG: error {result.error:.1e} against float64, bound {bound:.0e}"
    return result


def _error(found: Tensor, expected: Tensor) -> float:
    """Relative Frobenius error; a missing number is an infinite one."""
    if found.shape != expected.shape:
        return float("inf")
    ratio = ((found.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()
    return ratio if ratio == ratio else float("inf")


def once(contest: Contest, contestant: Contestant, run, inputs: Inputs) -> tuple[float, float | None]:
    """Milliseconds of one forward and, where there is one, one backward."""
    device = next(iter(inputs.values())).device
    differentiated = bool(contest.differentiated) and contestant.differentiable
    measure = _on_gpu if device.type == "cuda" else _on_cpu
    with nullcontext() if differentiated else torch.no_grad():
        found, forward = measure(run)
    if not differentiated:
        return forward, None
    seed, leaves = torch.ones_like(found), [inputs[name] for name in contest.differentiated]
    return forward, measure(lambda: torch.autograd.grad(found, leaves, seed, retain_graph=device.type == "cuda"))[1]


def _on_cpu(work) -> tuple[Any, float]:
    """What `work` gives, and its milliseconds by the wall clock."""
    start = time.perf_counter()
    found = work()
    return found, (time.perf_counter() - start) * 1e3


def _on_gpu(work) -> tuple[Any, float]:
    """The same by Triton's own benchmark: warmed up, the queue kept full, the cache flushed between runs, the median."""
    from triton.testing import do_bench

    return work(), do_bench(work, warmup=10, rep=50, return_mode="median")


def peak_memory(work, device: torch.device) -> float | None:
    """MiB that `work` needs beyond what was held before; None where the system does not tell.

    On a GPU from the allocator. On Linux from the kernel's high-water mark of the process, which is reset first, after
    the C library has given its free memory back.
    """
    work()  # compile, and let libraries allocate what they keep
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        work()
        return None
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / 1024


def _resident(field: str) -> int:
    """KiB of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


@contextmanager
def threads(count: int | None):
    """Run the block with this many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:160]
