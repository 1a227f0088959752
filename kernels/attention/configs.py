"""Every compile-time choice of the attention kernels, in one place: tile sizes, warps, pipeline stages.

The table is static, so a run never tunes and never differs from the last. A tile must fit the registers of its warps
(no spills, checked ahead of time for sm_80 and sm_90) and its pipeline the shared memory of the chip.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .visibility import gap_of

MODES = {"full": 0, "exclude_self": 1, "before": 2, "after": 3}  # the constants of triton_tiles
BEYOND_2 = "beyond_2"  # stands for all that ship: the number is a constant of the kernel and changes no tile

HEAD_WIDTHS = range(16, 129, 16)


@dataclass(frozen=True)
class Config:
    """block_m rows by block_n keys. branch: skip the mask of a tile that every row sees, which may cost registers."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    branch: bool = True


# (kernel, arch, head width up to): bf16 and fp16
_HALF = {
    ("forward", 80, 32): Config(128, 32, 8, 2),
    ("forward", 80, 64): Config(128, 64, 8, 2),
    ("forward", 80, 128): Config(128, 32, 8, 2),
    ("forward", 90, 32): Config(128, 64, 8, 2),
    ("forward", 90, 64): Config(128, 64, 8, 2),
    ("forward", 90, 128): Config(128, 64, 8, 2),
    ("backward_kv", 80, 32): Config(64, 128, 8, 2),
    ("backward_kv", 80, 64): Config(32, 128, 8, 2, branch=False),
    ("backward_kv", 80, 128): Config(32, 64, 8, 2),
    ("backward_kv", 90, 32): Config(64, 128, 8, 2),
    ("backward_kv", 90, 64): Config(64, 128, 8, 2),
    ("backward_kv", 90, 128): Config(64, 64, 8, 2),
    ("backward_q", 80, 32): Config(128, 64, 8, 2),
    ("backward_q", 80, 64): Config(128, 32, 8, 2),
    ("backward_q", 80, 128): Config(64, 32, 4, 2),
    ("backward_q", 90, 32): Config(128, 64, 8, 2),
    ("backward_q", 90, 64): Config(128, 64, 8, 2),
    ("backward_q", 90, 128): Config(64, 64, 8, 2),
}

# (kernel, head width up to): fp32 has no matrix instructions at full precision, so small tiles on every chip
_FULL = {
    ("forward", 64): Config(64, 32, 4, 1),
    ("forward", 128): Config(32, 16, 4, 1),
    ("backward_kv", 64): Config(32, 32, 4, 1),
    ("backward_kv", 128): Config(32, 32, 8, 1),
    ("backward_q", 64): Config(32, 32, 8, 1),
    ("backward_q", 128): Config(32, 32, 8, 1),
}


def config(kernel: str, arch: int, width: int, fp32: bool) -> Config:
    """The configuration that ships. sm_90 and sm_100 use the row of sm_90; others, sm_120 too, that of sm_80.

    sm_86, sm_89 and sm_120 have the matrix units of sm_80 and 99 KiB of shared memory a block; its tiles take at most 66.
    """
    if fp32:
        return _FULL[kernel, 64 if width <= 64 else 128]
    return _HALF[kernel, 90 if 90 <= arch < 120 else 80, 32 if width <= 32 else 64 if width <= 64 else 128]


def padded(width: int) -> int:
    """The power of two that a tile of this head width occupies."""
    return max(16, 1 << (width - 1).bit_length())


def aot_cases() -> Iterator[dict]:
    """What an ahead-of-time compiler needs for every kernel configuration that ships.

    Yields dictionaries
        name             str, unique: "forward-exclude_self-bf16-64-sm80"
        fn               the @triton.jit function
        types            {argument: "*bf16" | "*fp32" | "*i32" | "i32" | "i64" | "fp32"}; with constexprs it covers
                         every argument of fn
        constexprs       {argument: value}
        divisible_by_16  [argument, ...]: the integers known to be multiples of 16 (pointers always are)
        num_warps, num_stages   int
        arch             80 or 90: the chip this configuration is for
        dtype            "bf16" | "fp16" | "fp32"
        head_width       int
        group            str: the kernel, "forward" | "forward_two_stream" | "forward_union" | "backward_kv" | ...
        expects          {"mma": bool, "async": bool}: matrix instructions, asynchronous copies

    Imports Triton, so call it in a process without TRITON_INTERPRET.
    """
    for arch in (80, 90):
        for visibility in MODES:
            for streams in (1, 2):
                if streams == 2 and visibility == "full":
                    continue
                for kernel in ("forward", "backward_kv", "backward_q"):
                    for documents in (False, True):
                        yield _case(kernel, arch, "bf16", 64, visibility, streams, documents)
        for kernel in ("forward", "backward_q"):
            for documents in (False, True):
                yield _case(kernel, arch, "bf16", 64, "union", 1, documents)
            yield _case(kernel, arch, "bf16", 64, "union", 1, True, spans=True)
        for dtype, width in (("bf16", 32), ("bf16", 96), ("bf16", 128), ("fp16", 64), ("fp32", 64), ("fp32", 128)):
            for kernel in ("forward", "backward_kv", "backward_q"):
                yield _case(kernel, arch, dtype, width, "exclude_self", 1)
        for kernel in ("forward", "backward_q"):
            yield _case(kernel, arch, "bf16", 128, "union", 1)
        for kernel in ("forward", "backward_kv", "backward_q"):
            for documents in (False, True):
                yield _case(kernel, arch, "bf16", 64, BEYOND_2, 1, documents)
                yield _case(kernel, arch, "bf16", 64, BEYOND_2, 1, documents, spans=True)
        for dtype in ("bf16", "fp32"):
            yield _case("backward_delta", arch, dtype, 64, "full", 1)


def _case(
    kernel: str,
    arch: int,
    dtype: str,
    width: int,
    visibility: str,
    streams: int,
    documents: bool = False,
    spans: bool = False,
) -> dict:
    from . import triton_backward, triton_forward

    fn = {
        "forward": triton_forward.forward,
        "backward_kv": triton_backward.backward_kv,
        "backward_q": triton_backward.backward_q,
        "backward_delta": triton_backward.backward_delta,
    }[kernel]
    union = visibility == "union"
    chosen = Config(64, 0, 4, 1)
    if kernel == "backward_delta":
        constexprs = {"WIDTH": width, "BLOCK_M": chosen.block_m, "BLOCK_D": padded(width)}
    else:
        chosen = config(kernel, arch, width, dtype == "fp32")
        constexprs = constants(chosen, width, "before" if union else visibility, True, streams, documents, spans)
        if kernel != "backward_kv":
            constexprs["UNION"] = union
    types = {}
    for name in fn.arg_names:
        if name in constexprs:
            continue
        if name in ("heads", "n", "rows") or name.startswith("stride"):
            types[name] = "i32"
        elif name == "scale" or name.startswith(("LSE", "DELTA")):
            types[name] = "fp32" if name == "scale" else "*fp32"
        else:
            types[name] = "*i32" if name in ("START", "END", "FIRST", "LAST") else "*" + dtype
    group = kernel + ("_two_stream" if streams == 2 else "_union" if union else "")
    matrix = dtype != "fp32" and kernel != "backward_delta"
    label = (
        ("two_stream-" if streams == 2 else "")
        + visibility
        + ("-documents" if documents else "")
        + ("-spans" if spans else "")
    )
    return {
        "name": f"{kernel}-{label}-{dtype}-{width}-sm{arch}",
        "fn": fn,
        "types": types,
        "constexprs": constexprs,
        "divisible_by_16": [name for name in types if name.startswith("stride")],
        "num_warps": chosen.num_warps,
        "num_stages": chosen.num_stages,
        "arch": arch,
        "dtype": dtype,
        "head_width": width,
        "group": group,
        "expects": {"mma": matrix, "async": matrix and chosen.num_stages > 1},
    }


def constants(
    chosen: Config, width: int, mode: str, strict: bool, streams: int, documents: bool, spans: bool = False
) -> dict:
    """The compile-time arguments that `forward`, `backward_kv` and `backward_q` share."""
    gap = gap_of(mode)
    return {
        "WIDTH": width,
        "BLOCK_M": chosen.block_m,
        "BLOCK_N": chosen.block_n,
        "BLOCK_D": padded(width),
        "MODE": MODES[mode if gap is None else "exclude_self"],
        "GAP": gap or 0,
        "STRICT": int(strict),
        "STREAMS": streams,
        "DOCUMENTS": documents,
        "SPANS": spans,
        "BRANCH": chosen.branch,
    }
