"""torch.compile, autocast, no_grad, checkpointing and meta tensors pass through."""

import pytest
import torch
from attention_cases import KINDS, call, error, problem, run
from torch.utils.checkpoint import checkpoint

from kernels.attention import attention
from kernels.dispatch import use_backend

pytestmark = pytest.mark.usefixtures("strict_interpreter")

FAST = ["torch", "triton"]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", [*KINDS[:3], "rank", "union", "two:before", "two:rank"])
@pytest.mark.parametrize("lengths", [None, [[9, 5], [14]]], ids=["whole", "packed"])
def test_compiles_without_a_graph_break(kind, lengths):
    p = problem(kind, n=14, lengths=lengths)

    def traced(inputs):
        return call(p, "torch", inputs)

    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True)
    inputs = {name: x.detach().clone().requires_grad_() for name, x in p.inputs.items()}
    outs = compiled(inputs)
    gradients = torch.autograd.grad(outs, list(inputs.values()), p.grads)
    for x, y in zip((*outs, *gradients), run(p, "torch").values(), strict=True):
        assert error(x.detach(), y) < 2e-6


def test_compiles_on_triton():
    p = problem("two:exclude_self", n=14, b=1)
    compiled = torch.compile(lambda: call(p, "triton"), backend="aot_eager", fullgraph=True)
    for x, y in zip(compiled(), call(p, "triton")):
        assert torch.equal(x, y)


@pytest.mark.parametrize("operator", ["attention", "attention_backward"])
def test_the_custom_operators_keep_their_promises(operator):
    """Fake and real implementations agree on shapes, dtypes and strides; nothing aliases or mutates an input."""
    p = problem("before", n=10)
    q, k, v = (x.detach().requires_grad_() for x in p.inputs.values())
    if operator == "attention":
        arguments = ([q], [k, v], "before", None, None, None, None, 0.25, "torch")
    else:
        results = torch.ops.twostream.attention([q], [k, v], "before", None, None, None, None, 0.25, "torch")
        tensors = [x.detach() for x in results]
        arguments = (
            p.grads,
            [q.detach()],
            [k.detach(), v.detach()],
            tensors,
            "before",
            None,
            None,
            None,
            None,
            0.25,
            "torch",
        )
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(getattr(torch.ops.twostream, operator), arguments, test_utils=checks)


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("kind", ["exclude_self", "two:before", "union"])
def test_autocast_casts_as_it_does_for_sdpa(kind, backend):
    p = problem(kind, b=1, n=14)
    inputs = {name: x.detach().clone().requires_grad_() for name, x in p.inputs.items()}
    with torch.autocast("cpu", torch.bfloat16):
        results = call(p, backend, inputs)
    assert all(x.dtype == torch.bfloat16 for x in results)
    by_hand = call(p.to(torch.bfloat16), backend)
    assert all(torch.equal(x, y) for x, y in zip(results, by_hand))
    results[0].float().sum().backward()
    assert next(iter(inputs.values())).grad.dtype == torch.float32


@pytest.mark.parametrize("backend", FAST)
def test_without_gradients_the_result_is_the_same(backend):
    p = problem("exclude_self", n=14)
    wanted = run(p, backend)["out0"]
    with torch.no_grad():
        assert torch.equal(call(p, backend)[0], wanted)
    with torch.inference_mode():
        assert torch.equal(call(p, backend)[0], wanted)


@pytest.mark.parametrize("backend", FAST)
def test_checkpointing(backend):
    p = problem("before", n=14)
    inputs = [x.detach().clone().requires_grad_() for x in p.inputs.values()]
    out = checkpoint(lambda *xs: attention(*xs, "before", backend=backend), *inputs, use_reentrant=False)
    found = torch.autograd.grad(out, inputs, p.grads)
    wanted = run(p, backend)
    assert all(torch.equal(x, wanted[name]) for x, name in zip(found, ("d_q", "d_k", "d_v")))


def test_only_one_stream_may_be_used():
    p = problem("two:exclude_self", n=14)
    inputs = {name: x.detach().clone().requires_grad_() for name, x in p.inputs.items()}
    content, query = call(p, "torch", inputs)[:2]
    query.sum().backward()
    assert inputs["q_content"].grad.eq(0).all() and inputs["k"].grad.ne(0).any()
    assert content.shape == query.shape


def test_triton_is_not_imported_unless_it_is_used():
    import subprocess
    import sys

    program = (
        "import sys, torch; from kernels.attention import attention; x = torch.randn(1, 1, 4, 16);"
        "attention(x, x, x, 'exclude_self'); print('kernels.attention.triton_forward' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_blocks_nest_around_models():
    p = problem("exclude_self", n=14)
    with use_backend("reference"):
        assert error(call(p, None)[0], call(p, "reference")[0]) == 0
