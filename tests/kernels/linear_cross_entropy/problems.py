"""One problem for every test of this folder, and how far an answer may be from float64."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.linear_cross_entropy import linear_cross_entropy, linear_nll
from kernels.linear_cross_entropy.reference import linear_cross_entropy_reference

# Relative Frobenius error of loss and gradients against float64.
BOUND = {torch.float64: 1e-12, torch.float32: 5e-6, torch.float16: 1.5e-3, torch.bfloat16: 1e-2}


@dataclass
class Problem:
    hidden: Tensor  # (T, E)
    weight: Tensor  # (V, E)
    targets: Tensor  # (T,)
    bias: Tensor | None  # (V,)

    @property
    def parameters(self) -> list[Tensor]:
        return [p for p in (self.hidden, self.weight, self.bias) if p is not None]


def make_problem(
    tokens=37, width=24, vocabulary=101, *, bias=True, ignored=0.2, dtype=torch.float32, seed=0, scale=0.5
) -> Problem:
    """Normal states, a table scaled so that probabilities are far from uniform, a share of ignored targets."""
    torch.manual_seed(seed)
    targets = torch.randint(0, vocabulary, (tokens,))
    targets[torch.rand(tokens) < ignored] = -100
    return Problem(
        torch.randn(tokens, width).to(dtype).requires_grad_(),
        (scale * torch.randn(vocabulary, width)).to(dtype).requires_grad_(),
        targets,
        torch.randn(vocabulary).to(dtype).requires_grad_() if bias else None,
    )


def error(found: Tensor, expected: Tensor) -> float:
    """Relative Frobenius error; absolute where nothing is expected, infinite where a number is missing."""
    assert found.shape == expected.shape
    distance, size = (found.double() - expected.double()).norm().item(), expected.double().norm().item()
    if distance != distance:  # NaN would lose every comparison and pass
        return float("inf")
    return distance / size if size else distance


def errors(problem: Problem, *, reduction="mean", **execution) -> dict[str, float]:
    """Errors of the loss and every gradient, of rows also of the log-sum-exp, against the specification."""
    p = problem
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, reduction=reduction, **execution)
    expected, expected_lse = linear_cross_entropy_reference(p.hidden, p.weight, p.targets, p.bias, -100, reduction)
    seed = torch.rand(loss.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    found = torch.autograd.grad(loss, p.parameters, seed.to(loss.dtype))
    right = torch.autograd.grad(expected, p.parameters, seed.double())
    report = {"loss": error(loss, expected)}
    if reduction == "none":
        report["lse"] = error(linear_nll(p.hidden, p.weight, p.targets, p.bias, **execution)[1], expected_lse)
    report |= {name: error(f, r) for name, f, r in zip(("hidden", "weight", "bias"), found, right)}
    return report


def assert_close(problem: Problem, factor=1.0, **settings) -> None:
    """Every error within the bound of the problem's dtype."""
    bound = factor * BOUND[problem.hidden.dtype]
    report = errors(problem, **settings)
    assert max(report.values()) <= bound, f"above {bound:.1e}: {report}"
