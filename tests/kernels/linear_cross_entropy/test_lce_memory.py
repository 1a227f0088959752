"""No (T, V) tensor: neither in the forward nor in the backward."""

import pytest
import torch
from problems import make_problem
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels.linear_cross_entropy import linear_cross_entropy, linear_nll, linear_top_k

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


def sweeps(p, chunk_bytes):
    arguments = (p.hidden, p.weight, p.targets, p.bias)
    for reduction in ("mean", "none"):
        linear_cross_entropy(
            *arguments, reduction=reduction, label_smoothing=0.1, z_loss=0.1, chunk_bytes=chunk_bytes, backend="torch"
        ).sum().backward()
    linear_nll(*arguments, chunk_bytes=chunk_bytes, backend="torch")
    linear_top_k(*arguments, k=3, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_tensor_larger_than_chunk_or_table(dtype):
    p = make_problem(TOKENS, WIDTH, VOCABULARY, dtype=dtype)
    chunk = 32 * VOCABULARY
    with LargestTensor() as largest:
        sweeps(p, chunk_bytes=chunk * dtype.itemsize)
    assert 0 < largest.elements <= max(chunk, VOCABULARY * WIDTH, TOKENS * WIDTH)
    with LargestTensor() as largest:
        sweeps(p, chunk_bytes=TOKENS * VOCABULARY * dtype.itemsize)
    assert largest.elements > TOKENS * VOCABULARY // 2, "the measure must see a chunk that holds everything"


def test_a_budget_below_one_row_still_runs_row_by_row():
    p = make_problem(5, 4, 11)
    loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, chunk_bytes=1, backend="torch")
    expected = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="reference")
    torch.testing.assert_close(loss, expected)
