"""No (T, V) tensor: neither in the forward nor in the backward."""

import pytest
import torch
from problems import make_problem
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels.linear_cross_entropy import linear_cross_entropy, linear_nll, linear_top_k, operators

TOKENS, WIDTH, VOCABULARY = 600, 16, 500


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation inside returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@pytest.fixture
def watch(monkeypatch):
    """Run the sweeps of all operators under a mode: from outside, a custom operator is one opaque operation."""

    def install(mode):
        sweep = operators._sweep

        def watched(*args, **kwargs):
            with mode:
                return sweep(*args, **kwargs)

        monkeypatch.setattr(operators, "_sweep", watched)
        return mode

    return install


class Products(TorchDispatchMode):
    """How many matrix products ran inside."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return function(*args, **(kwargs or {}))


def test_logits_are_computed_once(watch):
    """Three products for each chunk in training, one in scoring; a gradient for each row needs the logits again."""
    p = make_problem(40, 8, 50, ignored=0.0)
    arguments = (p.hidden, p.weight, p.targets, p.bias)
    run = {"chunk_bytes": 10 * 50 * 4, "backend": "torch"}  # four chunks
    counts, products = [], watch(Products())
    linear_cross_entropy(*arguments, **run).backward()
    counts.append(products.count)
    linear_cross_entropy(*arguments, reduction="none", **run).sum().backward()
    counts.append(products.count)
    with torch.no_grad():
        linear_cross_entropy(*arguments, **run)
    counts.append(products.count)
    assert counts == [12, 12 + 16, 12 + 16 + 4]


def losses(p, chunk_bytes):
    arguments = (p.hidden, p.weight, p.targets, p.bias)
    run = {"chunk_bytes": chunk_bytes, "backend": "torch"}
    for reduction in ("mean", "none"):
        loss = linear_cross_entropy(*arguments, reduction=reduction, **run)
        loss.sum().backward()
    linear_nll(*arguments, **run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_tensor_larger_than_chunk_or_table(watch, dtype):
    p = make_problem(TOKENS, WIDTH, VOCABULARY, dtype=dtype)
    chunk = 32 * VOCABULARY
    largest = watch(LargestTensor())
    losses(p, chunk_bytes=chunk * dtype.itemsize)
    assert 0 < largest.elements <= max(chunk, VOCABULARY * WIDTH, TOKENS * WIDTH)
    losses(p, chunk_bytes=TOKENS * VOCABULARY * dtype.itemsize)
    assert largest.elements > TOKENS * VOCABULARY // 2, "the measure must see a chunk that holds everything"


def test_predictions_hold_no_more_than_a_chunk_either():
    p = make_problem(TOKENS, WIDTH, VOCABULARY)
    chunk = 32 * VOCABULARY
    with LargestTensor() as largest:
        linear_top_k(p.hidden, p.weight, p.targets, p.bias, k=3, chunk_bytes=chunk * 4)
    assert 0 < largest.elements <= chunk


def test_a_budget_below_one_row_still_runs_row_by_row():
    p = make_problem(5, 4, 11)
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, chunk_bytes=1, backend="torch")
    expected = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="reference")
    torch.testing.assert_close(loss, expected)
