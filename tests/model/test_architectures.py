"""What every registered architecture keeps besides the no-leak certificate."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from data.batch import Batch
from kernels.dispatch import use_backend
from model.architectures import REGISTRY, architecture_class
from tests.conftest import random_batch
from tests.model.models import tiny_config, tiny_model
from tests.model.test_no_leak import masked_batch


@pytest.mark.parametrize("preset", ["modern", "bert"])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_documents_of_a_row_are_predicted_as_if_alone(architecture: str, preset: str) -> None:
    model = tiny_model(architecture, preset)
    packed = masked_batch(random_batch("packed", rows=1, length=12))
    whole = model.architecture.predict(packed)
    for document in packed.documents.unique().tolist():
        at = packed.documents[0] == document
        alone = Batch(packed.tokens[:, at], None, packed.corrupted[:, at], packed.masked[:, at])
        torch.testing.assert_close(whole[:, at], model.architecture.predict(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_self", [True, False])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_padding_changes_no_encoding(architecture: str, with_self: bool) -> None:
    model = tiny_model(architecture)
    if model.architecture.masking is not None and not with_self:
        with pytest.raises(ValueError, match="with_self"):
            model.encode(random_batch("whole"), with_self=False)
        return
    batch = random_batch("padded")
    length = int((batch.documents[0] >= 0).sum())
    alone = model.encode(Batch(batch.tokens[:1, :length]), with_self=with_self)
    torch.testing.assert_close(model.encode(batch, with_self=with_self)[:1, :length], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", REGISTRY)
def test_encode_sees_the_own_token(architecture: str) -> None:
    model, batch = tiny_model(architecture), random_batch("whole")
    tokens = batch.tokens.clone()
    tokens[:, 5] = tokens[:, 5] % 50 + 6
    changed = model.encode(replace(batch, tokens=tokens))[:, 5] - model.encode(batch)[:, 5]
    assert changed.abs().max() > 1e-3


@pytest.mark.parametrize("architecture", REGISTRY)
def test_prediction_sees_every_other_token(architecture: str) -> None:
    """Leave-one-out must leave one out, and no more."""
    model, batch = tiny_model(architecture), random_batch("whole", rows=1)
    places = torch.tensor([[5]])
    with torch.no_grad():
        before, _ = model.architecture.leave_one_out(batch, places)
        for other in range(batch.tokens.shape[1]):
            tokens = batch.tokens.clone()
            tokens[:, other] = tokens[:, other] % 50 + 6
            after, _ = model.architecture.leave_one_out(replace(batch, tokens=tokens), places)
            assert torch.equal(before, after) == (other == 5)


@pytest.mark.parametrize("d_embed", [0, 16])
@pytest.mark.parametrize("preset", ["modern", "bert"])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_flops_are_what_pytorch_counts(architecture: str, preset: str, d_embed: int) -> None:
    model, batch = tiny_model(architecture, preset, d_embed=d_embed), masked_batch(random_batch("whole"))
    with use_backend("reference"), FlopCounterMode(display=False) as counter:  # it computes every key for every row
        model.architecture.predict(batch)
    expected = model.architecture.flops_per_token(batch.tokens.shape[1]) * batch.tokens.numel()
    if model.architecture.predicted_fraction == 1.0 and d_embed:  # queries are widened [MASK]s, one more product
        expected += 2.0 * d_embed * model.config.d_model * batch.tokens.numel()
    assert counter.get_total_flops() == expected


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown architecture 'electra'; registered are .*tta.*vanilla"):
        architecture_class("electra")
    with pytest.raises(ValueError, match="TTA has no option depth"):
        tiny_model("tta", options=(("depth", 3),))
    with pytest.raises(ValueError, match="masking rate of 1.5"):
        tiny_model("vanilla", options=(("masking_rate", 1.5),))


def test_a_text_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="40 tokens and the model reads at most 32"):
        tiny_model("tta").encode(random_batch("whole", length=40))


def test_config_survives_json() -> None:
    config = tiny_config("vanilla", options=(("masking_rate", 0.4),))
    assert type(config).from_json(config.to_json()) == config
