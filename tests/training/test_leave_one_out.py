import math

import numpy as np
import pytest
import torch

from data.statistics import clustered_mean
from data.tokenizer import Tokenizer
from data.words import word_bounds, word_starts
from model.batch import Batch
from tests.conftest import VOCAB, random_batch
from tests.model.models import tiny_model
from training.leave_one_out import Clusters, Yardstick
from training.sampling import HeldOut

SPECIAL = (0, 1, 2, 3, 4)


def held_out(batch: Batch) -> HeldOut:
    """Every row from a document of its own."""
    return HeldOut(batch, np.arange(len(batch.tokens))[:, None].repeat(batch.tokens.shape[1], 1))


def yardstick(positions: int = 4) -> Yardstick:
    return Yardstick.sample(held_out(random_batch("packed", rows=20, length=12)), SPECIAL, positions, 0)


@pytest.mark.parametrize("architecture", ["tta", "vanilla"])
def test_a_model_that_knows_nothing_scores_log_v(architecture: str) -> None:
    model = tiny_model(architecture)
    with torch.no_grad():
        model.head.table.weight.zero_()
        model.head.bias.zero_()
    score = yardstick().measure(model)
    assert score.nll == pytest.approx(math.log(VOCAB), rel=1e-5) and score.standard_error < 1e-5
    assert score.tokens == 80


@pytest.mark.parametrize("architecture", ["tta", "vanilla"])
def test_the_score_is_that_of_the_pseudo_log_likelihood(architecture: str) -> None:
    model, ruler = tiny_model(architecture), yardstick()
    scored = model.pseudo_log_likelihood(Batch(ruler.tokens, ruler.documents))
    expected = -scored.log_probs.gather(1, ruler.positions)
    score = ruler.measure(model)
    assert score.nll == pytest.approx(expected.mean().item(), rel=1e-4)
    by_row = expected.mean(1)  # every row is a document, and all have as many positions
    assert score.standard_error == pytest.approx((by_row.std() / math.sqrt(20)).item(), rel=1e-4)
    assert score.passes == scored.passes


def test_a_model_that_is_always_right_is_found_right() -> None:
    batch = Batch(torch.full((3, 12), 7))
    model = tiny_model("tta")
    with torch.no_grad():
        model.head.bias.fill_(-50.0)
        model.head.bias[7] = 50.0
    score = Yardstick.sample(held_out(batch), SPECIAL, 5, 0).measure(model)
    assert score.accuracy == 1.0 and score.nll == pytest.approx(0.0, abs=1e-3)


def test_positions_are_ordinary_distinct_and_the_seed_s() -> None:
    batch = random_batch("whole", rows=50, length=12)
    tokens = batch.tokens.clone()
    tokens[:, ::3] = 2
    one, two, other = (Yardstick.sample(held_out(Batch(tokens)), SPECIAL, 6, s) for s in (0, 0, 1))
    assert torch.equal(one.positions, two.positions) and not torch.equal(one.positions, other.positions)
    assert not torch.isin(tokens.gather(1, one.positions), torch.tensor(SPECIAL)).any()
    assert all(len(set(row)) == 6 for row in one.positions.tolist())
    assert Yardstick.sample(held_out(Batch(tokens)), SPECIAL, 9, 0).positions.shape == (50, 8)  # as many as all have
    with pytest.raises(ValueError, match="has no ordinary token"):
        Yardstick.sample(held_out(Batch(torch.full_like(tokens, 2))), SPECIAL, 9, 0)


def test_the_curve_s_positions_are_the_first_of_all() -> None:
    ruler = yardstick()
    assert torch.equal(ruler.first(20).positions, ruler.positions[:5]) and ruler.first(20).scored == 20


def test_a_clustered_error_by_hand() -> None:
    """Three documents of 2, 2 and 4 positions: mean 2, residual sums -2, 0, 2; var = 3/2 (4 + 0 + 4) / 64."""
    clusters = Clusters.of(np.array([1.0, 1, 2, 2, 2, 2, 3, 3]), np.array([5, 5, 7, 7, 9, 9, 9, 9]))
    assert (clusters.documents, clusters.counts, clusters.sums) == ([5, 7, 9], [2, 2, 4], [2.0, 4.0, 10.0])
    assert clustered_mean(clusters.sums, clusters.counts) == (2.0, pytest.approx(math.sqrt(1.5 * 8) / 8))
    assert clustered_mean([3.0], [2]) == (1.5, None)


@pytest.fixture(scope="module")
def tokenizer(text_file) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


def test_words_are_what_stands_between_spaces(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the barids often see.")
    tokens = torch.tensor([[tokenizer.bos_id, *ids, tokenizer.eos_id]])
    first, last = word_bounds(word_starts(tokens.numpy(), tokenizer.starts_word[tokens.numpy()], tokenizer.special_ids))
    texts = [
        tokenizer.decode(tokens[0, a : b + 1].tolist()).strip()
        for a, b in sorted({*zip(first[0].tolist(), last[0].tolist())})
    ]
    assert texts == ["", "the", "barids", "often", "see.", ""]


def test_tokens_are_told_apart_by_kind(tokenizer: Tokenizer) -> None:
    """By their position in their word, and by whether their neighbours stand together elsewhere: by hand on every position."""
    ids = tokenizer.encode("the barids often see the denum twice, the barids often see")
    ruler = Yardstick.sample(held_out(Batch(torch.tensor([ids]))), SPECIAL, len(ids), 0, tokenizer.starts_word)
    starts = [i == 0 or bool(tokenizer.starts_word[t]) for i, t in enumerate(ids)]
    for i, position in enumerate(ruler.positions[0].tolist()):
        alone = starts[position] and (position + 1 == len(ids) or starts[position + 1])
        kind = "one-piece word" if alone else "first piece" if starts[position] else "later piece"
        inner = range(1, len(ids) - 1)
        copied = position in inner and any(
            j != position and (ids[j - 1], ids[j + 1]) == (ids[position - 1], ids[position + 1]) for j in inner
        )
        found = {name for name, own in ruler.kinds.items() if own[0, i]}
        assert found == {kind, "copied" if copied else "not copied"}
    assert all(own.any() for own in ruler.kinds.values())
    model = tiny_model("tta", vocab_size=tokenizer.vocab_size, max_length=64)
    score = ruler.measure(model)
    for names in (("one-piece word", "first piece", "later piece"), ("copied", "not copied")):
        assert sum(score.kinds[name][0] for name in names) == len(ids)
        assert sum(score.kinds[name][1] for name in names) == pytest.approx(score.nll * len(ids))


def test_measuring_leaves_the_model_in_training() -> None:
    model = tiny_model("tta").train()
    yardstick().measure(model)
    assert model.training
