"""Grams: which pairs a place looks up, and what it finds."""

from collections import Counter

import pytest
import torch

from data.batch import Batch
from model.grams import Grams
from tests.conftest import random_batch
from tests.model.models import tiny_config, tiny_model


def grams(rows: int = 4096) -> Grams:
    return Grams(tiny_config("local"), rows)


def test_each_kind_of_pair_has_rows_of_its_own_and_every_token_but_its_own_counts() -> None:
    tokens = torch.tensor([[7, 8, 9, 10, 11]])
    index = grams().index(tokens, None)
    assert (index // 4096 == torch.arange(3)).all()
    middle = index[0, 2]
    for place, kinds in enumerate(([0], [0, 2], [], [1, 2], [1])):  # before, after, around
        other = tokens.clone()
        other[0, place] = 42
        assert (grams().index(other, None)[0, 2] != middle).nonzero().flatten().tolist() == kinds


def test_the_same_pair_is_the_same_row_wherever_it_stands_and_its_order_counts() -> None:
    index = grams().index(torch.tensor([[7, 8, 9, 7, 8, 5, 8, 7, 6]]), None)[0]
    assert index[2, 0] == index[5, 0] != index[8, 0]  # after 7 8, and after 8 7


def test_pairs_are_spread_over_the_rows() -> None:
    """All pairs of 100 tokens on 1,000 rows: ten a row, as evenly as chance would have it (Poisson's variance, 10)."""
    a, b = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
    tokens = torch.stack([a.flatten(), b.flatten(), torch.zeros(10_000, dtype=torch.int64)], 1)
    found = torch.tensor(list(Counter(grams(1000).index(tokens, None)[:, 2, 0].tolist()).values())).float()
    assert len(found) > 990 and 8 < found.var() < 12.5


def test_outside_of_a_document_and_hidden_there_is_none() -> None:
    """Packed, a document looks up what it looks up alone; what is hidden counts as what is not there."""
    batch = random_batch("packed")
    packed = grams().index(batch.tokens, batch.layout)
    for row, document in (
        (r, d) for r in range(len(batch.tokens)) for d in batch.documents[r].unique().tolist() if d >= 0
    ):
        own = batch.documents[row] == document
        assert torch.equal(packed[row, own], grams().index(batch.tokens[row, own][None], None)[0])
    tokens = torch.tensor([[7, 8, 9, 10, 11]])
    hidden = torch.zeros(1, 5, 5, dtype=torch.bool)
    hidden[0, 2, 3:] = True
    assert torch.equal(grams().index(tokens, None, hidden)[0, 2], grams().index(tokens[:, :3], None)[0, 2])


@pytest.mark.parametrize("architecture", ["local", "vanilla"])
def test_new_tables_say_nothing_and_trained_ones_are_added(architecture: str) -> None:
    model = tiny_model(architecture, options=(("grams", 64),))
    tokens = random_batch("whole").tokens
    table = model.architecture.grams.table
    batch = Batch(tokens, corrupted=tokens)
    with torch.no_grad():
        assert not model.architecture.grams(tokens, None).any()
        before = model.architecture.predict(batch)
        table.weight.normal_()
        index = model.architecture.grams.index(tokens, None)
        torch.testing.assert_close(model.architecture.grams(tokens, None), table.weight[index].sum(2))
        assert (model.architecture.predict(batch) != before).any()


def test_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"grams is 1; it must be 0 \(off\), or the rows"):
        tiny_model("local", options=(("grams", 1),))
