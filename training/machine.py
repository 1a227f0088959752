"""What this machine is and how fast it multiplies matrices, so that throughput can be read as a share of it."""

import contextlib
import ctypes
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's mallopt parameters


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix multiplication has hardware of its own here (tensor cores; AVX512-BF16 or AMX on a CPU)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capabilities and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def keep_freed_memory() -> None:
    """Tell glibc to re-use large freed blocks instead of returning them to the kernel.

    Every training step allocates the same large activations; by default each is a fresh mmap, and clearing its pages
    costs as much as filling them. No effect where the C library is another one.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int = 0, seconds: float = 0.5) -> float:
    """FLOP/s of square matrix multiplication, the best of rounds that together take about `seconds`."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b, out = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(3))
    best, end = 0.0, time.perf_counter() + seconds
    repeats = 1
    while time.perf_counter() < end or best == 0.0:
        start = time.perf_counter()
        for _ in range(repeats):
            torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - start
        best = max(best, 2.0 * size**3 * repeats / took)
        repeats = max(1, min(64, int(0.02 / (took / repeats))))
    return best


def precision(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Autocast to `dtype`, or none."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


MEMORY_ADVICE = (
    "lower --batch-size and raise --accumulate by as much, which gives the same result; or take a smaller --size"
)


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU, PyTorch's CPU allocator or Python says that memory has run out."""
    words = ("can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error).lower() for w in words)


Device = torch.device  # Machine has a field named torch


@dataclass(frozen=True)
class Machine:
    """What a report must say about where it was made."""

    processor: str
    threads: int
    device: str
    python: str
    torch: str
    git_revision: str
    fp32_matmul: float
    bf16_matmul: float

    @classmethod
    def here(cls, device: Device) -> "Machine":
        return cls(
            processor=processor_name(),
            threads=torch.get_num_threads(),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            python=platform.python_version(),
            torch=str(torch.__version__),
            git_revision=git_revision(),
            fp32_matmul=matmul_rate(device, torch.float32),
            bf16_matmul=matmul_rate(device, torch.bfloat16) if has_fast_bf16(device) else 0.0,
        )


def processor_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def git_revision() -> str:
    """The commit of this code, marked if files were changed. Empty if the code is not in a repository of its own."""
    root = Path(__file__).resolve().parents[1]
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        run = lambda *args: subprocess.run(  # noqa: E731
            ["git", *args], cwd=root, env=surroundings, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        if Path(run("rev-parse", "--show-toplevel")).resolve() != root:
            return "unknown"
        return run("rev-parse", "--short=12", "HEAD") + ("+changes" if run("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
