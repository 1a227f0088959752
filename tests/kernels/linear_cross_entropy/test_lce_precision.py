"""Where digits get lost: an offset that all logits share, and fp16 gradients before their loss scale arrives."""

import pytest
import torch
import torch.nn.functional as F
from problems import make_problem

from kernels.linear_cross_entropy import linear_cross_entropy, linear_nll, linear_top_k

pytestmark = pytest.mark.usefixtures("strict_interpreter")


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5, 1e7])
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_an_offset_of_all_logits_costs_nothing(backend: str, offset: float) -> None:
    """As F.cross_entropy on the same rounded logits, in float64."""
    p = make_problem(24, 24, 101, ignored=0.0)
    hidden, weight = p.hidden.detach(), p.weight.detach()
    bias = torch.full((101,), offset)
    logits = hidden @ weight.T + bias
    right = F.cross_entropy(logits.double(), p.targets)
    for grad in (True, False):
        hidden.requires_grad_(grad)
        found = linear_cross_entropy(hidden, weight, p.targets, bias, backend=backend)
        # Under Triton the products are its own, and their last digit with them; at 1e7 that digit is a whole unit.
        tolerance = 3e-7 if backend == "torch" else max(3e-7, 2e-7 * offset)
        assert ((found - right).abs() / right).item() < tolerance


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_scores_keep_their_digits_too(offset: float) -> None:
    p = make_problem(24, 24, 101, ignored=0.0)
    hidden, weight, bias = p.hidden.detach(), p.weight.detach(), torch.full((101,), offset)
    log_p = (hidden @ weight.T + bias).double().log_softmax(-1)
    nll = -log_p.gather(1, p.targets[:, None])[:, 0]
    torch.testing.assert_close(linear_nll(hidden, weight, p.targets, bias)[0].double(), nll, rtol=3e-7, atol=3e-6)
    top = linear_top_k(hidden, weight, p.targets, bias, k=3)
    torch.testing.assert_close(top.nll.double(), nll, rtol=3e-7, atol=3e-6)
    torch.testing.assert_close(top.log_probabilities.double(), log_p.topk(3).values, rtol=3e-7, atol=3e-6)
    assert (top.log_probabilities <= 0).all()


def test_equal_logits_cost_log_v() -> None:
    for value in (1.0, 1e8):
        zeros, bias = torch.zeros(4, 8), torch.full((1000,), value)
        loss = linear_cross_entropy(zeros, torch.zeros(1000, 8), torch.arange(4), bias)
        assert float(loss) == pytest.approx(6.907755, abs=2e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_loss_scale_saves_fp16_gradients(backend: str, reduction: str) -> None:
    """Small gradients are made before the scale that lifts them over fp16's smallest numbers: they must wait for it."""
    tokens = 16_384 if backend == "torch" else 512
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 16, generator=generator).half().requires_grad_()
    weight = (torch.randn(64, 16, generator=generator) * 0.02).half().requires_grad_()
    targets = torch.randint(64, (tokens,), generator=generator)
    scale = 65536.0 if reduction != "sum" else 4.0
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    loss = linear_cross_entropy(hidden, weight, targets, reduction=reduction, backend=backend)
    (loss.mean() * scale).backward()
    right = F.cross_entropy(wide[0] @ wide[1].T, targets, reduction="sum" if reduction == "sum" else "mean")
    (right * scale).backward()
    for found, expected in zip((hidden, weight), wide):
        relative = (found.grad.double() - expected.grad).norm() / expected.grad.norm()
        assert found.grad.dtype == torch.float16 and relative < 1e-3
        assert (found.grad == 0).float().mean() < 0.01


def test_nothing_ignored_is_nothing_asked() -> None:
    """ignore_index=None: all rows count, and a target that is no token is still refused on a CPU."""
    p = make_problem(24, 24, 101, ignored=0.0)
    right = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias)
    assert torch.equal(linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, ignore_index=None), right)
    p.targets[3] = -100
    with pytest.raises(ValueError, match=r"targets\[3\] was -100; it must be a token id from 0 to 100"):
        linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, ignore_index=None)
