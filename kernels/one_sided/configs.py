"""Tile shapes, and every configuration for the ahead-of-time tests. No Triton is imported."""

from collections.abc import Iterator
from typing import NamedTuple


class Tile(NamedTuple):
    """Positions x channels of one program: 16 numbers a thread."""

    block_n: int
    block_c: int
    num_warps: int


def tile() -> Tile:
    return Tile(32, 64, 4)


def aot_cases() -> Iterator[dict]:
    """Every shipped configuration for both chips; the dictionaries are described in `kernels.ahead_of_time`."""
    from . import triton_kernels

    blocks = tile()
    for arch in (80, 90):
        for dtype in ("bf16", "fp32"):
            for name, types, constexprs in (
                ("convolve", {"weight": dtype, "out": dtype}, {"TAPS": 3}),
                ("weight_gradient", {"grad": dtype, "out": "fp32"}, {}),
            ):
                yield {
                    "name": f"{name}-{dtype}-sm{arch}",
                    "group": name,
                    "fn": getattr(triton_kernels, name),
                    "types": {
                        "x_ptr": f"*{dtype}",
                        **{f"{argument}_ptr": f"*{kind}" for argument, kind in types.items()},
                        "edge_ptr": "*i32",
                        **dict.fromkeys(("N", "C", "positions"), "i32"),
                        **({"positions_per_split": "i32"} if name == "weight_gradient" else {}),
                    },
                    "constexprs": {
                        **constexprs,
                        "PAST": True,
                        "DOCUMENTS": True,
                        "DOUBLE": False,
                        "BLOCK_N": blocks.block_n,
                        "BLOCK_C": blocks.block_c,
                    },
                    "divisible_by_16": ["N", "C", "positions"],
                    "num_warps": blocks.num_warps,
                    "num_stages": 1,
                    "arch": arch,
                    "dtype": dtype,
                    "expects": {"mma": False, "async": False},
                }
