import math

import pytest
import torch

from model.config import ModelConfig, minimum_entropy_width
from model.layers import hoisted_keys_values
from model.rotary import document_positions, rotate
from tests.conftest import MASK, VOCAB
from tests.model.models import tiny_config, tiny_model


@pytest.mark.parametrize("preset", ["modern", "bert"])
def test_hoisted_keys_and_values_are_the_plain_ones(preset: str) -> None:
    blocks = tiny_model("tta", preset).architecture.blocks
    content = torch.randn(2, 12, 32)
    for block, (k, v) in zip(blocks, hoisted_keys_values(blocks, content), strict=True):
        plain_k, plain_v = block.keys_values(content)
        torch.testing.assert_close(k, plain_k, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(v, plain_v, rtol=1e-5, atol=1e-6)


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(8), torch.randn(8)
    rotated_q, rotated_k = (rotate(x.expand(1, 40, 1, 8))[0, :, 0] for x in (q, k))
    scores = rotated_q @ rotated_k.T  # (40, 40)
    for distance in (-7, 0, 3):
        along = scores.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=1e-4, atol=1e-5)
    assert (scores.diagonal(3)[0] - scores.diagonal(0)[0]).abs() > 1e-3
    torch.testing.assert_close(rotated_q.norm(dim=-1), q.norm().expand(40))


def test_document_positions_restart() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 2, 2, -1, -1], [4, 4, 4, 4, 4, 4, 4, 4]])
    assert document_positions(documents).tolist() == [[0, 1, 2, 0, 0, 1, 0, 1], list(range(8))]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"n_heads": 3}, "d_model 32 does not divide into 3 heads"),
        ({"n_layers": 0}, "n_layers is 0; it must be at least 1"),
        ({"d_embed": 64}, "d_embed 64 is wider than d_model 32"),
        ({"mask_id": 99}, "mask_id 99 lies outside the vocabulary of 64"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must lie in \[0, 1\)"),
        ({"n_heads": 32}, "Rotary positions need an even head width"),
        ({"size": "huge"}, "Unknown size 'huge'; choose one of tiny, small"),
        ({"preset": "gpt"}, "Unknown block preset 'gpt'"),
        ({"width": 3}, "Unknown model option width"),
    ],
)
def test_impossible_configurations_are_refused(overrides: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tiny_config("tta", **overrides)


def test_both_feed_forwards_hold_as_many_weights() -> None:
    modern, bert = (ModelConfig.preset("tta", vocab_size=VOCAB, mask_id=MASK, preset=p) for p in ("modern", "bert"))
    assert 3 * modern.d_ff == pytest.approx(2 * bert.d_ff, rel=0.03)


def test_minimum_entropy_width() -> None:
    assert 8.33 * math.log(21_128) == pytest.approx(83, abs=0.1)  # the essay's example: BERT's Chinese vocabulary
    assert minimum_entropy_width(21_128) == 96
