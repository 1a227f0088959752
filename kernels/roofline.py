"""What a GPU could do at best, calculated: no number here was measured.

    python -m kernels.roofline

A kernel needs matrix products, exponentials and memory traffic. Each unit alone gives a time that cannot be beaten;
perfect overlap takes the longest of them ("bound"), no overlap their sum. Between the two lies every real kernel.
Occupancy comes from the registers and shared memory that the ahead-of-time compiler found (see `ahead_of_time`).

Peaks: NVIDIA A100 (SXM, 80 GB) and H100 (SXM) data sheets, bf16 without sparsity; 16 exponentials a clock and
multiprocessor (CUDA C++ Programming Guide, arithmetic instructions).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .ahead_of_time import read_budget

REGISTERS = 65536  # of one multiprocessor, shared by its threads
MAX_WARPS = 64
MAX_BLOCKS = 32
RESERVED_SHARED = 1024  # bytes the system takes from each block


@dataclass(frozen=True)
class Chip:
    name: str
    arch: int
    flops: float  # bf16 matrix units, a second
    bandwidth: float  # bytes of device memory a second
    multiprocessors: int
    clock: float  # Hz
    shared_bytes: int  # of one multiprocessor

    @property
    def exponentials(self) -> float:
        """exp2 a second."""
        return 16 * self.multiprocessors * self.clock


A100 = Chip("A100", 80, 312e12, 2.039e12, 108, 1.41e9, 164 << 10)
H100 = Chip("H100", 90, 989e12, 3.35e12, 132, 1.755e9, 228 << 10)
CHIPS = (A100, H100)


@dataclass(frozen=True)
class Work:
    """What one call must do. `kernel` names its ahead-of-time case, without the chip."""

    operator: str
    variant: str
    shape: dict[str, int]
    phase: str
    flops: float  # the arithmetic that runs, recomputation included
    useful_flops: float  # the arithmetic that the mathematics asks for
    exponentials: float
    bytes: float
    kernel: str


def bound(work: Work, chip: Chip) -> dict[str, float]:
    """Milliseconds of each unit, of the slowest (the bound) and of their sum."""
    times = {
        "matrix_ms": work.flops / chip.flops * 1e3,
        "exp_ms": work.exponentials / chip.exponentials * 1e3,
        "memory_ms": work.bytes / chip.bandwidth * 1e3,
    }
    return times | {"bound_ms": max(times.values()), "no_overlap_ms": sum(times.values())}


def occupancy(compiled: dict, chip: Chip) -> dict[str, float]:
    """Blocks and warps that one multiprocessor can hold, and what limits them."""
    warps = compiled["num_warps"]
    per_thread = -(-compiled["registers"] // 8) * 8  # registers come in eights
    limits = {
        "registers": REGISTERS // (per_thread * 32 * warps),
        "shared memory": chip.shared_bytes // (compiled["shared_bytes"] + RESERVED_SHARED),
        "warps": MAX_WARPS // warps,
        "blocks": MAX_BLOCKS,
    }
    blocks = min(limits.values())
    return {
        "blocks": blocks,
        "occupancy": blocks * warps / MAX_WARPS,
        "limited_by": min(limits, key=lambda name: limits[name]),
    }


def attention_work(variant: str, batch: int, heads: int, positions: int, width: int, phase: str) -> Work:
    """One stream, two streams ("two_stream-exclude_self") or the union, in bf16."""
    streams, sets = (2 if variant.startswith("two_stream") else 1), (2 if variant == "union" else 1)
    half = variant.split("-")[-1].startswith(("before", "after", "rank"))
    pairs = batch * heads * positions * positions * streams * (0.5 if half else 1.0)
    tensor = 2.0 * batch * heads * positions * width  # bytes of one (B, H, N, K)
    if phase == "forward":
        # S = Q K^T and O = P V, 2 K each; reads q and k, v, writes o and lse.
        flops, useful, exponentials = 4 * width * pairs, 4 * width * pairs, pairs
        moved = tensor * (2 * streams + 2 * sets) + 4 * tensor / width
        kernel = "forward"
    else:
        # Two kernels, each computing S and dP again: dK, dV (4 products) and dQ (3); the mathematics needs 5.
        flops, useful, exponentials = 14 * width * pairs, 10 * width * pairs, 2 * pairs
        moved = tensor * (7 * streams + 6 * sets)
        kernel = "backward_kv" if sets == 1 else "backward_q"
    return Work(
        "attention", variant, {"B": batch, "H": heads, "N": positions, "K": width}, phase, flops, useful, exponentials,
        moved, f"attention {kernel}-{variant}-bf16-{width}",
    )  # fmt: skip


def linear_cross_entropy_work(tokens: int, width: int, vocabulary: int, phase: str) -> Work:
    """Training: three library products and one fused pass over the logits chunk. Scoring: one kernel, no logits."""
    product, logits = 2.0 * tokens * width * vocabulary, tokens * vocabulary
    states = 2.0 * (tokens + vocabulary) * width
    if phase == "scoring":
        flops, moved, kernel = product, states, f"partial_lse-bf16-e{width}"
    else:
        # bf16 logits: written, read and written again by the row pass, read by two products; a gradient each.
        flops, moved, kernel = 3 * product, 10.0 * logits + 3 * states, f"gradient_rows-bf16-v{vocabulary}"
    return Work(
        "linear_cross_entropy", phase, {"T": tokens, "E": width, "V": vocabulary}, phase, flops, flops, logits, moved,
        f"linear_cross_entropy {kernel}",
    )  # fmt: skip


def works() -> Iterator[Work]:
    """The table that is printed where no GPU is."""
    for positions, batch in ((512, 64), (2048, 16), (8192, 4)):
        for variant in ("full", "exclude_self", "before", "two_stream-exclude_self", "union"):
            for phase in ("forward", "backward"):
                yield attention_work(variant, batch, 12, positions, 64, phase)
    for tokens, width, vocabulary in ((16384, 256, 16384), (32768, 512, 32768)):
        for phase in ("training", "scoring"):
            yield linear_cross_entropy_work(tokens, width, vocabulary, phase)


def table() -> list[dict]:
    """One row for each work and chip."""
    budget = read_budget()
    found = []
    for work in works():
        for chip in CHIPS:
            times = bound(work, chip)
            compiled = budget.get(f"sm_{chip.arch} {work.kernel}")
            found.append(
                {
                    "operator": work.operator,
                    "variant": work.variant,
                    "shape": " ".join(f"{k}={v}" for k, v in work.shape.items()),
                    "phase": work.phase,
                    "chip": chip.name,
                    "gflop": work.flops / 1e9,
                    "mbytes": work.bytes / 1e6,
                    "flop_per_byte": work.flops / work.bytes,
                    **times,
                    "bound_tflop_per_s": work.useful_flops / times["bound_ms"] / 1e9,
                    "no_overlap_tflop_per_s": work.useful_flops / times["no_overlap_ms"] / 1e9,
                    **({"registers": compiled["registers"], **occupancy(compiled, chip)} if compiled else {}),
                }
            )
    return found


def chip_here() -> Chip | None:
    """The chip of this machine, if its peaks are known."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((chip for chip in CHIPS if chip.name in name), None)


def print_table(console) -> list[dict]:
    """Print and return the table."""
    from rich.table import Table

    rows = table()
    shown = Table(title="CALCULATED, not measured: the best that A100 and H100 could do (bf16)", title_justify="left")
    columns = {
        "operator": "", "variant": "", "shape": "", "phase": "", "chip": "", "flop_per_byte": ".0f", "matrix_ms": ".3f",
        "exp_ms": ".3f", "memory_ms": ".3f", "bound_ms": ".3f", "bound_tflop_per_s": ".0f",
        "no_overlap_tflop_per_s": ".0f", "registers": "", "occupancy": ".0%", "limited_by": "",
    }  # fmt: skip
    for column, spec in columns.items():
        header = column.replace("tflop_per_s", "TFLOP/s").replace("flop_per_byte", "FLOP/byte").replace("_", " ")
        shown.add_column(header, justify="right" if spec else "left", no_wrap=not spec)
    for row in rows:
        shown.add_row(*(format(row[c], spec) if c in row else "" for c, spec in columns.items()))
    console.print(shown)
    return rows


if __name__ == "__main__":
    from rich.console import Console

    print_table(Console(width=210))
