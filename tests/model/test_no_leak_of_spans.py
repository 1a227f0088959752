"""The certificate of hidden spans: what stands in a span reaches none of its positions, and all that is outside does."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels.attention import spans_of
from kernels.dispatch import use_backend
from model import MaskedLM
from model.architectures import REGISTRY, Architecture
from model.batch import Batch
from tests.conftest import LAYOUTS, VOCAB, random_batch
from tests.model.leaks import SPAN_LEAKS, Spanned
from tests.model.models import tiny_config, tiny_model
from tests.model.test_no_leak import predict

SPANNED = [
    *((name, {"words": 0.25}) for name in ("tta", "local", "bicausal", "rtd")),
    ("local", {"near": 4, "taps": 2, "words": 0.25}),
    ("local", {"near": 1, "taps": 0, "words": 0.25}),
    ("bicausal", {"width": 0, "words": 0.25}),
    ("bicausal", {"tied": False, "level": True, "words": 0.25}),
    ("rtd", {"generator": "local", "words": 0.25}),
]
"""What trains with hidden words."""


def with_spans(batch: Batch, seed: int = 0, kinds: tuple[str, ...] = ("whole", "rest", "alone")) -> Batch:
    """Words of one to five tokens; of each the whole is hidden, or the rest from each position on, or the position alone."""
    draw, (rows, length) = random.Random(seed), batch.tokens.shape
    first, last = torch.arange(length).repeat(rows, 1), torch.arange(length).repeat(rows, 1)
    for row in range(rows):
        at = 0
        while at < length:
            end = min(length, at + draw.randint(1, 5))
            hidden = draw.choice(kinds)
            if hidden != "alone":
                last[row, at:end] = end - 1
            if hidden == "whole":
                first[row, at:end] = at
            at = end
    return replace(batch, spans=spans_of(first, last))


def certify_spans(model: MaskedLM, batch: Batch) -> None:
    """No token of the span reaches its positions, to the bit and in the gradient; every token of the document outside does."""
    ids = torch.zeros_like(batch.tokens) if batch.documents is None else batch.documents
    hidden = batch.spans.hidden_NN()
    with torch.no_grad():
        before = predict(model, batch)
        for other in range(batch.tokens.shape[1]):
            tokens = batch.tokens.clone()
            tokens[:, other] = 5 + (tokens[:, other] - 4) % (VOCAB - 5)
            changed = (predict(model, replace(batch, tokens=tokens)) != before).any(-1)  # (B, N)
            reached = (ids == ids[:, other, None]) & (ids >= 0) & ~hidden[:, :, other]
            real = ids >= 0
            assert not (changed & hidden[:, :, other] & real).any(), f"token {other} is read inside its own span"
            assert torch.equal(changed[real], reached[real]), f"token {other} does not reach all that may see it"
    seen: list[Tensor] = []
    handle = model.architecture.embedding.register_forward_hook(
        lambda module, inputs, output: seen.append(output) if torch.equal(inputs[0], batch.tokens) else None
    )
    states = predict(model, batch)
    handle.remove()
    for row, position in (ids >= 0).nonzero().tolist():
        for gradient in torch.autograd.grad(states[row, position].sum(), seen, retain_graph=True, allow_unused=True):
            if gradient is not None:
                assert not gradient[row, hidden[row, position]].any(), f"position {position} learns from its own span"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("architecture", "options"), SPANNED)
def test_nothing_of_a_span_reaches_its_positions(architecture: str, options: dict, layout: str) -> None:
    model = tiny_model(architecture, options=tuple(options.items()))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    certify_spans(model, with_spans(random_batch(layout)))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("architecture", ["tta", "local", "bicausal"])
def test_nor_on_another_backend_or_in_bfloat16(architecture: str, backend: str) -> None:
    batch = with_spans(random_batch("packed"))
    with use_backend(backend), torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model = tiny_model(architecture, options=(("words", 0.5),))
        hidden, before = batch.spans.hidden_NN(), predict(model, batch)
        for other in range(batch.tokens.shape[1]):
            tokens = batch.tokens.clone()
            tokens[:, other] = 5 + (tokens[:, other] - 4) % (VOCAB - 5)
            after = predict(model, replace(batch, tokens=tokens))
            assert torch.equal(after[hidden[:, :, other]], before[hidden[:, :, other]])


@pytest.mark.parametrize("leaking", SPAN_LEAKS)
def test_a_leak_of_spans_is_caught(leaking: type[Architecture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "leaking", leaking)
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match="is read inside its own span"):
        certify_spans(MaskedLM(tiny_config("leaking")).eval(), with_spans(random_batch("whole", rows=3)))


def test_the_model_that_they_were_made_from_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "leaking", Spanned)
    torch.manual_seed(0)
    certify_spans(MaskedLM(tiny_config("leaking")).eval(), with_spans(random_batch("packed")))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_a_hidden_word_permuted_reads_what_comes_before_in_its_order(layout: str) -> None:
    """The word is one block of the order: of any two of its positions one reads the other, and never itself; who is outside
    reads all of it or nothing."""
    model = tiny_model("permuted", options=(("near", 2), ("words", 0.5)))
    batch = replace(with_spans(random_batch(layout), kinds=("whole", "alone")), samples=None)
    ids = torch.zeros_like(batch.tokens) if batch.documents is None else batch.documents
    rows, length = batch.tokens.shape
    read = torch.zeros(rows, length, length, dtype=torch.bool)  # by position, of each token
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        before = predict(model, batch)
        for other in range(length):
            tokens = batch.tokens.clone()
            tokens[:, other] = 5 + (tokens[:, other] - 4) % (VOCAB - 5)
            read[:, :, other] = (predict(model, replace(batch, tokens=tokens)) != before).any(-1)
    first, last = batch.spans.first.tolist(), batch.spans.last.tolist()
    words = {(row, a, b) for row in range(rows) for a, b in zip(first[row], last[row]) if b > a}
    words = {
        (row, a, b) for row, a, b in words if bool((ids[row, a : b + 1] == ids[row, a]).all()) and ids[row, a] >= 0
    }
    assert words
    for row, a, b in words:
        inside = read[row, a : b + 1, a : b + 1]
        assert torch.equal(inside.sum(1).sort().values, torch.arange(b - a + 1))  # one reads none, one reads one, ...
        near = {
            i for i in range(length) if first[row][i] - 2 <= b and last[row][i] + 2 >= a
        }  # they start from some of it
        outside = [i for i in range(length) if i not in near and ids[row, i] == ids[row, a]]
        told = read[row, outside, a : b + 1]
        assert torch.equal(told.any(1), told.all(1))
