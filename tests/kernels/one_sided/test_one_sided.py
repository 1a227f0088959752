"""The convolutions of one side and of both against their float64 specification, and to the bit: nothing that must not be seen."""

import pytest
import torch

from kernels.one_sided import one_sided, two_sided
from kernels.one_sided.reference import one_sided_reference

DOCUMENTS = torch.tensor([[0] * 5 + [1] * 4 + [2] * 2 + [-1] * 3, [0] * 14, [3] + [4] * 13], dtype=torch.int32)
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def inputs(taps: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 14, 6), (taps, 6), (3, 14, 6))
    return tuple(torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("taps", [1, 3, 20])
@pytest.mark.parametrize("side", ["past", "future"])
def test_value_and_gradient(side: str, taps: int, packed: bool, dtype: torch.dtype) -> None:
    documents = DOCUMENTS if packed else None
    x, weight, seed = inputs(taps, dtype)
    ours, exact = ([t.to(d).requires_grad_() for t in (x, weight)] for d in (dtype, torch.float64))
    found, right = one_sided(*ours, side, documents), one_sided_reference(*exact, documents, side)
    assert found.dtype == dtype
    gradients = zip(torch.autograd.grad(found, ours, seed), torch.autograd.grad(right, exact, seed.double()))
    for a, b in [(found, right), *gradients]:
        assert (a.double() - b).norm() <= BOUNDS[dtype] * b.norm()


@pytest.mark.parametrize("side", ["past", "future"])
def test_the_other_side_and_other_documents_change_no_bit(side: str) -> None:
    x, weight, _ = inputs(3, torch.float32)
    before = one_sided(x, weight, side, DOCUMENTS)
    for position in range(14):
        changed = x.clone()
        changed[0, position] = 100 * torch.randn(6)
        after = one_sided(changed, weight, side, DOCUMENTS)
        for j in range(14):
            distance = j - position if side == "past" else position - j
            same = DOCUMENTS[0, j] == DOCUMENTS[0, position] and DOCUMENTS[0, position] >= 0
            sees = j == position or (0 < distance <= 3 and bool(same))
            assert torch.equal(before[0, j], after[0, j]) == (not sees), (position, j)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("taps", [1, 2, 3, 20])
def test_both_sides(taps: int, packed: bool, dtype: torch.dtype) -> None:
    documents = DOCUMENTS if packed else None
    x, past, seed = inputs(taps, dtype)
    weight = torch.stack([past, past.flip(1) - 1])
    ours, exact = ([t.to(d).requires_grad_() for t in (x, weight)] for d in (dtype, torch.float64))
    found = two_sided(*ours, documents)
    right = sum(one_sided_reference(exact[0], w, documents, side) for w, side in zip(exact[1], ("past", "future")))
    right = right - exact[0]
    assert found.dtype == dtype
    gradients = zip(torch.autograd.grad(found, ours, seed), torch.autograd.grad(right, exact, seed.double()))
    for a, b in [(found, right), *gradients]:
        assert (a.double() - b).norm() <= BOUNDS[dtype] * b.norm()


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_both_sides_hold_no_bit_of_other_documents_or_of_positions_farther_than_the_taps(dtype: torch.dtype) -> None:
    x, past, _ = inputs(2, dtype)
    weight = torch.stack([past, past - 1])
    before = two_sided(x, weight, DOCUMENTS)
    for row in range(3):
        for position in range(14):
            changed = x.clone()
            changed[row, position] = float("nan")
            after = two_sided(changed, weight, DOCUMENTS)
            for j in range(14):
                same = bool(DOCUMENTS[row, j] == DOCUMENTS[row, position] and DOCUMENTS[row, position] >= 0)
                sees = j == position or (abs(j - position) <= 2 and same)
                assert torch.equal(before[row, j], after[row, j]) == (not sees), (row, position, j)
            others = [r for r in range(3) if r != row]
            assert torch.equal(before[others], after[others])


def test_both_sides_of_nothing_and_of_one_position() -> None:
    x, past, _ = inputs(2, torch.float32)
    weight = torch.stack([past, past])
    assert two_sided(x[:0], weight).shape == (0, 14, 6)
    assert torch.equal(two_sided(x[:, :1], weight, DOCUMENTS[:, :1]), x[:, :1])


def test_under_autocast_and_twice_differentiated() -> None:
    x, weight, _ = (t.float().requires_grad_() for t in inputs(3))
    with torch.autocast("cpu", torch.bfloat16):
        out = one_sided(x, weight, "past")
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert x.grad.dtype == torch.float32
    (gradient,) = torch.autograd.grad(one_sided(x, weight, "past").square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="one_sided has no second derivative"):
        gradient.sum().backward()
    both = two_sided(x, weight[None].expand(2, -1, -1)).square().sum()
    (gradient,) = torch.autograd.grad(both, x, create_graph=True)
    with pytest.raises(RuntimeError, match="two_sided has no second derivative"):
        gradient.sum().backward()


def test_bad_input_is_named() -> None:
    x, weight, _ = inputs(3)
    with pytest.raises(ValueError, match="side was 'left'; it must be past or future"):
        one_sided(x, weight, "left")
    with pytest.raises(ValueError, match=r"they must be \(B, N, C\) and \(taps, C\)"):
        one_sided(x, weight[:, :2], "past")
    with pytest.raises(ValueError, match=r"they must be \(B, N, C\) and \(2, taps, C\)"):
        two_sided(x, weight)
