"""Capped logits, z -> k tanh(z / k): loss, gradients and predictions against float64, on both paths."""

import pytest
import torch
from problems import BOUND, errors, make_problem
from strict_interpreter import strict

from kernels.linear_cross_entropy import linear_cross_entropy, linear_nll, linear_top_k

CAPS = (1.5, 20.0)


def capped(p, softcap):
    z = p.hidden.double() @ p.weight.double().T + p.bias.double()
    return softcap * torch.tanh(z / softcap)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("softcap", CAPS)
def test_value_and_gradient(softcap, reduction, dtype):
    p = make_problem(dtype=dtype)
    report = errors(p, softcap=softcap, z_loss=0.01, reduction=reduction, chunk_bytes=9 * 101 * 8, backend="torch")
    assert max(report.values()) <= 3 * BOUND[dtype], report


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("softcap", CAPS)
def test_triton(softcap, reduction):
    with strict(seed=1):
        report = errors(make_problem(), softcap=softcap, reduction=reduction, chunk_bytes=9 * 404, backend="triton")
    assert max(report.values()) <= BOUND[torch.float32], report


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_likelihoods_and_predictions(backend):
    p = make_problem(ignored=0.0)
    log_p = capped(p, 2.0).log_softmax(-1)
    expected = -log_p.gather(1, p.targets[:, None])[:, 0].float()
    with strict(seed=1):
        nll, _ = linear_nll(p.hidden, p.weight, p.targets, p.bias, softcap=2.0, backend=backend)
    torch.testing.assert_close(nll, expected.detach(), rtol=5e-6, atol=5e-6)
    top = linear_top_k(p.hidden, p.weight, p.targets, p.bias, k=4, softcap=2.0, chunk_bytes=9 * 101 * 4)
    torch.testing.assert_close(top.nll, expected.detach(), rtol=5e-6, atol=5e-6)
    torch.testing.assert_close(top.log_probabilities.double(), log_p.topk(4).values.detach(), rtol=1e-5, atol=1e-5)


def test_none_is_the_limit_of_a_high_cap():
    p = make_problem(dtype=torch.float64)
    plain, high = (linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, softcap=k) for k in (0.0, 1e6))
    assert abs(plain - high) < 1e-9 and plain != high


@pytest.mark.parametrize("softcap", [-1.0, float("inf"), float("nan")])
def test_what_is_no_cap_is_refused(softcap):
    p = make_problem()
    for call in (linear_cross_entropy, linear_top_k):
        with pytest.raises(ValueError, match="softcap was .*; it must be a finite number, more than 0, or 0 for none"):
            call(p.hidden, p.weight, p.targets, p.bias, softcap=softcap)


def test_not_with_label_smoothing():
    p = make_problem()
    with pytest.raises(ValueError, match=r"softcap was 5.0 and label_smoothing 0.1; one of them must be 0"):
        linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, softcap=5.0, label_smoothing=0.1)
