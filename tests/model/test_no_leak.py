"""The no-leak certificate: what a model predicts at a place depends in no way on the token that stands there.

For every registered architecture, in training and evaluation mode, whole, padded and packed, fp32 and bf16, on every
attention backend. It is strict: values bitwise the same, gradients exactly zero. The last tests show that it can fail.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data.batch import Batch
from kernels.dispatch import use_backend
from model import MaskedLM
from model.architectures import REGISTRY
from model.architectures.tta import TTA
from model.layers import Block
from tests.conftest import LAYOUTS, MASK, VOCAB, random_batch
from tests.model.models import tiny_config, tiny_model

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


def masked_batch(batch: Batch) -> Batch:
    """Every third place masked, for architectures that predict masked places."""
    masked = torch.zeros_like(batch.tokens, dtype=torch.bool)
    masked[:, 1::3] = True
    if batch.documents is not None:
        masked &= batch.documents >= 0
    return replace(batch, corrupted=batch.tokens.masked_fill(masked, MASK), masked=masked)


def places_of(model: MaskedLM, batch: Batch) -> list[tuple[int, int]]:
    """The places that a pass predicts."""
    if model.architecture.masking is not None:
        return batch.masked.nonzero().tolist()
    real = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.documents is None else batch.documents >= 0
    return real.nonzero().tolist()


def predict(model: MaskedLM, batch: Batch) -> Tensor:
    torch.manual_seed(1)  # the same dropout every time
    return model.architecture.predict(batch)


def certify_values(model: MaskedLM, batch: Batch) -> None:
    before = predict(model, batch)
    for row, place in places_of(model, batch):
        tokens = batch.tokens.clone()
        tokens[row, place] = 5 + (tokens[row, place] - 4) % (VOCAB - 5)  # another ordinary token
        after = predict(model, replace(batch, tokens=tokens))
        assert torch.equal(after[row, place], before[row, place]), f"the state at {place} changed with its own token"


def certify_gradients(model: MaskedLM, batch: Batch) -> None:
    """The gradient of each place's loss with respect to the embedding of its own token is exactly zero."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if torch.equal(args[0], batch.tokens):  # not the [MASK]s that queries start from
            seen.append(output)

    handle = model.architecture.embedding.register_forward_hook(keep)
    hidden = predict(model, batch)
    handle.remove()
    assert seen, "the true tokens were never embedded"
    for row, place in places_of(model, batch):
        loss = torch.nn.functional.cross_entropy(
            model.head.logits(hidden[row, place])[None].float(), batch.tokens[row, place, None]
        )
        for gradient in torch.autograd.grad(loss, seen, retain_graph=True, allow_unused=True):
            assert gradient is None or bool((gradient[row, place] == 0).all()), f"place {place} learns from itself"


def certify(model: MaskedLM, batch: Batch, precision: torch.dtype | None = None) -> None:
    batch = masked_batch(batch) if model.architecture.masking is not None else batch
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        with torch.no_grad():
            certify_values(model, batch)
        if model.architecture.masking is None:
            certify_gradients(model, batch)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("preset", ["modern", "bert"])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_no_leak(architecture: str, preset: str, training: bool, layout: str, precision: str) -> None:
    model = tiny_model(architecture, preset, dropout=0.2 if training else 0.0).train(training)
    certify(model, random_batch(layout), PRECISIONS[precision])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_no_leak_on_each_backend(architecture: str, backend: str, layout: str) -> None:
    with use_backend(backend):
        certify(tiny_model(architecture), random_batch(layout))


@pytest.mark.parametrize("architecture", REGISTRY)
def test_no_leak_on_triton(architecture: str) -> None:
    """In Triton's interpreter; one row, since the certificate takes a pass for each place."""
    batch = random_batch("packed", rows=1, length=8)
    with use_backend("triton"):
        certify(tiny_model(architecture, n_layers=2), batch)


class OpenDiagonal(TTA):
    """T-TA that forgot its mask."""

    def predict(self, batch: Batch) -> Tensor:
        return self.query_stream(batch, "full")


class DeepContent(TTA):
    """T-TA whose content is contextual: each layer hides the diagonal, and place i still meets token i through j."""

    def predict(self, batch: Batch) -> Tensor:
        content = self.embedding(batch.tokens, batch.documents)
        query = self.embedding.queries(batch.tokens, batch.documents)
        for block in self.blocks:
            assert isinstance(block, Block)
            k, v = block.keys_values(block.read(content))
            query = block(query, k, v, "exclude_self", batch.documents)
            content = block(content, k, v, "full", batch.documents)
        return query


@pytest.mark.parametrize("check", [certify_values, certify_gradients])
@pytest.mark.parametrize("leaking", [OpenDiagonal, DeepContent])
def test_the_certificate_catches_a_leak(leaking: type[TTA], check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "leaking", leaking)
    torch.manual_seed(0)
    model = MaskedLM(tiny_config("leaking")).eval()
    with pytest.raises(AssertionError, match="its own token|learns from itself"):
        check(model, random_batch("whole"))
