"""The Triton kernels, run strictly in the interpreter, against the float64 specification.

Most cases use tiles of 32 rows by 16 keys, so that short sequences cross many tiles; the tiles that ship run too. The
exhaustive matrix is marked `kernels`.
"""

import pytest
import torch
from attention_cases import KINDS, assert_close, problem

from kernels.attention import triton_path
from kernels.attention.configs import Config

pytestmark = pytest.mark.usefixtures("strict_interpreter")

TILE = 32
SIZES = [1, 2, TILE - 1, TILE, TILE + 1]
LAYOUTS = {
    "whole": {"b": 1, "n": TILE + 17},
    "padded": {"b": 2, "n": TILE + 8, "lengths": [[TILE + 1], [2]]},
    "packed": {"b": 1, "n": sum(SIZES) + 3, "lengths": [SIZES]},
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(triton_path, "config", lambda kernel, *_: Config(TILE, 16, 4, 1))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
def test_packed_documents_around_a_tile(kind):
    assert_close(problem(kind, h=1, **LAYOUTS["packed"]), "triton")


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
def test_whole_rows_in_bfloat16(kind):
    assert_close(problem(kind, h=2, dtype=torch.bfloat16, **LAYOUTS["whole"]), "triton", compare=True)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", ["exclude_self", "two:before", "union"])
def test_padded_rows_in_float16(kind):
    assert_close(problem(kind, h=2, dtype=torch.float16, width=48, **LAYOUTS["padded"]), "triton", compare=True)


@pytest.mark.parametrize("kind", ["exclude_self", "two:after", "union"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_tiles_that_ship(kind, dtype):
    assert_close(problem(kind, b=1, h=1, n=150, width=64, dtype=dtype), "triton")


@pytest.mark.kernels
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_everything_with_small_tiles(kind, layout, width, dtype):
    assert_close(problem(kind, h=2, width=width, dtype=dtype, **LAYOUTS[layout]), "triton", compare=True)


@pytest.mark.kernels
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [*SIZES, 2 * TILE, 2 * TILE + 1])
def test_every_length_of_a_whole_row(kind, n):
    assert_close(problem(kind, b=2, h=1, n=n), "triton")


@pytest.mark.kernels
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_everything_with_the_tiles_that_ship(kind, width, dtype, arch, monkeypatch):
    shipped = triton_path.config
    monkeypatch.setattr(triton_path, "config", lambda kernel, _, *rest: shipped(kernel, arch, *rest))
    lengths = [[1, 63, 64, 65, 130, 2]]
    assert_close(problem(kind, b=1, h=1, n=340, width=width, dtype=dtype, lengths=lengths), "triton")


@pytest.mark.kernels
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("block_m, block_n", [(16, 16), (16, 64), (64, 16), (32, 32)])
@pytest.mark.parametrize("kind", KINDS)
def test_tile_shapes(kind, block_m, block_n, monkeypatch):
    monkeypatch.setattr(triton_path, "config", lambda *_: Config(block_m, block_n, 4, 1))
    assert_close(problem(kind, b=2, h=1, n=70, lengths=[[33, 1, 36], [50, 16]]), "triton")
