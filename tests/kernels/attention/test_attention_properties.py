"""What must hold whatever the numbers are, on each backend. Bitwise means torch.equal; else rounding may differ."""

from dataclasses import replace

import pytest
import torch
from attention_cases import KINDS, call, documents_of, error, problem, run
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import attention, spans_of, triton_path, union_attention
from kernels.attention.configs import Config

pytestmark = pytest.mark.usefixtures("strict_interpreter", "small_tiles")

BACKENDS = ["reference", "torch", "triton"]
FAST = ["torch", "triton"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROUNDING = 2e-6

# The interpreter is slow: there, kinds that share their code with one of these are left to `make test-kernels`.
ON_TRITON = ("exclude_self", "rank_strict", "two:before", "union", "spans:beyond_2")
EVERY_KIND = [(kind, backend) for kind in KINDS for backend in BACKENDS if backend != "triton" or kind in ON_TRITON]
FAST_KIND = [(kind, backend) for kind, backend in EVERY_KIND if backend != "reference"]


def near(found, wanted):
    """To rounding at the size of the inputs; infinities must agree."""
    finite = torch.isfinite(wanted)
    same = torch.equal(found[~finite], wanted[~finite])
    return same and bool((found[finite] - wanted[finite]).abs().le(ROUNDING * wanted[finite].abs().clamp_min(1)).all())


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(triton_path, "config", lambda *_: Config(32, 16, 4, 1))


STRICT = ["exclude_self", "before_strict", "after_strict", "rank_strict", "union", "two:exclude_self", "two:rank"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", STRICT)
def test_no_row_sees_itself(kind, dtype, backend):
    """Change key and value i: row i of a strict output keeps its bits. And the gradient of row i there is exactly 0."""
    n, i = 37, 18
    p = problem(kind, b=1, h=1, n=n, dtype=dtype, lengths=[[12, 25]] if kind != "exclude_self" else None)
    keys = [name for name in p.inputs if name.startswith(("k", "v"))]
    changed = p
    for name in keys:
        x = p.inputs[name].clone()
        x[:, :, i] = 50 * torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(9)).to(dtype)
        changed = changed.with_input(name, x)
    strict_stream = len(p.grads) - 1
    before, after = call(p, backend)[strict_stream], call(changed, backend)[strict_stream]
    assert torch.equal(before[:, :, i], after[:, :, i])
    assert not torch.equal(before, after), "the change must show somewhere"

    inputs = {name: x.clone().requires_grad_() for name, x in p.inputs.items()}
    row = call(p, backend, inputs)[strict_stream][:, :, i].float().sum()
    for name, grad in zip(keys, torch.autograd.grad(row, [inputs[name] for name in keys])):
        assert grad[:, :, i].eq(0).all() and grad.ne(0).any(), name


@pytest.mark.parametrize("backend", FAST)
def test_a_row_that_may_see_itself_fails_the_test_above(backend):
    p = problem("full", b=1, h=1, n=37)
    changed = p.with_input("v", p.inputs["v"].clone().index_fill_(2, torch.tensor(18), 9.0))
    assert not torch.equal(call(p, backend)[0][:, :, 18], call(changed, backend)[0][:, :, 18])


@pytest.mark.parametrize("kind, backend", EVERY_KIND)
def test_documents_are_islands_bitwise(kind, backend):
    """Garbage in another document and in padding changes no bit of a document, forward or backward."""
    p = problem(kind, b=1, h=1, n=40, lengths=[[9, 20, 5]])
    g = torch.Generator().manual_seed(5)
    other = p
    for name, x in p.inputs.items():
        y = torch.randn(x.shape, generator=g) * 30
        y[:, :, 9:29] = x[:, :, 9:29]
        other = other.with_input(name, y)
    one, two = run(p, backend), run(other, backend)
    assert all(torch.equal(one[name][:, :, 9:29], two[name][:, :, 9:29]) for name in one)


@pytest.mark.parametrize("kind, backend", EVERY_KIND)
def test_rows_that_see_nothing(kind, backend):
    """Padding, and the first, last or only position of a document under a strict visibility: exactly 0, and so are gradients."""
    p = problem(kind, b=2, h=1, n=20, lengths=[[1, 12], []])
    found = run(p, backend)
    padding = p.documents < 0
    for name, x in found.items():
        assert x.transpose(1, 2)[padding].eq(0).all(), name
    if kind in STRICT:
        stream = len(p.grads) - 1
        assert found[f"out{stream}"][0, :, 0].eq(0).all()
        query = "d_q" if "d_q" in found else "d_q_query"
        assert found[query][0, :, 0].eq(0).all()
    assert not any(x.isnan().any() for x in found.values())


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("strict", ["", "_strict"])
def test_rank_in_the_order_of_positions_is_before_bitwise(strict, backend):
    p = problem("rank" + strict, b=2, n=40, lengths=[[17, 20], [40]])
    position = torch.cat([torch.arange(17), torch.arange(20), torch.zeros(3)]).int()
    p = problem("rank" + strict, b=2, n=40, lengths=[[17, 20], [40]])
    rank = torch.stack([position, torch.arange(40, dtype=torch.int32)])
    by_rank = attention(*p.inputs.values(), p.kind, documents=p.documents, rank=rank, backend=backend)
    by_position = attention(*p.inputs.values(), "before" + strict, documents=p.documents, backend=backend)
    assert torch.equal(by_rank, by_position)


@pytest.mark.parametrize("backend", FAST)
def test_a_permutation_of_positions_moves_the_result_along(backend):
    """Permute the positions and hand in the ranks: the result is that of `before`, permuted."""
    p = problem("before", b=1, n=40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled = [x[:, :, order] for x in p.inputs.values()]
    rank = attention(*shuffled, "rank", rank=order[None], backend=backend)
    assert torch.equal(rank, attention(*p.inputs.values(), "before", backend=backend)[:, :, order])


@pytest.mark.parametrize("kind, backend", FAST_KIND)
def test_packing_changes_nothing_but_rounding(kind, backend):
    """Documents in one packed row, or each alone in a row of its own."""
    sizes = [1, 33, 2]
    packed = problem(kind, b=1, n=sum(sizes), lengths=[sizes])
    found, at = run(packed, backend), 0
    for size in sizes:
        part = slice(at, at + size)
        alone = problem(kind, b=1, n=size)
        for name, x in packed.inputs.items():
            alone = alone.with_input(name, x[:, :, part])
        rank = None if packed.rank is None else packed.rank[:, part]
        grads, spans = [g[:, :, part] for g in packed.grads], packed.spans
        if spans is not None:
            spans = spans_of((spans.first[:, part] - at).clamp_min(0), (spans.last[:, part] - at).clamp_max(size - 1))
        alone = replace(alone, grads=grads, rank=rank, spans=spans)
        for name, x in run(alone, backend).items():
            assert near(found[name][:, :, part], x), name
        at += size


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("lengths", [None, [[7, 30]]])
def test_a_union_of_one_set_with_itself_excludes_self(lengths, backend):
    p = problem("exclude_self", b=1, n=40, lengths=lengths)
    q, k, v = p.inputs.values()
    found = union_attention(q, k, v, k, v, documents=p.documents, backend=backend)
    assert error(found, call(p, backend)[0]) < ROUNDING


REVERSED = {"before": "after", "before_strict": "after_strict", "full": "full", "exclude_self": "exclude_self"}


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("kind", REVERSED)
def test_time_reversal(kind, backend):
    """Backwards in time, `before` is `after`."""
    p = problem(kind, b=1, n=45, lengths=[[20, 22]])
    found = run(p, backend)
    q = type(p)(
        REVERSED[kind],
        {name: x.flip(2) for name, x in p.inputs.items()},
        [g.flip(2) for g in p.grads],
        p.documents.flip(1).contiguous(),
        None,
    )
    for name, x in run(q, backend).items():
        assert error(x.flip(2), found[name]) < ROUNDING, name


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("kind", ["exclude_self", "two:before", "union"])
def test_huge_scores_stay_finite(kind, backend):
    """Scores of several thousands, far beyond what exp can take: softmax is one-hot, nothing overflows."""
    p = problem(kind, b=1, n=40, scale=100.0, lengths=[[33, 5]])
    found, wanted = run(p, backend), run(p.to(torch.float64), "reference")
    for name, x in found.items():
        assert not x.isnan().any()
        if name.startswith("out"):
            assert error(x, wanted[name]) < 1e-3, name


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("scale", [-0.5, 0.0, 2.0])
def test_any_scale(scale, backend):
    p = problem("two:exclude_self", b=1, n=40, scale=scale)
    found, wanted = run(p, backend), run(p.to(torch.float64), "reference")
    assert all(error(x, wanted[name]) < 5e-6 for name, x in found.items())


@pytest.mark.parametrize("kind, backend", FAST_KIND)
def test_the_same_input_gives_the_same_bits(kind, backend):
    """On Triton under another order of the programs."""
    from strict_interpreter import strict

    p = problem(kind, b=1, n=50, dtype=torch.bfloat16, lengths=[[33, 15]])
    first = run(p, backend)
    with strict(seed=7):
        second = run(p, backend)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_are_stored_position_by_position(backend):
    """So that heads join without a copy."""
    p = problem("before", b=2, h=3, n=20)
    call(p, backend)[0].transpose(1, 2).view(2, 20, 48)


@pytest.mark.parametrize("backend", FAST)
def test_strided_views_are_taken_as_they_are(backend):
    """Queries, keys and values as one fused projection gives them, or with heads first: the same bits."""
    fused_projection = torch.randn(2, 20, 3, 2, 16, generator=torch.Generator().manual_seed(0))
    views = [x.transpose(1, 2) for x in fused_projection.unbind(2)]
    one = attention(*views, "before", backend=backend)
    two = attention(*(x.contiguous() for x in views), "before", backend=backend)
    assert torch.equal(one, two)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), kind=st.sampled_from([k for k in KINDS if not k.startswith("two:")]))
def test_any_packing_on_the_torch_path(data, kind):
    """Random rows of documents with padding anywhere between them."""
    n = data.draw(st.integers(1, 24))
    ids = torch.full((2, n), -1, dtype=torch.int32)
    for row in range(2):
        at, i = 0, 0
        while at < n:
            size = data.draw(st.integers(1, n - at))
            if data.draw(st.booleans()):
                ids[row, at : at + size] = i
                i += 1
            at += size
    p = problem(kind, b=2, h=1, n=n, lengths=None)
    rank = torch.zeros(2, n, dtype=torch.int32)
    for row in range(2):
        for i in range(int(ids[row].max()) + 1):
            positions = ids[row] == i
            rank[row, positions] = torch.randperm(int(positions.sum())).int()
    p = replace(p, documents=ids, rank=rank if "rank" in kind else None)
    found, wanted = run(p, "torch"), run(p.to(torch.float64), "reference")
    for name, x in found.items():
        assert error(x, wanted[name]) < 5e-6, name


def test_documents_of_counts_as_it_should():
    assert documents_of([[2, 1], [3]], 4).tolist() == [[0, 0, 1, -1], [0, 0, 0, -1]]
