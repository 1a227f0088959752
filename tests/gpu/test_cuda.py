"""On a CUDA device, by `make test-gpu`: the kernels against the specification, the certificate, a step that never waits."""

import dataclasses
import os

import pytest
import torch

from kernels.attention import attention, spans_of, two_stream_attention, union_attention
from kernels.linear_cross_entropy import linear_cross_entropy
from kernels.linear_cross_entropy.reference import linear_cross_entropy_reference
from kernels.one_sided import one_sided
from kernels.one_sided.reference import one_sided_reference
from model.architectures import REGISTRY
from model.batch import Batch
from tests.conftest import LAYOUTS, random_batch
from tests.model.models import tiny_model
from tests.model.test_no_leak import certify_gradients, certify_values, masked_batch
from training.budget import Budget
from training.contestant import Contestant
from training.entry import Entry
from training.optimizer import OptimizerConfig

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1",
    reason="needs a CUDA device and compiled kernels: make test-gpu",
)

BOUNDS = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3}
LENGTHS = {"whole": None, "packed": [[40, 60, 28], [128]], "padded": [[100], [7, 90]]}


def documents_of(lengths: list[list[int]] | None) -> torch.Tensor | None:
    if lengths is None:
        return None
    documents = torch.full((len(lengths), 128), -1, dtype=torch.int32)
    for row, own in enumerate(lengths):
        at = 0
        for i, length in enumerate(own):
            documents[row, at : at + length] = i
            at += length
    return documents.cuda()


def error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.double() - right).norm() / right.norm())


@pytest.mark.parametrize("width", [16, 64, 96, 128])
@pytest.mark.parametrize("layout", LENGTHS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(
    "kind",
    [
        *("full", "exclude_self", "beyond_2", "before", "after_strict", "two:exclude_self", "two:before", "union"),
        *("spans:beyond_2", "spans:union"),
    ],
)
def test_attention(kind: str, dtype: torch.dtype, layout: str, width: int) -> None:
    spanned, kind = kind.startswith("spans:"), kind.removeprefix("spans:")
    sets = {"union": 5}.get(kind, 4 if kind.startswith("two") else 3)
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (2, 128, 3, width)
    xs = [torch.randn(shape, device="cuda", generator=generator).to(dtype).transpose(1, 2) for _ in range(sets)]
    leaves = [[x.detach().clone().to(t).requires_grad_() for x in xs] for t in (dtype, torch.float64)]
    documents = documents_of(LENGTHS[layout])

    def run(tensors: list[torch.Tensor], backend: str) -> tuple[torch.Tensor, ...]:
        options = {"documents": documents, "backend": backend}
        if spanned:  # words of three positions, of every second the whole hidden
            position = torch.arange(128, device="cuda").repeat(2, 1)
            hidden = position // 3 % 2 == 0
            first, last = position // 3 * 3, (position // 3 * 3 + 2).clamp_max(127)
            options["spans"] = spans_of(torch.where(hidden, first, position), torch.where(hidden, last, position))
        if kind == "union":
            return (union_attention(*tensors, **options),)
        if kind.startswith("two"):
            return two_stream_attention(*tensors, kind[4:], **options)
        return (attention(*tensors, kind, **options),)

    found, right = run(leaves[0], "triton"), run(leaves[1], "reference")
    seeds = [torch.randn(o.shape, device="cuda", generator=generator).to(dtype) for o in found]
    gradients = torch.autograd.grad(found, leaves[0], seeds)
    exact = torch.autograd.grad(right, leaves[1], [s.double() for s in seeds])
    for x, y in zip((*found, *gradients), (*right, *exact)):
        assert error(x, y) < 2 * BOUNDS[dtype]


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("vocabulary", [500, 4096, 50_000])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_cross_entropy(dtype: torch.dtype, vocabulary: int, reduction: str) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(300, 64, device="cuda", generator=generator).to(dtype).requires_grad_()
    weight = (0.2 * torch.randn(vocabulary, 64, device="cuda", generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (300,), device="cuda", generator=generator)
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    loss = linear_cross_entropy(hidden, weight, targets, reduction=reduction).mean()
    right = linear_cross_entropy_reference(*wide, targets)[0]
    loss.backward(), right.backward()
    assert error(loss, right) < BOUNDS[dtype]
    for x, y in zip((hidden, weight), wide):
        assert error(x.grad, y.grad) < 2 * BOUNDS[dtype]


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("layout", LENGTHS)
@pytest.mark.parametrize("side", ["past", "future"])
def test_one_sided(side: str, layout: str, dtype: torch.dtype) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    x, seed = (torch.randn(2, 128, 200, device="cuda", generator=generator).to(dtype) for _ in range(2))
    weight = torch.randn(3, 200, device="cuda", generator=generator).to(dtype)
    leaves = [[y.clone().to(t).requires_grad_() for y in (x, weight)] for t in (dtype, torch.float64)]
    documents = documents_of(LENGTHS[layout])
    found = one_sided(*leaves[0], side, documents, backend="triton")
    right = one_sided_reference(*leaves[1], documents, side)
    gradients = torch.autograd.grad(found, leaves[0], seed)
    exact = torch.autograd.grad(right, leaves[1], seed.double())
    for a, b in zip((found, *gradients), (right, *exact)):
        assert error(a, b) < 2 * BOUNDS[dtype]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", REGISTRY)
def test_no_leak(architecture: str, layout: str) -> None:
    model = tiny_model(architecture).cuda()
    batch = random_batch(layout)
    batch = (masked_batch(batch) if model.architecture.masking is not None else batch).to("cuda")
    with torch.no_grad():
        certify_values(model, batch)
    if model.architecture.masking is None:
        certify_gradients(model, batch)


class Packed:
    """Batches with document boundaries, made on the CPU as training.sampling makes them."""

    batch_size, sequence_length = 4, 64

    def __init__(self, masked: bool) -> None:
        self.masked = masked

    def at(self, step: int, masking: object = None) -> Batch:
        batch = random_batch("whole", rows=4, length=64, seed=step)
        documents = torch.zeros(4, 64, dtype=torch.int32)
        documents[:, 20 + step % 9 :] = 1
        batch = dataclasses.replace(batch, documents=documents)
        return masked_batch(batch) if self.masked else batch


@pytest.mark.parametrize("architecture", REGISTRY)
def test_a_training_step_never_waits_for_the_device(architecture: str) -> None:
    """PyTorch raises at any operation that would: reading a tensor, nonzero, a copy from memory that is not pinned."""
    model = tiny_model(architecture, max_length=64).cuda().train()
    batches = Packed(model.architecture.masking is not None)
    contestant = Contestant(
        Entry.parse(architecture), 0, model, OptimizerConfig(), batches, Budget("tokens", 1e9), autocast=torch.bfloat16
    )
    for _ in range(3):  # kernels compile, optimisers allocate
        contestant.step(1e-3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            contestant.step(1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
