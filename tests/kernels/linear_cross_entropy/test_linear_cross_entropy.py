"""The PyTorch path against float64: value and gradient, over shapes, settings, dtypes and chunks."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import BOUND, assert_close, error, errors, make_problem

from kernels import onednn
from kernels.linear_cross_entropy import linear_cross_entropy, linear_nll
from kernels.linear_cross_entropy.reference import linear_cross_entropy_reference


def test_specification_is_pytorchs_cross_entropy():
    """The reference itself, where PyTorch has the same definition."""
    p = make_problem(dtype=torch.float64)
    logits = p.hidden @ p.weight.T + p.bias
    for reduction in ("mean", "sum", "none"):
        expected = F.cross_entropy(logits, p.targets, reduction=reduction)
        loss, _ = linear_cross_entropy_reference(p.hidden, p.weight, p.targets, p.bias, -100, reduction)
        assert error(loss, expected) < 1e-14


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    tokens=st.integers(1, 40),
    width=st.integers(1, 40),
    vocabulary=st.integers(2, 120),
    bias=st.booleans(),
    ignored=st.sampled_from([0.0, 0.3, 0.9]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    rows=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_value_and_gradient(tokens, width, vocabulary, bias, ignored, reduction, rows, seed):
    p = make_problem(tokens, width, vocabulary, bias=bias, ignored=ignored, seed=seed, dtype=torch.float64)
    report = errors(
        p,
        reduction=reduction,
        chunk_bytes=rows * vocabulary * 8,
        backend="torch",
    )
    # Not 1e-14: a confident row's gradient is the small difference of softmax and onehot.
    assert max(report.values()) < 1e-10, report


def test_a_vocabulary_of_one_has_nothing_to_learn():
    p = make_problem(vocabulary=1, ignored=0.0)
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="torch")
    assert loss.abs() < 1e-6
    assert max(g.abs().max() for g in torch.autograd.grad(loss, p.parameters)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_error_bounds_and_not_much_worse_than_pytorch(dtype, reduction):
    """At most 2x (loss) and 3x (gradients) the error of logits + cross_entropy in the same dtype."""
    p = make_problem(96, 128, 2000, dtype=dtype, scale=0.2)
    report = errors(p, reduction=reduction, chunk_bytes=25 * 2000 * 4, backend="torch")
    assert max(report.values()) <= BOUND[dtype], report
    logits = (p.hidden @ p.weight.T + p.bias).float()
    loss = F.cross_entropy(logits, p.targets, reduction=reduction)
    expected, _ = linear_cross_entropy_reference(p.hidden, p.weight, p.targets, p.bias, -100, reduction)
    assert report["loss"] <= 2 * error(loss, expected) + 2e-7
    for name, f, r in zip(
        ("hidden", "weight", "bias"),
        torch.autograd.grad(loss.sum(), p.parameters),
        torch.autograd.grad(expected.sum(), p.parameters),
    ):
        assert report[name] <= 3 * error(f, r) + 2e-7, name


def test_gradcheck():
    p = make_problem(6, 5, 7, dtype=torch.float64)
    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(
            lambda h, w, b, reduction=reduction: linear_cross_entropy(
                h, w, p.targets, b, reduction=reduction, backend="torch"
            ),
            p.parameters,
        )


def test_chunks_do_not_change_the_result():
    p = make_problem(tokens=50, dtype=torch.float64)

    def run(rows):
        loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, chunk_bytes=rows * 101 * 8, backend="torch")
        return loss, *torch.autograd.grad(loss, p.parameters)

    whole = run(1000)
    for rows in (1, 7, 39, 40, 41):
        for found, expected in zip(run(rows), whole):
            assert error(found, expected) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_every_time(dtype):
    p = make_problem(200, 64, 1000, dtype=dtype)
    results = []
    for _ in range(3):
        loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, chunk_bytes=1 << 17, backend="torch")
        results.append([loss, *torch.autograd.grad(loss, p.parameters)])
    for again in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, results[0]))


def test_ignored_rows_have_no_influence():
    """Whatever an ignored row holds, even NaN, the loss and the other gradients keep their bits; its own are 0."""
    p = make_problem(ignored=0.4)
    ignored = p.targets == -100
    assert 0 < ignored.sum() < len(ignored)
    poisoned = p.hidden.detach().masked_fill(ignored[:, None], float("nan")).requires_grad_()
    results = []
    for hidden in (p.hidden, poisoned):
        loss = linear_cross_entropy(hidden, p.weight, p.targets, p.bias, backend="torch")
        results.append([loss, *torch.autograd.grad(loss, [hidden, p.weight, p.bias])])
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert results[0][1][ignored].abs().max() == 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("tokens", [0, 5])
def test_nothing_to_predict_is_zero(reduction, tokens):
    p = make_problem(tokens)
    p.targets.fill_(-100)
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, reduction=reduction, backend="torch")
    assert loss.abs().sum() == 0
    assert all(x.abs().sum() == 0 for x in linear_nll(p.hidden, p.weight, p.targets, p.bias, backend="torch"))
    for gradient in torch.autograd.grad(loss.sum(), p.parameters):
        assert gradient.abs().sum() == 0
    with torch.no_grad():
        loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, reduction=reduction, backend="torch")
    assert loss.abs().sum() == 0


def test_custom_ignore_index():
    p = make_problem(ignored=0.0)
    p.targets[::3] = 7
    expected = F.cross_entropy(p.hidden @ p.weight.T + p.bias, p.targets, ignore_index=7)
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, ignore_index=7, backend="torch")
    torch.testing.assert_close(loss, expected)


def test_huge_and_forbidden_logits():
    """Logits of a thousand do not overflow, and a bias of -inf forbids a token."""
    p = make_problem(scale=100.0, ignored=0.0)
    p.targets[p.targets == 3] = 4
    with torch.no_grad():
        p.bias[3] = float("-inf")
    logits = p.hidden @ p.weight.T + p.bias
    assert logits.isfinite().sum(1).eq(100).all() and logits.abs().nan_to_num(posinf=0).max() > 1000
    assert_close(p, backend="torch")
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="torch")
    assert torch.autograd.grad(loss, p.bias)[0][3] == 0


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_frozen_arguments_get_no_gradient(frozen, reduction):
    p = make_problem()
    full = dict(zip(("hidden", "weight", "bias"), p.parameters))
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, reduction=reduction, backend="torch").sum()
    expected = dict(zip(full, torch.autograd.grad(loss, list(full.values()))))
    full[frozen].requires_grad_(False)
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, reduction=reduction, backend="torch").sum()
    loss.backward()
    for name, parameter in full.items():
        if name == frozen:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize("seed", [1.0, 0.25])
def test_backward_twice_adds_up(seed):
    """The gradients kept by the forward survive the first backward, although a seed of 1 hands them out uncopied."""
    p = make_problem()
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="torch")
    once = torch.autograd.grad(loss, p.parameters, torch.tensor(seed), retain_graph=True)
    once = [g.clone() for g in once]
    for _ in range(3):
        loss.backward(torch.tensor(seed), retain_graph=True)
    for parameter, gradient in zip(p.parameters, once):
        torch.testing.assert_close(parameter.grad, 3 * gradient)


def test_onednn_products_keep_float32_precision():
    """Where the faster library is taken at all, it must be exact to fp32."""
    torch.manual_seed(0)
    a, b = torch.randn(300, 256), torch.randn(500, 256)
    with onednn.exact_float32_products(a):
        product = a @ b.T
    assert error(product, a.double() @ b.double().T) < 1e-6


def test_onednn_is_asked_for_float32_alone_and_the_setting_does_not_leak(monkeypatch):
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "ieee"
        for dtype, inside in ((torch.float32, "bf16" if onednn.onednn_is_exact() else "ieee"), (torch.float64, "ieee")):
            with onednn.exact_float32_products(torch.zeros(1, dtype=dtype)):
                assert matmul.fp32_precision == inside
            assert matmul.fp32_precision == "ieee"
    finally:
        matmul.fp32_precision = before


def test_the_probe_finds_rounded_products(monkeypatch):
    """A library that rounds operands to bf16 sees ones where 1 + 2^-12 stands."""
    monkeypatch.setattr(torch, "full", lambda shape, value: torch.ones(shape))
    assert not onednn.onednn_is_exact.__wrapped__()
