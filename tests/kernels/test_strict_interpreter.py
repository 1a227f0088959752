"""The strict interpreter tests itself: each rule catches a kernel that breaks it and lets an honest one pass."""

import numpy as np
import pytest
import strict_interpreter
import torch
import triton
import triton.language as tl
from strict_interpreter import KernelFault, strict
from triton.runtime.interpreter import InterpreterError


@triton.jit
def copy(X, Y, n, BLOCK: tl.constexpr, MASK: tl.constexpr, OTHER: tl.constexpr, SHIFT: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if not MASK:
        x = tl.load(X + at)
    elif OTHER:
        x = tl.load(X + at, mask=at < n, other=0)
    else:
        x = tl.load(X + at, mask=at < n)
    tl.store(Y + at + SHIFT, x, mask=at < n)


def launch(x, n=None, mask=True, other=True, shift=0, room=0, block=16):
    n = x.numel() if n is None else n
    y = torch.zeros(x.numel() + room, dtype=x.dtype)
    copy[(-(-n // block),)](x, y, n, BLOCK=block, MASK=mask, OTHER=other, SHIFT=shift)
    return y


def faults(match):
    return pytest.raises((KernelFault, InterpreterError), match=match)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32])
def test_an_honest_kernel_passes(dtype):
    x = torch.arange(20).to(dtype)
    with strict():
        assert torch.equal(launch(x), x)


def test_a_load_beyond_the_tensor_is_caught():
    with strict(), faults("load out of bounds: 12 of 16"):
        launch(torch.zeros(20), mask=False)


def test_a_load_beyond_a_view_is_caught_though_its_storage_is_larger():
    with strict(), faults("load out of bounds"):
        launch(torch.zeros(64)[:20], mask=False)


def test_a_store_beyond_the_tensor_is_caught():
    with strict(), faults("store out of bounds: 1 of"):
        launch(torch.zeros(20), shift=1)


@triton.jit
def loads_outside_then_stores_inside(X, Y, n, BLOCK: tl.constexpr, OTHER: tl.constexpr):
    at = tl.arange(0, BLOCK)
    if OTHER:
        x = tl.load(X + at, mask=at < n, other=0)
    else:
        x = tl.load(X + at, mask=at < n)
    tl.store(Y + at, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_lane_that_was_not_loaded_is_nan(dtype):
    x, y, z = torch.ones(5, dtype=dtype), torch.zeros(16, dtype=dtype), torch.zeros(16, dtype=dtype)
    with strict():
        loads_outside_then_stores_inside[(1,)](x, y, 5, BLOCK=16, OTHER=False)
        loads_outside_then_stores_inside[(1,)](x, z, 5, BLOCK=16, OTHER=True)
    assert y[:5].eq(1).all() and y[5:].isnan().all()
    assert z[:5].eq(1).all() and z[5:].eq(0).all()


def test_an_integer_lane_that_was_not_loaded_is_the_largest():
    y = torch.zeros(16, dtype=torch.int32)
    with strict():
        loads_outside_then_stores_inside[(1,)](torch.ones(5, dtype=torch.int32), y, 5, BLOCK=16, OTHER=False)
    assert y[5:].eq(2**31 - 1).all()


@triton.jit
def arithmetic(X, Y, Z, OUT, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x, y, z = tl.load(X + at), tl.load(Y + at), tl.load(Z + at)
    tl.store(OUT + at, x * y + z)
    tl.store(OUT + BLOCK + at, tl.where(x > y, x, -y))
    tl.store(OUT + 2 * BLOCK + at, (x.to(tl.float32) / 3).to(x.dtype))


def test_bfloat16_rounds_like_torch():
    x, y, z = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    out = torch.zeros(192, dtype=torch.bfloat16)
    with strict():
        arithmetic[(1,)](x, y, z, out, BLOCK=64)
    assert torch.equal(out, torch.cat([x * y + z, torch.where(x > y, x, -y), (x.float() / 3).bfloat16()]))


def test_rounding_to_bfloat16_is_to_nearest_even():
    values = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8, float("inf"), 0.0, 3e38])
    bits = torch.from_numpy(strict_interpreter._narrow(values.numpy()).view(np.int16))
    assert torch.equal(bits, values.bfloat16().view(torch.int16))


@triton.jit
def product(A, B, OUT, K: tl.constexpr, PRECISION: tl.constexpr):
    r, k = tl.arange(0, 16), tl.arange(0, K)
    a = tl.load(A + r[:, None] * K + k[None, :])
    b = tl.load(B + k[:, None] * 16 + r[None, :])
    tl.store(OUT + r[:, None] * 16 + r[None, :], tl.dot(a, b, input_precision=PRECISION))


def multiply(dtype, terms, precision="ieee"):
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(16, terms, generator=g).to(dtype), torch.randn(terms, 16, generator=g).to(dtype)
    out = torch.zeros(16, 16)
    with strict():
        product[(1,)](a, b, out, K=terms, PRECISION=precision)
    exact = a.double() @ b.double()
    return ((out - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_are_right(dtype):
    assert multiply(dtype, 64) < 1e-6  # operands are exact in their dtype, sums are float32


def test_tf32_shows():
    assert multiply(torch.float32, 64, "tf32") > 1e-5


def test_a_product_too_short_for_matrix_units_is_refused():
    with faults("8 terms"):
        multiply(torch.float32, 8)


@triton.jit
def stores(Y, n, BLOCK: tl.constexpr, STEP: tl.constexpr, FOLD: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(Y + (tl.program_id(0) * STEP + at) // FOLD, at.to(tl.float32))


def test_two_programs_must_not_store_to_one_address():
    with strict():
        stores[(3,)](torch.zeros(48), 48, BLOCK=16, STEP=16, FOLD=1)
    with strict(), faults("one program stores is stored by another"):
        stores[(3,)](torch.zeros(48), 48, BLOCK=16, STEP=15, FOLD=1)


def test_one_store_must_not_write_an_address_twice():
    with strict(), faults("same address more than once"):
        stores[(1,)](torch.zeros(48), 48, BLOCK=16, STEP=16, FOLD=2)


@triton.jit
def neighbour(X, BLOCK: tl.constexpr, STEP: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(X + at + STEP)
    tl.store(X + at, x + 1)


@pytest.mark.parametrize("seed", range(4))
def test_no_program_may_load_what_another_stores(seed):
    with strict(seed):
        neighbour[(1,)](torch.zeros(32), BLOCK=16, STEP=16)
    with strict(seed), faults("by another"):
        neighbour[(2,)](torch.zeros(48), BLOCK=16, STEP=16)


@triton.jit
def order(OUT, COUNT):
    seen = tl.load(COUNT)
    tl.store(OUT + tl.program_id(0), seen)
    tl.store(COUNT, seen + 1)


def test_programs_run_in_shuffled_order(monkeypatch):
    monkeypatch.setattr(strict_interpreter._Memory, "visit", lambda *_: None)  # the counter below is a race
    seen = []
    for seed in range(3):
        out = torch.zeros(8, dtype=torch.int32)
        with strict(seed):
            order[(8,)](out, torch.zeros(1, dtype=torch.int32))
        assert out.sort().values.tolist() == list(range(8))
        seen.append(out.tolist())
    assert list(range(8)) not in seen and seen[0] != seen[1]


@triton.jit
def asserts(X):
    tl.device_assert(tl.load(X) > 0, "x must be positive")


def test_device_asserts_are_on():
    with strict():
        asserts[(1,)](torch.ones(1))
    with strict(), pytest.raises((AssertionError, InterpreterError), match="x must be positive"):
        asserts[(1,)](torch.zeros(1))


@triton.jit
def adds(X):
    tl.atomic_add(X, 1.0)


def test_atomics_are_refused():
    with strict(), faults("atomic"):
        adds[(2,)](torch.zeros(1))


@triton.jit
def total(X, OUT, BLOCK: tl.constexpr):
    tl.store(OUT, tl.sum(tl.load(X + tl.arange(0, BLOCK)), 0).to(tl.float32))


def test_a_reduction_in_bfloat16_is_refused():
    with strict(), faults("reduction in bfloat16"):
        total[(1,)](torch.ones(16, dtype=torch.bfloat16), torch.zeros(1), BLOCK=16)


def test_another_version_of_triton_fails_loudly(monkeypatch):
    monkeypatch.setattr(triton, "__version__", "3.8.0")
    with pytest.raises(RuntimeError, match=r"written for Triton 3\.7\.1, this is 3\.8\.0"), strict():
        pass


def test_everything_is_put_back():
    before = dict(vars(strict_interpreter.Builder))
    with strict():
        assert dict(vars(strict_interpreter.Builder)) != before
    assert dict(vars(strict_interpreter.Builder)) == before
