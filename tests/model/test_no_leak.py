"""The no-leak certificate: what a model predicts at a position depends in no way on the token that stands there.

For every registered architecture, in training and evaluation mode, whole, padded and packed, fp32 and bf16, on every
attention backend. It is strict: values bitwise the same, gradients exactly zero. The last tests show that it can fail.

What a masked model promises depends on its scheme. Where [MASK] stands, nothing of the token is left. BERT's scheme keeps
the token at 10% of its positions, and there a training pass does read it: the certificate finds these positions, and no others.
Leave-one-out, by which models are measured, masks the position whatever the scheme, and promises the same for all.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from data.masking import Masking
from data.vocabulary import Vocabulary
from kernels.dispatch import use_backend
from model import MaskedLM
from model.architectures import REGISTRY, Architecture
from model.batch import Batch
from tests.conftest import LAYOUTS, MASK, VOCAB, random_batch
from tests.model.leaks import LEAKS, AcrossDocuments, Shifting
from tests.model.models import FAMILY, tiny_config, tiny_model

VOCABULARY = Vocabulary(size=VOCAB, pad_id=0, bos_id=1, eos_id=2, mask_id=MASK, unk_id=4)
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


def masked_batch(batch: Batch) -> Batch:
    """Every third position masked, for architectures that predict masked positions."""
    masked = torch.zeros_like(batch.tokens, dtype=torch.bool)
    masked[:, 1::3] = True
    if batch.documents is not None:
        masked &= batch.documents >= 0
    return replace(batch, corrupted=batch.tokens.masked_fill(masked, MASK), masked=masked)


def positions_of(model: MaskedLM, batch: Batch) -> list[tuple[int, int]]:
    """The positions that a pass predicts."""
    if model.architecture.masking is not None:
        return batch.masked.nonzero().tolist()
    real = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.documents is None else batch.documents >= 0
    return real.nonzero().tolist()


def predict(model: MaskedLM, batch: Batch) -> Tensor:
    torch.manual_seed(1)  # the same dropout every time
    return model.architecture.predict(batch)


def certify_values(model: MaskedLM, batch: Batch) -> None:
    before = predict(model, batch)
    for row, position in positions_of(model, batch):
        tokens = batch.tokens.clone()
        tokens[row, position] = 5 + (tokens[row, position] - 4) % (VOCAB - 5)  # another ordinary token
        after = predict(model, replace(batch, tokens=tokens))
        assert torch.equal(after[row, position], before[row, position]), (
            f"the state at {position} changed with its own token"
        )


def certify_gradients(model: MaskedLM, batch: Batch) -> None:
    """The gradient of each position's loss with respect to the embedding of its own token is exactly zero."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if torch.equal(args[0], batch.tokens):  # not the [MASK]s that queries start from
            seen.append(output)

    handle = model.architecture.embedding.register_forward_hook(keep)
    hidden = predict(model, batch)
    handle.remove()
    assert seen, "the true tokens were never embedded"
    for row, position in positions_of(model, batch):
        loss = torch.nn.functional.cross_entropy(
            model.head.logits(hidden[row, position])[None].float(), batch.tokens[row, position, None]
        )
        for gradient in torch.autograd.grad(loss, seen, retain_graph=True, allow_unused=True):
            assert gradient is None or bool((gradient[row, position] == 0).all()), (
                f"position {position} learns from itself"
            )


def certify(model: MaskedLM, batch: Batch, precision: torch.dtype | None = None) -> None:
    batch = masked_batch(batch) if model.architecture.masking is not None else batch
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        with torch.no_grad():
            certify_values(model, batch)
        if model.architecture.masking is None:
            certify_gradients(model, batch)


def certify_leave_one_out(model: MaskedLM, batch: Batch) -> None:
    """The yardstick's own pass: bitwise the same whatever stands at the position."""
    real = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.documents is None else batch.documents >= 0
    with torch.no_grad():
        for position in range(batch.tokens.shape[1]):
            positions = torch.full((len(batch.tokens), 1), position)
            tokens = batch.tokens.clone()
            tokens[:, position] = 5 + (tokens[:, position] - 4) % (VOCAB - 5)
            before, _ = model.architecture.leave_one_out(batch, positions)
            after, _ = model.architecture.leave_one_out(replace(batch, tokens=tokens), positions)
            assert torch.equal(after[real[:, position]], before[real[:, position]]), (
                f"position {position} is scored by itself"
            )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scheme", ["mask", "bert"])
def test_a_masked_model_keeps_what_its_scheme_promises(scheme: str, layout: str) -> None:
    """A change of the true token reaches the prediction at its position exactly where the scheme kept the token."""
    masking, samples = Masking(0.6, scheme), np.arange(40)
    model = tiny_model("vanilla", options=(("masking_scheme", scheme),))
    batch = random_batch(layout, rows=40)
    tokens = batch.tokens.numpy()
    corrupted, masked = masking.apply(tokens, VOCABULARY, 0, samples)
    other = 5 + (tokens - 4) % (
        VOCAB - 5
    )  # every token another: a masked position that keeps its own reads the new one
    kept = masked & (corrupted == tokens)
    assert kept.any() == (scheme == "bert")
    changed = np.where(kept, other, corrupted)
    made = [
        replace(batch, corrupted=torch.from_numpy(c), masked=torch.from_numpy(masked & (tokens >= 5)))
        for c in (corrupted, changed)
    ]
    with torch.no_grad():
        before, after = (model.architecture.predict(b) for b in made)
    differs = (before != after).any(-1).numpy()
    assert differs[kept].all()
    rows_without = ~kept.any(1)
    assert not differs[rows_without].any()
    certify_leave_one_out(model, random_batch(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", REGISTRY)
def test_leave_one_out_leaves_one_out(architecture: str, layout: str) -> None:
    certify_leave_one_out(tiny_model(architecture), random_batch(layout))


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


@pytest.mark.parametrize("architecture", FAMILY)
def test_no_leak_on_triton(architecture: str) -> None:
    """In Triton's interpreter; one row, since the certificate takes a pass for each position."""
    batch = random_batch("packed", rows=1, length=8)
    with use_backend("triton"):
        certify(tiny_model(architecture, n_layers=2), batch)


@pytest.mark.parametrize("check", [certify_values, certify_gradients])
@pytest.mark.parametrize("leaking", LEAKS)
def test_the_certificate_catches_a_leak(leaking: type[Architecture], check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "leaking", leaking)
    torch.manual_seed(0)
    model = MaskedLM(tiny_config("leaking")).eval()
    with pytest.raises(AssertionError, match="its own token|learns from itself"):
        check(model, random_batch("whole"))


def test_the_right_shift_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the leaks above were made from passes: they are caught for what they do wrong."""
    monkeypatch.setitem(REGISTRY, "shifting", Shifting)
    model = MaskedLM(tiny_config("shifting")).eval()
    for layout in LAYOUTS:
        certify(model, random_batch(layout))


def certify_documents(model: MaskedLM, batch: Batch) -> None:
    """Another document, and padding, change nothing, to the bit."""
    with torch.no_grad():
        before = predict(model, batch)
        for document in batch.documents.unique().tolist():
            at = batch.documents == document
            tokens = torch.where(at, 5 + (batch.tokens - 4) % (VOCAB - 5), batch.tokens)
            after = predict(model, replace(batch, tokens=tokens, corrupted=tokens))
            others = ~at & (batch.documents >= 0)
            assert torch.equal(after[others], before[others]), f"document {document} is seen from another"


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_documents_never_see_each_other(architecture: str, layout: str) -> None:
    batch = random_batch(layout)
    certify_documents(tiny_model(architecture), replace(batch, corrupted=batch.tokens))


def test_a_convolution_across_documents_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "leaking", AcrossDocuments)
    with pytest.raises(AssertionError, match="is seen from another"):
        certify_documents(MaskedLM(tiny_config("leaking")).eval(), random_batch("packed"))


FEATURES = [
    *((architecture, {}) for architecture in REGISTRY),
    *(("local", {"near": near, "taps": taps}) for near, taps in ((1, 0), (1, 1), (3, 1), (5, 0), (4, 4), (12, 12))),
    *(("bicausal", {"width": 0, "near": near, "taps": taps}) for near, taps in ((0, 1), (0, 5), (2, 4), (3, 3))),
    ("bicausal", {"width": 0, "taps": 2, "convolved": 1}),
    ("bicausal", {"width": 0, "convolved": 3}),
    *((architecture, {"words": 0.0}) for architecture in ("local", "bicausal")),
    ("bicausal", {"taps": 2, "convolved": 1}),
    *(
        ("bicausal", options)
        for options in (
            {"near": 0, "taps": 0, "start": False},
            {"tied": False},
            {"level": True, "depth": 2},
            {"width": 16, "heads": 2},
        )
    ),
    ("permuted", {"near": 2}),
    ("permuted", {"near": 2, "words": 0.25}),
    *(("partition", options) for options in ({"near": 2}, {"encoder": 1, "low": 0.5}, {"near": 3, "high": 0.2})),
    ("causal_first", {"narrow": 1}),
    *(("electra", options) for options in ({"generator_width": 1.0, "generator_layers": 3}, {"generator_width": 0.25})),
    *(("rtd", {"generator": generator}) for generator in ("local", "bicausal")),
    *(("vanilla", {"near": near, "taps": taps}) for near, taps in ((3, 0), (0, 3), (2, 4))),
    *(("vanilla", {"narrow": narrow, "near": near, "taps": near}) for narrow in (1, 2) for near in (0, 2)),
]


@pytest.mark.parametrize(("architecture", "options"), FEATURES)
def test_no_leak_with_every_parameter_random(architecture: str, options: dict) -> None:
    """Zero starts hide leaks: a path whose weight is 0 carries nothing yet."""
    model = tiny_model(architecture, options=tuple(options.items()))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    for layout in LAYOUTS:
        certify(model, random_batch(layout))
