"""What every registered architecture keeps besides the no-leak certificate."""

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kernels.attention import spans_of
from model import MaskedLM
from model.architectures import REGISTRY, Architecture, architecture_class
from model.batch import Batch, PositionsByRow
from model.config import ModelConfig
from model.flops import step_flops
from model.layers import by_layer, projected
from model.neighbours import query_start
from model.rotary import rotate
from tests.conftest import LAYOUTS, random_batch
from tests.model.models import tiny_config, tiny_model
from tests.model.test_no_leak import masked_batch


@pytest.mark.parametrize("preset", ["modern", "bert"])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_documents_of_a_row_are_predicted_as_if_alone(architecture: str, preset: str) -> None:
    assert_documents_alone(tiny_model(architecture, preset), 1e-5)


def assert_documents_alone(model: MaskedLM, tolerance: float) -> None:
    """Each document of a packed row is predicted as it is in a row of its own."""
    packed = masked_batch(random_batch("packed", rows=1, length=12))
    whole = model.architecture.predict(packed)
    for document in packed.documents.unique().tolist():
        at = packed.documents[0] == document
        alone = Batch(packed.tokens[:, at], None, packed.corrupted[:, at], packed.masked[:, at])
        atol = tolerance * max(1.0, whole.abs().max().item())
        torch.testing.assert_close(whole[:, at], model.architecture.predict(alone), rtol=tolerance, atol=atol)


@pytest.mark.parametrize("with_self", [True, False])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_padding_changes_no_encoding(architecture: str, with_self: bool) -> None:
    model = tiny_model(architecture)
    if not (model.architecture.without_self or with_self):
        with pytest.raises(ValueError, match="with_self"):
            model.encode(random_batch("whole"), with_self=False)
        return
    batch = random_batch("padded")
    length = int((batch.documents[0] >= 0).sum())
    alone = model.encode(Batch(batch.tokens[:1, :length]), with_self=with_self)
    torch.testing.assert_close(model.encode(batch, with_self=with_self)[:1, :length], alone, rtol=1e-5, atol=3e-5)


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
    positions = torch.tensor([[5]])
    with torch.no_grad():
        before, _ = model.architecture.leave_one_out(batch, positions)
        for other in range(batch.tokens.shape[1]):
            tokens = batch.tokens.clone()
            tokens[:, other] = tokens[:, other] % 50 + 6
            after, _ = model.architecture.leave_one_out(replace(batch, tokens=tokens), positions)
            assert torch.equal(before, after) == (other == 5)


def block_flops(config: ModelConfig, rows: int, tokens: int, length: int) -> float:
    """Of one layer whose keys are `tokens` and of which `rows` are computed beyond its attention; by hand."""
    d, f = config.d_model, config.d_ff
    feed_forward = (3 if config.feed_forward == "gated" else 2) * d * f
    return 2.0 * tokens * (2 * d * d) + 4.0 * tokens * length * d + 2.0 * rows * (d * d + feed_forward)


@pytest.mark.parametrize("preset", ["modern", "bert"])
@pytest.mark.parametrize("masked", [2, 8, 24])
def test_training_flops_by_hand_for_vanilla(preset: str, masked: int) -> None:
    config = tiny_config("vanilla", preset)
    tokens, length, d = 24, 12, config.d_model
    forward = (config.n_layers - 1) * (
        block_flops(config, tokens, tokens, length) + 2.0 * tokens * d * d
    )  # with queries
    forward += block_flops(config, masked, tokens, length) - 4.0 * (tokens - masked) * length * d + 2.0 * masked * d * d
    forward += masked * 2.0 * d * (config.vocab_size + (d if config.head == "dense" else 0))  # the head
    assert step_flops(config, 2, 12)(masked) == pytest.approx(3 * forward)


@pytest.mark.parametrize("d_embed", [0, 16])
def test_training_flops_by_hand_for_tta(d_embed: int) -> None:
    """Queries of the first layer are one vector: one row of its query product, not one for each position."""
    config = tiny_config("tta", d_embed=d_embed)
    tokens, length, d, e = 24, 12, config.d_model, config.d_embed
    forward = config.n_layers * block_flops(config, tokens, tokens, length)
    forward += 2.0 * ((config.n_layers - 1) * tokens + 1) * d * d
    forward += tokens * 2.0 * e * config.vocab_size
    forward += 2.0 * (2 * tokens + 1) * e * d if e < d else 0  # up from the table, and down to it
    assert step_flops(config, 2, 12)(tokens) == pytest.approx(3 * forward)


@pytest.mark.parametrize("architecture", REGISTRY)
def test_some_positions_are_the_same_as_all(architecture: str) -> None:
    """Computing the last layer for some positions alone changes nothing at these."""
    model, batch = tiny_model(architecture), masked_batch(random_batch("packed"))
    positions = torch.tensor([1, 5, 17])
    whole = model.architecture.predict(batch).flatten(0, 1)[positions]
    torch.testing.assert_close(model.architecture.predict(batch, positions), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["tta", "vanilla"])
def test_neither_step_does_what_nobody_reads(architecture: str) -> None:
    """Operators of a training step: as many norms as there are, and for vanilla no feed-forward of unmasked positions."""
    model = tiny_model(architecture).train()
    batch = masked_batch(random_batch("whole"))
    batch = batch if model.architecture.masking is not None else random_batch("whole")
    with torch.profiler.profile(record_shapes=True) as profiler:
        model(batch)
    layers = model.config.n_layers
    counts = {event.key: event.count for event in profiler.key_averages()}
    # Two norms a layer, two of embeddings (tta: of content and of [MASK]) or one (vanilla, which norms the masked positions of
    # the last layer apart), two in the head.
    assert counts["aten::native_layer_norm"] == 2 * layers + 2 + 2
    # vanilla: q, k and v in one product, then out, enter, leave; in the last layer q of the masked positions apart. tta: q, out,
    # enter, leave, and all keys and values once.
    assert counts["aten::linear"] == 4 * layers + 1
    rows = [math.prod(e.input_shapes[0][:-1]) for e in profiler.events() if e.name == "aten::linear"]
    assert rows[-2:] == [batch.predicted] * 2  # the last layer's feed-forward


@pytest.mark.parametrize("architecture", REGISTRY)
def test_a_word_is_hidden_whole(architecture: str) -> None:
    assert_a_word_is_hidden(tiny_model(architecture))


def assert_a_word_is_hidden(model: MaskedLM) -> None:
    """With words, a position's state depends on no token of its word and on every other."""
    batch = random_batch("whole", rows=1)
    words = torch.tensor([[0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 6]])
    positions = torch.tensor([[4]])
    start = (words[:, :, None] == words[:, None, :]).int().argmax(-1)
    batch = replace(batch, spans=spans_of(start, start + (words[:, :, None] == words[:, None, :]).sum(-1) - 1))
    with torch.no_grad():
        before, _ = model.architecture.leave_one_out(batch, positions)
        for other in range(12):
            tokens = batch.tokens.clone()
            tokens[:, other] = tokens[:, other] % 50 + 6
            after, _ = model.architecture.leave_one_out(replace(batch, tokens=tokens), positions)
            assert torch.equal(before, after) == (other in (3, 4, 5)), other


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown architecture 'elektra'; registered are .*tta.*vanilla"):
        architecture_class("elektra")
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


def test_a_config_from_before_there_was_a_choice_has_the_head_of_its_time() -> None:
    told = json.loads(tiny_config("vanilla", head="dense").to_json())
    del told["head"]
    assert ModelConfig.from_json(json.dumps(told)).head == "dense"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('"pre"', '"Pre"'), "norm is 'Pre'; it must be one of pre, post"),
        (('"bias": true', '"bias": "no"'), "bias is 'no'; it must be true or false"),
        (('"n_layers": 3', '"n_layers": 3.0'), "n_layers is 3.0; it must be a whole number"),
        (('"dropout": 0.0', '"dropout": NaN'), "dropout is nan; it must be a number"),
        (('"gated"', '"swiglu"'), "feed_forward is 'swiglu'; it must be one of gated, gelu"),
        (('"direct"', '"none"'), "head is 'none'; it must be one of direct, dense"),
        (('"norm"', '"nrm"'), "not the model configuration of a checkpoint"),
    ],
)
def test_an_edited_config_is_refused(change: tuple[str, str], sentence: str) -> None:
    text = tiny_config("tta").to_json()
    assert change[0] in text
    with pytest.raises(ValueError, match=sentence):
        ModelConfig.from_json(text.replace(*change))


def test_the_masking_rate_may_fall() -> None:
    model = tiny_model("vanilla", options=(("masking_rate", 0.4), ("final_masking_rate", 0.2)))
    rates = [model.architecture.masking_at(fraction).rate for fraction in (0.0, 0.5, 1.0, 1.1)]
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.2])
    assert tiny_model("vanilla").architecture.masking_at(0.9).rate == 0.3
    with pytest.raises(ValueError, match="masking rate of 1.5"):
        tiny_model("vanilla", options=(("final_masking_rate", 1.5),))


@pytest.mark.parametrize("options", [{"near": 0, "taps": 0, "words": 0.0}])
def test_local_without_its_options_is_tta(options: dict) -> None:
    batch = random_batch("packed")
    tta, local = tiny_model("tta"), tiny_model("local", options=tuple(options.items()))
    local.load_state_dict(tta.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(local.architecture.predict(batch), tta.architecture.predict(batch))


@pytest.mark.parametrize("architecture", ["local", "vanilla"])
@pytest.mark.parametrize("options", [{"near": 2}, {"near": 2, "taps": 2}, {"near": 3, "taps": 3}])
def test_neighbours_and_convolution_respect_documents(architecture: str, options: dict) -> None:
    """Packed, a document is predicted as if alone; with every parameter random, the taps too."""
    options = {"near": 0, "taps": 0} | options
    model = tiny_model(architecture, options=tuple(options.items()))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    assert_documents_alone(model, 1e-4)


@pytest.mark.parametrize("name", ["local near", "local taps", "vanilla near", "vanilla narrow", "bicausal taps"])
def test_impossible_reach_is_refused(name: str) -> None:
    architecture, option = name.split()
    with pytest.raises(ValueError, match=r"they must be 0 (\(off\) )?or more"):
        tiny_model(architecture, options=((option, -1),))


def test_near_must_reach_as_far_as_what_is_not_read() -> None:
    with pytest.raises(ValueError, match=r"near is 1 and taps is 2: .* near must be at least taps"):
        tiny_model("local", options=(("near", 1), ("taps", 2)))
    with pytest.raises(ValueError, match="words is 1.5; it is the share of the words"):
        tiny_model("local", options=(("words", 1.5),))
    with pytest.raises(ValueError, match="narrow is 3; it must be less than the 3 layers"):
        tiny_model("vanilla", options=(("narrow", 3),))


@pytest.mark.parametrize("layout", ["whole", "packed"])
def test_both_sides_are_what_their_definition_says(layout: str) -> None:
    """The first layer's attention by hand; and hiding a position from itself alone, term by term, changes nothing."""
    model, batch = tiny_model("local", options=(("near", 3),)), random_batch(layout)
    architecture, n = model.architecture, batch.tokens.shape[1]
    with torch.no_grad():
        architecture.tap_weights.normal_(generator=torch.Generator().manual_seed(0))
        content = architecture.embedding(batch.tokens, batch.documents)
        raw = projected(architecture.blocks, content)
        ids = torch.zeros_like(batch.tokens) if batch.documents is None else batch.documents
        kv = raw.clone()
        for row, position, step in itertools.product(range(len(raw)), range(n), (-2, -1, 1, 2)):
            other = position + step
            if 0 <= other < n and ids[row, position] == ids[row, other] >= 0:
                kv[row, position] += architecture.tap_weights[int(step > 0), abs(step) - 1] * raw[row, other]
        k, v = by_layer(architecture.blocks, kv)[0]
        start = query_start(architecture, content, batch)
        q = architecture.blocks[0].queries(start, content.shape[:2])
        seen = (ids[:, :, None] == ids[:, None, :]) & (ids >= 0)[:, None]
        seen = seen & ((torch.arange(n) - torch.arange(n)[:, None]).abs() > 2)
        expected = F.scaled_dot_product_attention(q, k, v, seen[:, None]).nan_to_num(0.0)
        expected = expected.masked_fill(~seen.any(-1)[:, None, :, None], 0.0)
        with recorded_attention(architecture) as found:
            states = architecture.predict(batch)
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)
        position = torch.arange(n).expand(len(raw), -1)
        apart = architecture.predict(replace(batch, spans=spans_of(position, position)))
    torch.testing.assert_close(apart, states, rtol=1e-4, atol=1e-4)


@contextmanager
def recorded_attention(architecture: Architecture) -> Iterator[list[torch.Tensor]]:
    """What each layer's attention gives to `update`."""
    found, update = [], architecture.blocks[0].update
    architecture.blocks[0].update = lambda x, attended, positions: (
        found.append(attended) or update(x, attended, positions)
    )
    yield found
    del architecture.blocks[0].update


def test_one_sided_the_convolution_is_kept_to_two_layers_or_fewer() -> None:
    kept = [tiny_model("bicausal", n_layers=n).architecture.convolved for n in (1, 2, 3)]
    assert kept == [1, 2, 2] and not tiny_model("bicausal", options=(("taps", 0),)).architecture.convolved
    for n in (0, 9):
        with pytest.raises(ValueError, match=f"convolved is {n}; it must be from 1 to the 3 layers"):
            tiny_model("bicausal", options=(("convolved", n),))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_widest_narrow_model_is_vanilla(layout: str) -> None:
    """All positions through all layers by hand, and the masked ones alone through the last."""
    model, batch = tiny_model("vanilla"), masked_batch(random_batch(layout))
    with torch.no_grad():
        whole = model.architecture.stream(batch.corrupted, batch).flatten(0, 1)[batch.positions]
        found = model.architecture.predict(batch, batch.positions)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
        narrow = tiny_model("vanilla", options=(("narrow", 2),))
        assert torch.equal(narrow.architecture.predict(batch, batch.positions), found)
        one = tiny_model("vanilla", options=(("narrow", 1),)).architecture
        assert (one.predict(batch, batch.positions) - found).abs().max() > 1e-3
        torch.testing.assert_close(
            one.encode(batch), model.encode(batch)
        )  # fine-tuning runs all layers over all positions


@pytest.mark.parametrize("narrow", [0, 1])
def test_a_narrow_model_s_masked_positions_say_nothing_to_others(narrow: int) -> None:
    """Beyond what [MASK]s say in the wide layers: what is predicted at one is the same whichever others are carried on."""
    model, batch = (
        tiny_model("vanilla", options=(("narrow", narrow),)).architecture,
        masked_batch(random_batch("packed")),
    )
    with torch.no_grad():
        together = model.predict(batch, batch.positions)
        for i, position in enumerate(batch.positions):
            torch.testing.assert_close(model.predict(batch, position[None])[0], together[i], rtol=1e-4, atol=1e-5)


def test_positions_by_row() -> None:
    found = PositionsByRow.of(torch.tensor([1, 3, 10, 11, 12]), 3, 5)
    assert found.slots.tolist() == [[1, 3, 0], [0, 0, 0], [0, 1, 2]] and found.order.tolist() == [0, 1, 6, 7, 8]


def test_without_gradients_the_same_is_computed_to_the_bit() -> None:
    """Rotation and gate take less memory then."""
    x = torch.randn(2, 7, 3, 8)
    block, states = tiny_model("tta").architecture.blocks[0], torch.randn(2, 7, 32)
    with torch.no_grad():
        found = rotate(x), block.feed_forward(states)
    assert torch.equal(found[0], rotate(x)) and torch.equal(found[1], block.feed_forward(states))
