"""The Triton kernels in the strict interpreter: against float64, in every branch, and with bugs put in on purpose."""

from pathlib import Path

import pytest
import torch
from mutants import mutant
from strict_interpreter import strict

from kernels.attention.layout import layout_of
from kernels.one_sided import one_sided, triton_path
from kernels.one_sided.configs import Tile
from kernels.one_sided.reference import one_sided_reference

DOCUMENTS = torch.tensor([[0] * 5 + [1] * 4 + [2] * 2 + [-1] * 3, [0] * 14, [3] + [4] * 13], dtype=torch.int32)
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 6e-4}
CHANNELS = 10


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Strict, and tiles that a small problem crosses in both directions."""
    monkeypatch.setattr(triton_path, "tile", lambda: Tile(4, 4, 1))
    with strict(seed=1):
        yield


def problem(taps: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 14, CHANNELS), (taps, CHANNELS), (3, 14, CHANNELS))
    return [torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes]


def relative_error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.double() - right).detach().norm() / right.detach().norm())


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("side", ["past", "future"])
def test_value_and_gradient(side: str, taps: int, packed: bool, dtype: torch.dtype) -> None:
    documents = DOCUMENTS if packed else None
    x, weight, seed = problem(taps, dtype)
    ours, exact = ([t.to(d).requires_grad_() for t in (x, weight)] for d in (dtype, torch.float64))
    found = one_sided(*ours, side, documents, backend="triton")
    right = one_sided_reference(*exact, documents, side)
    assert found.dtype == dtype
    gradients = zip(torch.autograd.grad(found, ours, seed), torch.autograd.grad(right, exact, seed.double()))
    for a, b in [(found, right), *gradients]:
        assert relative_error(a, b) <= BOUNDS[dtype]


@pytest.mark.parametrize("splits", [1, 2, 3, 100])
@pytest.mark.parametrize("side", ["past", "future"])
def test_splits_of_the_positions(side: str, splits: int) -> None:
    x, weight, seed = problem(3, torch.float32)
    found = triton_path.weight_gradient(seed, x, 3, side == "past", layout_of(DOCUMENTS), splits)
    exact = weight.double().requires_grad_()
    right = one_sided_reference(x, exact, DOCUMENTS, side)
    assert relative_error(found, torch.autograd.grad(right, exact, seed.double())[0]) <= 1e-6


def test_the_other_side_and_other_documents_change_no_bit_not_even_by_nan() -> None:
    x, weight, _ = problem(3, torch.float32)
    x, documents = x[:1], DOCUMENTS[:1]
    for side in ("past", "future"):
        before = one_sided(x, weight, side, documents, backend="triton")
        for position in range(14):
            changed = x.clone()
            changed[0, position] = float("nan")
            after = one_sided(changed, weight, side, documents, backend="triton")
            for j in range(14):
                distance = j - position if side == "past" else position - j
                same = DOCUMENTS[0, j] == DOCUMENTS[0, position] and DOCUMENTS[0, position] >= 0
                sees = j == position or (0 < distance <= 3 and bool(same))
                assert torch.equal(before[0, j], after[0, j]) == (not sees), (side, position, j)


def test_every_order_of_programs_gives_the_same_bits() -> None:
    x, weight, seed = problem(3, torch.float32)
    runs = []
    for order in range(3):
        with strict(order):
            dweight = triton_path.weight_gradient(seed, x, 3, True, layout_of(DOCUMENTS), 3)
            runs.append((triton_path.convolve(x, weight, True, layout_of(DOCUMENTS)), dweight))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0]))


def test_what_lies_apart_in_memory_and_nothing_at_all() -> None:
    x, weight, seed = problem(3, torch.float32)
    apart, across = x.transpose(0, 1).contiguous().transpose(0, 1), weight.T.contiguous().T
    assert torch.equal(
        one_sided(apart, across, "past", backend="triton"), one_sided(x, weight, "past", backend="triton")
    )
    assert one_sided(x[:0], weight, "past", backend="triton").shape == (0, 14, CHANNELS)
    assert triton_path.weight_gradient(seed[:0], x[:0], 3, True, None).eq(0).all()


KERNELS, LAUNCH = "triton_kernels.py", "triton_path.py"
SOURCES = (KERNELS, LAUNCH, "configs.py")
MUTATIONS = {
    "documents are not closed at their start": (KERNELS, "seen = n - t >= edge", "seen = n - t >= 0"),
    "documents are not closed at their end": (KERNELS, "seen = n + t < edge", "seen = n + t < N"),
    "a document is a position too long": (KERNELS, "n + t < edge", "n + t <= edge"),
    "rows of the batch run on": (KERNELS, "n = p % N", "n = p"),
    "positions beyond the last are read": (KERNELS, "return rows & seen", "return seen"),
    "the past is the future": (KERNELS, "step = -t if PAST else t", "step = t"),
    "the weight of the position itself": (KERNELS, "(t - 1) * C + c", "t * C + c"),
    "one tap too few": (KERNELS, "tl.static_range(1, TAPS + 1)", "tl.static_range(1, TAPS)"),
    "loads forget other": (KERNELS, ", other=0.0).to(wide)\n        w", ").to(wide)\n        w"),
    "channels beyond the last": (KERNELS, "rows, channels = p < positions, c < C", "rows, channels = p < positions, c < C + 4"),
    "a split reads the next one": (KERNELS, "last = tl.minimum(positions, first + positions_per_split)", "last = positions"),
    "the distances share one position": (KERNELS, "(split * tl.num_programs(1) + t - 1)", "(split * tl.num_programs(1))"),
    "sums in the narrow dtype's width": (KERNELS, "tl.float64 if DOUBLE else tl.float32", "tl.float32"),
    "the edges of the other side": (LAUNCH, "layout.start if past else layout.end", "layout.end if past else layout.start"),
    "the grid is a tile short": (LAUNCH, "x.shape[1], tile().block_n), tri", "x.shape[1] - 4, tile().block_n), tri"),
    "channels a tile short": (LAUNCH, "triton.cdiv(x.shape[2], tile().block_c)", "max(1, x.shape[2] // tile().block_c)"),
}  # fmt: skip


def is_right(path) -> bool:
    """On a few small problems, in the value and in both gradients."""
    path.tile = lambda: Tile(4, 4, 1)
    x, weight, seed = problem(3, torch.float64)
    try:
        for documents in (None, DOCUMENTS):
            layout = None if documents is None else layout_of(documents)
            for side in ("past", "future"):
                exact = [t.clone().requires_grad_() for t in (x, weight)]
                right = one_sided_reference(*exact, documents, side)
                dx, dweight = torch.autograd.grad(right, exact, seed)
                past = side == "past"
                found = (
                    (path.convolve(x, weight, past, layout), right),
                    (path.convolve(seed, weight, not past, layout), dx),
                    (path.weight_gradient(seed, x, 3, past, layout, 3), dweight),
                )
                if not all(relative_error(a, b) <= 1e-12 for a, b in found):
                    return False
        return True
    except Exception:  # the strict interpreter's faults, and whatever else a bug leads to
        return False


@pytest.mark.kernels
def test_unchanged_sources_are_right(tmp_path: Path) -> None:
    assert is_right(mutant(tmp_path, "one_sided", SOURCES))


@pytest.mark.kernels
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_bug_is_seen(tmp_path: Path, name: str) -> None:
    assert not is_right(mutant(tmp_path, "one_sided", SOURCES, name, *MUTATIONS[name]))
