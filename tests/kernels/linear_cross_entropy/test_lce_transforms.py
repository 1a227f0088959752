"""autocast, torch.compile and gradient accumulation leave the mathematics alone."""

import pytest
import torch
import torch.nn.functional as F
from problems import error, make_problem

from kernels.linear_cross_entropy import linear_cross_entropy, linear_nll
from kernels.linear_cross_entropy.operators import loss_and_gradients, losses


def test_operators_pass_pytorchs_own_checks():
    """Schema, fake implementations and autograd registration agree with what the operators do."""
    p = make_problem(7, 4, 11)
    run = (torch.float32, 3 * 11 * 4, "torch")
    inputs = p.hidden, p.weight, p.targets, p.bias, -100
    torch.library.opcheck(loss_and_gradients, (*inputs, True, [True] * 3, *run))
    torch.library.opcheck(losses, (*inputs, *run))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_autocast(reduction):
    """Products in bf16, everything else in fp32: as close as plain autocast, gradients in the parameters' dtype."""
    p = make_problem(64, 64, 400, scale=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, reduction=reduction, backend="torch")
        plain = F.cross_entropy(F.linear(p.hidden, p.weight, p.bias), p.targets, reduction=reduction)
    exact = F.cross_entropy(F.linear(p.hidden, p.weight, p.bias), p.targets, reduction=reduction)
    assert loss.dtype == torch.float32
    assert 1e-6 < error(loss, exact) < 5e-3  # bf16 products were really used
    if reduction == "none":  # rounding errors of a mean cancel by luck
        assert error(loss, exact) <= 1.5 * error(plain, exact)
    found, rough, right = (torch.autograd.grad(x.sum(), p.parameters) for x in (loss, plain, exact))
    for f, r, e in zip(found, rough, right):
        assert f.dtype == torch.float32
        assert error(f, e) <= 1.5 * error(r, e) + 1e-6


def test_autocast_takes_mixed_arguments():
    """Under autocast the states arrive in bf16 and the table in fp32; each gets its gradient back in its own dtype."""
    p = make_problem(bias=False)
    hidden = p.hidden.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, p.weight, p.targets, backend="torch")
    dhidden, dweight = torch.autograd.grad(loss, (hidden, p.weight))
    assert dhidden.dtype == torch.bfloat16 and dweight.dtype == torch.float32


def test_autocast_changes_only_the_products():
    """In the autocast dtype already, arguments give the same bits inside as outside: no other sum is narrowed."""
    p = make_problem(dtype=torch.bfloat16)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="torch")
        results.append([loss, *torch.autograd.grad(loss, p.parameters)])
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compile_in_one_graph(reduction):
    """Without a named backend: the operator chooses when it runs."""
    p = make_problem()

    def step(hidden, weight, bias):
        loss = linear_cross_entropy(hidden * 2, weight, p.targets, bias, reduction=reduction)
        return 3 * loss.sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(*p.parameters)
    eager = step(*p.parameters)
    torch.testing.assert_close(compiled, eager)
    for a, b in zip(*(torch.autograd.grad(x, p.parameters) for x in (compiled, eager))):
        torch.testing.assert_close(a, b)


def test_micro_batches_add_up_to_the_batch():
    p = make_problem(60, ignored=0.0)
    whole = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="torch")
    expected = torch.autograd.grad(whole, [p.weight, p.bias])
    for part in range(3):
        rows = slice(20 * part, 20 * part + 20)
        loss = linear_cross_entropy(p.hidden[rows], p.weight, p.targets[rows], p.bias, backend="torch")
        (loss / 3).backward()
    for parameter, gradient in zip([p.weight, p.bias], expected):
        torch.testing.assert_close(parameter.grad, gradient)


def test_strided_states_and_tied_table():
    """A slice of a larger tensor for hidden, and a table that is also the embedding."""
    torch.manual_seed(0)
    table = torch.randn(50, 8, requires_grad=True)
    wide = torch.randn(12, 16, requires_grad=True)
    tokens = torch.randint(0, 50, (12,))

    def loss(head):
        states = wide[:, ::2] + F.embedding(tokens, table)
        return head(states)

    found = loss(lambda h: linear_cross_entropy(h, table, tokens, backend="torch"))
    expected = loss(lambda h: F.cross_entropy(h @ table.T, tokens))
    for a, b in zip(*(torch.autograd.grad(x, [wide, table]) for x in (found, expected))):
        torch.testing.assert_close(a, b)


def test_scoring_inside_no_grad_equals_training_loss():
    p = make_problem()
    nll, _ = linear_nll(p.hidden, p.weight, p.targets, p.bias, backend="torch")
    with torch.no_grad():
        quiet = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="torch")
    training = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="torch")
    torch.testing.assert_close(quiet, training.detach())
    torch.testing.assert_close(nll.sum() / (p.targets >= 0).sum(), training.detach())
