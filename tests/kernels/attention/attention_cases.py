"""Random problems, and how far an implementation is from float64 on them. Shared by the tests of attention."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels.attention import Spans, attention, spans_of, two_stream_attention, union_attention
from kernels.attention.visibility import TWO_STREAM, VISIBILITIES, visible_BNN

# Relative Frobenius error against float64.
BOUNDS = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3}

ONE_STREAM = (*VISIBILITIES, "beyond_2")
SPANNED = ("spans:exclude_self", "spans:beyond_2", "spans:union")
KINDS = (*ONE_STREAM, "union", *(f"two:{name}" for name in TWO_STREAM), *SPANNED)


@dataclass(frozen=True)
class Problem:
    """inputs: name -> tensor (B, H, N, K), in the order of the operator's arguments; grads: of each output."""

    kind: str
    inputs: dict[str, Tensor]
    grads: list[Tensor]
    documents: Tensor | None
    rank: Tensor | None
    scale: float | None = None
    spans: Spans | None = None

    def to(self, dtype: torch.dtype) -> "Problem":
        inputs = {name: x.to(dtype) for name, x in self.inputs.items()}
        return replace(self, inputs=inputs, grads=[g.to(dtype) for g in self.grads])

    def with_input(self, name: str, x: Tensor) -> "Problem":
        return replace(self, inputs=self.inputs | {name: x})


def problem(kind, b=2, h=2, n=20, width=16, dtype=torch.float32, lengths=None, seed=0, scale=None) -> Problem:
    """lengths: of the documents of each row, a list for every row; what they leave of a row is padding."""
    g = torch.Generator().manual_seed(seed)

    def normal():  # a strided view, as a projection gives it
        return torch.randn(b, n, h * width, generator=g).to(dtype).view(b, n, h, width).transpose(1, 2)

    names = ("q", "k", "v")
    spanned, kind = kind.startswith("spans:"), kind.removeprefix("spans:")
    if kind == "union":
        names = ("q", "k_past", "v_past", "k_future", "v_future")
    elif kind.startswith("two:"):
        names = ("q_content", "q_query", "k", "v")
    documents = None if lengths is None else documents_of(lengths, n)
    rank = random_rank(b, n, documents, g) if "rank" in kind else None
    grads = [normal() for _ in range(1 + kind.startswith("two:"))]
    spans = random_spans(b, n, g) if spanned else None
    return Problem(kind, {name: normal() for name in names}, grads, documents, rank, scale, spans)


def random_spans(b, n, generator) -> Spans:
    """Words of one to seven positions, across documents too; of some the whole is hidden, of some the rest, of some the
    position."""
    first, last = torch.arange(n).repeat(b, 1), torch.arange(n).repeat(b, 1)
    for row in range(b):
        at = 0
        while at < n:
            size, how = torch.randint(1, 8, (), generator=generator), torch.randint(3, (), generator=generator)
            word = slice(at, min(n, at + int(size)))
            if how:
                last[row, word] = word.stop - 1
            if how == 2:
                first[row, word] = at
            at = word.stop
    return spans_of(first, last)


def documents_of(lengths, n) -> Tensor:
    """(B, N) int32 ids, -1 behind the last document of a row."""
    ids = torch.full((len(lengths), n), -1, dtype=torch.int32)
    for row, sizes in enumerate(lengths):
        at = 0
        for i, size in enumerate(sizes):
            ids[row, at : at + size] = i
            at += size
        assert at <= n
    return ids


def random_rank(b, n, documents, generator) -> Tensor:
    rank = torch.zeros(b, n, dtype=torch.int32)
    for row in range(b):
        ids = torch.zeros(n) if documents is None else documents[row]
        for i in ids.unique():
            positions = ids == i
            rank[row, positions] = torch.randperm(int(positions.sum()), generator=generator).int()
    return rank


def call(p: Problem, backend: str | None, inputs=None) -> list[Tensor]:
    """What each stream reads."""
    options = {"documents": p.documents, "scale": p.scale, "backend": backend}
    xs = list((inputs or p.inputs).values())
    if p.spans is not None:
        options["spans"] = p.spans
    if p.kind == "union":
        return [union_attention(*xs, **options)]
    if p.rank is not None:
        options["rank"] = p.rank
    if p.kind.startswith("two:"):
        return list(two_stream_attention(*xs, p.kind.removeprefix("two:"), **options))
    return [attention(*xs, p.kind, **options)]


def run(p: Problem, backend: str | None) -> dict[str, Tensor]:
    """Outputs and gradients by name."""
    inputs = {name: x.detach().clone().requires_grad_() for name, x in p.inputs.items()}
    outs = call(p, backend, inputs)
    gradients = torch.autograd.grad(outs, list(inputs.values()), p.grads)
    return {f"out{s}": x.detach() for s, x in enumerate(outs)} | {f"d_{name}": x for name, x in zip(inputs, gradients)}


def exact(p: Problem) -> dict[str, Tensor]:
    """The specification on the same inputs, in float64 from end to end."""
    return run(p.to(torch.float64), "reference")


def plain(p: Problem) -> dict[str, Tensor]:
    """What PyTorch operations in the dtype of the inputs give: the same mathematics without care."""
    inputs = {name: x.detach().clone().requires_grad_() for name, x in p.inputs.items()}
    xs = list(inputs.values())
    ids = p.documents if p.documents is not None else torch.zeros(xs[0].shape[0], xs[0].shape[2], dtype=torch.int32)
    if p.kind == "union":
        calls = [(xs[0], torch.cat(xs[1::2], 2), torch.cat(xs[2::2], 2), ("before_strict", "after_strict"))]
    elif p.kind.startswith("two:"):
        names = TWO_STREAM[p.kind.removeprefix("two:")]
        calls = [(q, xs[2], xs[3], (name,)) for q, name in zip(xs[:2], names)]
    else:
        calls = [(*xs, (p.kind,))]
    outs = []
    for q, k, v, names in calls:
        seen = torch.cat([visible_BNN(name, ids, p.rank, p.spans) for name in names], -1)[:, None]
        scores = (q @ k.transpose(-1, -2) * (p.scale or q.shape[-1] ** -0.5)).masked_fill(~seen, float("-inf"))
        scores = scores.masked_fill(~seen.any(-1, keepdim=True), 0.0)
        outs.append((scores.softmax(-1) * seen) @ v)
    gradients = torch.autograd.grad(outs, xs, p.grads)
    return {f"out{s}": x.detach() for s, x in enumerate(outs)} | {f"d_{n}": g for n, g in zip(inputs, gradients)}


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative Frobenius error; infinities must agree."""
    found, wanted = found.double(), wanted.double()
    finite = torch.isfinite(wanted)
    assert torch.equal(torch.isfinite(found), finite) and torch.equal(found[~finite], wanted[~finite])
    size = wanted[finite].norm()
    return ((found[finite] - wanted[finite]).norm() / size).item() if size > 0 else found[finite].norm().item()


def assert_close(p: Problem, backend: str | None, compare: bool = False) -> None:
    """Within the bounds; with `compare` also at most 2x (forward) and 3x (backward) the error of plain PyTorch."""
    found, wanted = run(p, backend), exact(p)
    careless = plain(p) if compare else {}
    dtype = next(iter(p.inputs.values())).dtype
    assert found.keys() == wanted.keys()
    for name, x in found.items():
        assert x.dtype == dtype
        off = error(x, wanted[name])
        assert off <= BOUNDS[dtype], (name, off)
        if name in careless:
            times = 2 if name.startswith("out") else 3
            assert off <= times * error(careless[name], wanted[name]) + 1e-7, (name, off)
