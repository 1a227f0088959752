"""Numbers that are none, hidden from a row, change nothing for it; seen, they show. And layouts are read, not believed."""

import numpy as np
import pytest
import torch
from attention_cases import KINDS, call, problem

from kernels.attention import attention, guarded
from kernels.attention.layout import Layout, layout_of

BACKENDS = ["reference", "torch"]
LENGTHS = [[5, 4]]  # and three positions of padding
BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("position", [slice(9, 12), slice(5, 9)], ids=["padding", "another document"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_changes_nothing(kind: str, backend: str, position: slice, bad: float) -> None:
    p = problem(kind, b=1, n=12, lengths=LENGTHS)
    wanted = call(p, backend)[: len(p.grads)]
    for name in p.inputs:
        spoilt = p.inputs[name].clone()
        spoilt[:, :, position] = bad
        inputs = {n: x.detach().clone().requires_grad_() for n, x in (p.inputs | {name: spoilt}).items()}
        outs = call(p.with_input(name, spoilt), backend, inputs)[: len(p.grads)]
        for out, right in zip(outs, wanted):
            torch.testing.assert_close(out[:, :, :5], right[:, :, :5], rtol=1e-5, atol=1e-6)
            assert (out[:, :, 9:] == 0).all()  # padding
        found = torch.autograd.grad([o[:, :, :5].sum() for o in outs], list(inputs.values()))
        clean = {n: x.detach().clone().requires_grad_() for n, x in p.inputs.items()}
        right = torch.autograd.grad(
            [o[:, :, :5].sum() for o in call(p, backend, clean)[: len(p.grads)]], list(clean.values())
        )
        for x, y in zip(found, right):
            torch.testing.assert_close(x[:, :, :5], y[:, :, :5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_what_is_seen_shows(name: str, backend: str) -> None:
    """Position 2 of the first document: its own row does not see its key, every other row of the document does."""
    p = problem("exclude_self", b=1, n=12, lengths=LENGTHS)
    p.inputs[name][:, :, 2, 0] = float("nan")
    out = call(p, backend)[0]
    rows = out.isnan().any(-1)[0, 0].tolist()
    expected = [i == 2 for i in range(12)] if name == "q" else [i < 5 and i != 2 for i in range(12)]
    assert rows == expected


@pytest.mark.parametrize("kind", ["exclude_self", "union", "two:before"])
def test_a_gradient_that_is_none_stays_with_its_document(kind: str) -> None:
    p = problem(kind, b=1, n=12, lengths=LENGTHS)
    inputs = {n: x.detach().clone().requires_grad_() for n, x in p.inputs.items()}
    outs = call(p, "torch", inputs)[: len(p.grads)]
    spoilt = [torch.cat([g[:, :, :5], torch.full_like(g[:, :, 5:], float("nan"))], 2) for g in p.grads]
    for x in torch.autograd.grad(outs, list(inputs.values()), spoilt):
        assert x[:, :, :5].isfinite().all() and x[:, :, 5:9].isnan().any() and not x[:, :, 9:].isnan().any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_guarded_path_is_the_specification(kind: str) -> None:
    """Where everything is finite but for padding, gradients are those of the clean problem."""
    p = problem(kind, b=2, n=12, lengths=[[5, 4], [12]])
    found = guarded.is_clean(list(p.inputs.values()))
    assert found
    some = next(iter(p.inputs))
    spoilt = p.inputs[some].clone()
    spoilt[0, :, 9:] = float("nan")
    inputs = {n: x.detach().clone().requires_grad_() for n, x in (p.inputs | {some: spoilt}).items()}
    outs = call(p.with_input(some, spoilt), "torch", inputs)[: len(p.grads)]
    clean = {n: x.detach().clone().requires_grad_() for n, x in p.inputs.items()}
    right = call(p, "torch", clean)[: len(p.grads)]
    grads = [g.clone() for g in p.grads]
    for x, y in zip(
        torch.autograd.grad(outs, list(inputs.values()), grads), torch.autograd.grad(right, list(clean.values()), grads)
    ):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def rewritten(how: str) -> tuple[torch.Tensor, torch.Tensor]:
    """documents (1, 8) before and after the same tensor object was written to."""
    buffer = np.zeros((1, 8), np.int32)
    documents = torch.from_numpy(buffer) if how == "numpy buffer" else torch.zeros(1, 8, dtype=torch.int32)
    before = layout_of(documents).start.clone()
    if how == "numpy buffer":
        buffer[0, 4:] = 1
    elif how == "data":
        documents.data[0, 4:] = 1
    elif how == "numpy()":
        documents.numpy()[0, 4:] = 1
    else:
        documents[0, 4:] = 1
    return before, documents


@pytest.mark.parametrize("how", ["numpy buffer", "data", "numpy()", "in place"])
@pytest.mark.parametrize("visibility", ["full", "rank"])
def test_documents_that_were_written_to_count(how: str, visibility: str) -> None:
    q, k, v = (torch.randn(1, 2, 8, 16, generator=torch.Generator().manual_seed(i)) for i in range(3))
    before, documents = rewritten(how)
    assert (before == 0).all()
    rank = torch.tensor([[3, 1, 0, 2, 0, 1, 3, 2]]) if visibility == "rank" else None
    found = attention(q, k, v, visibility, documents=documents, rank=rank)
    assert torch.equal(found, attention(q, k, v, visibility, documents=documents.clone(), rank=rank))
    right = attention(q, k, v, visibility, documents=documents, rank=rank, backend="reference")
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["full", "rank", "union", "two:exclude_self"])
def test_a_layout_serves_as_documents(kind: str, backend: str) -> None:
    p = problem(kind, b=1, n=12, lengths=LENGTHS)
    wanted = call(p, backend)
    layout = layout_of(p.documents)
    assert isinstance(layout, Layout) and layout_of(layout) is layout
    given = call(type(p)(**{**vars(p), "documents": layout}), backend)
    for x, y in zip(given, wanted):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


def test_a_mask_of_one_s_own() -> None:
    p = problem("full", b=2, n=12, lengths=[[5, 4], [12]])
    seen = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    seen[0, 3] = False
    q, k, v = p.inputs.values()
    out = attention(q, k, v, seen, documents=p.documents)
    same = (p.documents[:, :, None] == p.documents[:, None]) & (p.documents >= 0)[:, :, None] & seen
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~same[:, None], float("-inf"))
    right = scores.softmax(-1).nan_to_num(0.0) @ v
    torch.testing.assert_close(out, right, rtol=1e-5, atol=1e-5)
    assert (out[0, :, 3] == 0).all()
    with pytest.raises(ValueError, match=r"it must be \(2, 12, 12\) bool"):
        attention(q, k, v, seen[0])
