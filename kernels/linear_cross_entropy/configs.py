"""Tile shapes by dtype and width: a static table, so that a shape always runs the same code. No Triton is imported.

`aot_cases()` lists every configuration for the ahead-of-time tests, which hold each to a committed budget of registers,
spills and shared memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

# A row of this many logits is held in registers, so that it is read once; a longer one is read twice.
LONGEST_WHOLE_ROW = 32768


class RowTile(NamedTuple):
    """Tile of `gradient_rows`."""

    block_v: int
    whole_row: bool
    num_warps: int


class LseTile(NamedTuple):
    """Tile of `partial_lse`: tokens x vocabulary, in steps of block_e along the width."""

    block_t: int
    block_v: int
    block_e: int
    num_warps: int
    num_stages: int


def row_tile(vocabulary: int) -> RowTile:
    """32 logits a thread, 64 in the longest whole rows, which need 512 threads at 128 registers."""
    if vocabulary > LONGEST_WHOLE_ROW:
        return RowTile(4096, False, 8)
    block_v = max(128, 1 << (vocabulary - 1).bit_length())
    return RowTile(block_v, True, min(16, max(1, block_v // 1024)))


def lse_tile(dtype: str, width: int) -> LseTile:
    """`dtype` is Triton's name. Widths up to 256 keep the tokens' states on the chip while the vocabulary streams by.

    128 x 64 rather than 128 x 128: on sm_80 the wider tile needs 220 to 255 registers, and the traffic per product does
    not fall, because only the vocabulary is loaded again.
    """
    if dtype == "fp32":
        return LseTile(64, 64, 32, 8, 3)  # exact fp32 products have no matrix units: registers bound the tile
    return LseTile(128, 64, max(16, 1 << (width - 1).bit_length()) if width <= 256 else 64, 8, 3)


def aot_cases() -> Iterator[dict]:
    """Every shipped configuration for both chips; the dictionaries are described in `kernels.ahead_of_time`."""
    from . import triton_kernels

    for arch in (80, 90):
        for vocabulary in (512, 4096, 16384, 32768, 65536):
            for dtype in ("bf16", "fp32"):
                tile = row_tile(vocabulary)
                yield {
                    "name": f"gradient_rows-{dtype}-v{vocabulary}-sm{arch}",
                    "group": "gradient_rows",
                    "fn": triton_kernels.gradient_rows,
                    "types": {
                        "logits_ptr": f"*{dtype}",
                        "targets_ptr": "*i64",
                        "highest_ptr": "*fp32",
                        "excess_ptr": "*fp32",
                        "V": "i32",
                        "stride_c": "i32",
                    },
                    "constexprs": {"BLOCK_V": tile.block_v, "WHOLE_ROW": tile.whole_row},
                    "divisible_by_16": ["V", "stride_c"],
                    "num_warps": tile.num_warps,
                    "num_stages": 1,
                    "arch": arch,
                    "dtype": dtype,
                    "expects": {"mma": False, "async": False},
                }
        for dtype, width in (("bf16", 64), ("bf16", 128), ("bf16", 256), ("bf16", 512), ("fp16", 256), ("fp32", 256)):
            of_lse = lse_tile(dtype, width)
            yield {
                "name": f"partial_lse-{dtype}-e{width}-sm{arch}",
                "group": "partial_lse",
                "fn": triton_kernels.partial_lse,
                "types": {
                    **{f"{name}_ptr": f"*{dtype}" for name in ("hidden", "weight", "bias")},
                    "targets_ptr": "*i64",
                    **{f"{name}_ptr": "*fp32" for name in ("highest", "total", "target_logit")},
                    **dict.fromkeys(("T", "V", "stride_t", "stride_v", "v_per_split"), "i32"),
                },
                "constexprs": {
                    "E": width,
                    "HAS_BIAS": True,
                    "BLOCK_T": of_lse.block_t,
                    "BLOCK_V": of_lse.block_v,
                    "BLOCK_E": of_lse.block_e,
                },
                "divisible_by_16": ["V", "stride_t", "stride_v", "v_per_split"],
                "num_warps": of_lse.num_warps,
                "num_stages": of_lse.num_stages,
                "arch": arch,
                "dtype": dtype,
                "expects": {"mma": dtype != "fp32", "async": True},
            }
