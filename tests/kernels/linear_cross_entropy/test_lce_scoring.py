"""Likelihoods and predictions for evaluation."""

import pytest
import torch
from problems import make_problem

from kernels.linear_cross_entropy import linear_nll, linear_top_k


def dense_log_probabilities(p):
    logits = p.hidden.double() @ p.weight.double().T + (0 if p.bias is None else p.bias.double())
    return logits.log_softmax(-1), logits.logsumexp(-1)


@pytest.mark.parametrize("bias", [True, False])
def test_nll(bias):
    p = make_problem(bias=bias)
    log_p, lse = dense_log_probabilities(p)
    kept = p.targets >= 0
    nll, found_lse = linear_nll(p.hidden, p.weight, p.targets, p.bias, chunk_bytes=9 * 101 * 4, backend="torch")
    assert not nll.requires_grad and nll.dtype == torch.float32
    expected = -log_p.gather(1, p.targets.clamp(min=0)[:, None])[:, 0]
    torch.testing.assert_close(nll.double()[kept], expected[kept], rtol=5e-6, atol=5e-6)
    torch.testing.assert_close(found_lse.double()[kept], lse[kept], rtol=5e-6, atol=5e-6)
    assert nll[~kept].abs().sum() == 0


@pytest.mark.parametrize("k", [1, 4, 101])
def test_top_k(k):
    p = make_problem()
    log_p, lse = dense_log_probabilities(p)
    top = linear_top_k(p.hidden, p.weight, p.targets, p.bias, k=k, chunk_bytes=9 * 101 * 4)
    values, indices = log_p.topk(k, -1)
    assert torch.equal(top.indices, indices)
    torch.testing.assert_close(top.log_probabilities.double(), values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(top.lse.double(), lse, rtol=5e-6, atol=5e-6)
    nll, _ = linear_nll(p.hidden, p.weight, p.targets, p.bias, backend="torch")
    torch.testing.assert_close(top.nll, nll)


def test_top_k_refuses_more_than_the_vocabulary():
    p = make_problem()
    with pytest.raises(ValueError, match=r"k was 102; it must be from 1 to the vocabulary, 101"):
        linear_top_k(p.hidden, p.weight, p.targets, p.bias, k=102)
