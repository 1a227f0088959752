import math

import pytest
import torch
from eval.leave_one_out import Yardstick

from data.batch import Batch
from tests.conftest import VOCAB, random_batch
from tests.model.models import tiny_model

SPECIAL = (0, 1, 2, 3, 4)


def yardstick(places: int = 4) -> Yardstick:
    return Yardstick.sample(random_batch("packed", rows=20, length=12), SPECIAL, places, 0, characters_per_token=4.0)


@pytest.mark.parametrize("architecture", ["tta", "vanilla"])
def test_a_model_that_knows_nothing_scores_log_v(architecture: str) -> None:
    model = tiny_model(architecture)
    with torch.no_grad():
        model.head.table.weight.zero_()
        model.head.bias.zero_()
    score = yardstick().measure(model)
    assert score.nll == pytest.approx(math.log(VOCAB), rel=1e-5) and score.standard_error < 1e-5
    assert score.bits_per_character == pytest.approx(math.log2(VOCAB) / 4.0, rel=1e-5)
    assert score.tokens == 80


@pytest.mark.parametrize("architecture", ["tta", "vanilla"])
def test_the_score_is_that_of_the_pseudo_log_likelihood(architecture: str) -> None:
    model, ruler = tiny_model(architecture), yardstick()
    scored = model.pseudo_log_likelihood(Batch(ruler.tokens, ruler.documents))
    expected = -scored.log_probs.gather(1, ruler.places)
    score = ruler.measure(model)
    assert score.nll == pytest.approx(expected.mean().item(), rel=1e-4)
    assert score.standard_error == pytest.approx((expected.std() / math.sqrt(80)).item(), rel=1e-4)
    assert score.passes == scored.passes


def test_a_model_that_is_always_right_is_found_right() -> None:
    batch = Batch(torch.full((3, 12), 7))
    model = tiny_model("tta")
    with torch.no_grad():
        model.head.bias.fill_(-50.0)
        model.head.bias[7] = 50.0
    score = Yardstick.sample(batch, SPECIAL, 5, 0, 4.0).measure(model)
    assert score.accuracy == 1.0 and score.nll == pytest.approx(0.0, abs=1e-3)


def test_places_are_ordinary_distinct_and_the_seed_s() -> None:
    batch = random_batch("whole", rows=50, length=12)
    tokens = batch.tokens.clone()
    tokens[:, ::3] = 2
    one, two, other = (Yardstick.sample(Batch(tokens), SPECIAL, 6, seed, 4.0) for seed in (0, 0, 1))
    assert torch.equal(one.places, two.places) and not torch.equal(one.places, other.places)
    assert not torch.isin(tokens.gather(1, one.places), torch.tensor(SPECIAL)).any()
    assert all(len(set(row)) == 6 for row in one.places.tolist())
    with pytest.raises(ValueError, match="only 8 ordinary ones and 9 places"):
        Yardstick.sample(Batch(tokens), SPECIAL, 9, 0, 4.0)


def test_the_curve_s_places_are_the_first_of_all() -> None:
    ruler = yardstick()
    assert torch.equal(ruler.first(5).places, ruler.places[:5])


def test_measuring_leaves_the_model_in_training() -> None:
    model = tiny_model("tta").train()
    yardstick().measure(model)
    assert model.training
