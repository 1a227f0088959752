"""A second derivative is right, or it is an error that says so: never a silent zero."""

import pytest
import torch

from kernels.attention import attention
from kernels.linear_cross_entropy import linear_cross_entropy


def inputs(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 4])
def test_attention_says_so(threads: int, rows: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        q, k, v = inputs(*[(rows, 2, 5, 16)] * 3)
        out = attention(q, k, v, "exclude_self", backend="torch")
        (gradient,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
        with pytest.raises(RuntimeError, match="attention has no second derivative"):
            gradient.square().sum().backward()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_linear_cross_entropy_says_so(reduction: str) -> None:
    hidden, weight, bias = inputs((6, 8), (11, 8), (11,))
    loss = linear_cross_entropy(hidden, weight, torch.arange(6), bias, reduction=reduction, backend="torch").sum()
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="linear_cross_entropy has no second derivative"):
        (loss + gradient.square().sum()).backward()


def test_the_reference_has_one() -> None:
    q, k, v = inputs(*[(1, 2, 5, 16)] * 3)
    assert torch.autograd.gradgradcheck(lambda *x: attention(*x, "exclude_self", backend="reference"), (q, k, v))


def test_a_graph_that_nobody_differentiates_is_no_error() -> None:
    """create_graph=True alone, as for a norm that is only looked at."""
    q, k, v = inputs(*[(1, 2, 5, 16)] * 3)
    out = attention(q, k, v, "full", backend="torch")
    (looked_at,) = torch.autograd.grad(out.sum(), v, create_graph=True)
    (plain,) = torch.autograd.grad(attention(q, k, v, "full", backend="torch").sum(), v)
    assert torch.equal(looked_at, plain)
