from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.masking import Masking
from data.prepare import PreparedCorpus
from data.shards import Shards
from data.vocabulary import Vocabulary
from model.batch import Batch
from training.sampling import Batches, held_out_windows

VOCABULARY = Vocabulary(size=1_000, pad_id=0, bos_id=1, eos_id=2, mask_id=3, unk_id=4)


class Stream(Shards):
    """A stream in memory whose tokens say where they are: token = position + 5. Positions in `begins` hold BOS."""

    def __init__(self, tokens: int, begins: tuple[int, ...] = ()):
        self.stream = np.arange(tokens) + 5
        self.stream[list(begins)] = VOCABULARY.bos_id
        self.tokens, self.vocabulary, self.folder = tokens, replace(VOCABULARY, size=tokens + 5), "memory"
        self.documents, self._ends = max(1, len(begins)), np.array([*sorted(begins)[1:], tokens])
        self._part_ends, self._bits = self._ends, ()

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        return self.stream[(starts[:, None] + np.arange(length)) % self.tokens]


def equal(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("tokens", "documents", "corrupted", "masked")]
    return all(x is y if x is None or y is None else torch.equal(x, y) for x, y in pairs)


@given(st.integers(64, 700), st.integers(1, 7), st.integers(8, 13), st.integers(0, 9))
def test_an_epoch_covers_the_stream_exactly_once(tokens: int, rows: int, length: int, seed: int) -> None:
    if rows * length > tokens:
        return
    batches = Batches(Stream(tokens), rows, length, seed)
    per_epoch = batches.windows_per_epoch
    steps = -(-2 * per_epoch // rows)
    windows = torch.cat([batches.at(step).tokens for step in range(steps)])
    for epoch in range(2):
        positions = windows[epoch * per_epoch : (epoch + 1) * per_epoch].flatten() - 5
        assert len(positions.unique()) == len(positions) == per_epoch * length  # nothing twice
        assert tokens - len(positions) < length  # and less than a window left over


def test_each_epoch_has_an_order_of_its_own() -> None:
    batches = Batches(Stream(400), 1, 10)
    starts = np.array([int(batches.at(step).tokens[0, 0]) for step in range(120)]).reshape(3, 40)
    steps = {tuple(np.diff(epoch) % 400) for epoch in starts}  # what remains of an order when its offset is taken away
    assert len(steps) == 3


def test_what_is_left_over_differs_between_epochs() -> None:
    batches = Batches(Stream(103), 1, 10)
    left = [
        set(range(103)) - {int(t) - 5 for step in range(10) for t in batches.at(10 * epoch + step).tokens[0]}
        for epoch in range(4)
    ]
    assert all(len(positions) == 3 for positions in left) and len({frozenset(positions) for positions in left}) > 1


def test_a_batch_is_a_pure_function_of_seed_and_step(prepared: PreparedCorpus) -> None:
    masking = Masking(0.3, "bert")
    first = Batches(prepared.train, 4, 32, 5, masking)
    reference = [first.at(step) for step in range(6)]
    fresh = Batches(Shards(prepared.train.folder), 4, 32, 5, masking)
    for step in (5, 0, 3, 3, 1):  # any order, any number of times, in another object
        assert equal(fresh.at(step), reference[step])
    assert not equal(reference[0], reference[1])
    assert not equal(reference[0], Batches(prepared.train, 4, 32, 6, masking).at(0))


def test_each_step_and_each_row_masks_other_positions() -> None:
    batches = Batches(Stream(400), 4, 50, masking=Masking(0.3))
    rows = {tuple(row.tolist()) for step in range(5) for row in batches.at(step).masked}
    assert len(rows) == 20


def test_tokens_do_not_depend_on_masking(prepared: PreparedCorpus) -> None:
    plain = Batches(prepared.train, 4, 32, 1).at(3)
    assert plain.corrupted is None and plain.masked is None
    for masking in (Masking(0.15), Masking(0.4, "bert")):
        batch = Batches(prepared.train, 4, 32, 1, masking).at(3)
        assert equal(plain, replace(batch, corrupted=None, masked=None))


def test_what_is_masked_does_not_depend_on_the_batch_it_stands_in(prepared: PreparedCorpus) -> None:
    """A step of 8 rows, and the same step as two batches of 4, or with other rows beside."""
    for masking in (Masking(0.3), Masking(0.4, "bert")):
        whole = Batches(prepared.train, 8, 32, 5, masking)
        halves = Batches(prepared.train, 4, 32, 5, masking)
        for step in range(3):
            one, two = whole.at(step), [halves.at(2 * step + i) for i in range(2)]
            for name in ("tokens", "corrupted", "masked"):
                assert torch.equal(getattr(one, name), torch.cat([getattr(b, name) for b in two])), name
            assert one.samples == two[0].samples + two[1].samples


def test_positions_are_the_masked_ones_or_all_that_are_no_padding() -> None:
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    masked = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]]).bool()
    documents = torch.tensor([[0, 0, 0, -1], [0, 1, 1, 1]], dtype=torch.int32)
    assert Batch(tokens, masked=masked).positions.tolist() == [1, 3, 4]
    assert Batch(tokens, documents).positions.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert Batch(tokens).positions is None and Batch(tokens).predicted == 8
    assert Batch(tokens, documents.clamp(min=0)).positions is None


@given(
    tokens=st.lists(st.lists(st.integers(0, 40), min_size=12, max_size=12), min_size=1, max_size=5),
    rate=st.floats(0.01, 0.99),
    scheme=st.sampled_from(["mask", "bert"]),
)
def test_masking_invariants(tokens: list[list[int]], rate: float, scheme: str) -> None:
    tokens = np.array(tokens)
    corrupted, masked = Masking(rate, scheme).apply(tokens, VOCABULARY, 0, np.arange(len(tokens)))
    special = np.isin(tokens, VOCABULARY.special_ids)
    assert not (masked & special).any()
    assert masked.sum(1).tolist() == np.minimum(max(1, round(rate * 12)), (~special).sum(1)).tolist()
    assert (corrupted[~masked] == tokens[~masked]).all()
    if scheme == "mask":
        assert (corrupted[masked] == VOCABULARY.mask_id).all()
    else:
        assert not np.isin(corrupted[masked], [0, 1, 2, 4]).any()


def test_bert_scheme_is_80_10_10_and_uniform() -> None:
    tokens = np.full((200, 500), 77)
    corrupted, masked = Masking(0.4, "bert").apply(tokens, VOCABULARY, 1, np.arange(200))
    chosen = corrupted[masked]
    n = len(chosen)
    assert n == 200 * 200
    tolerance = 5 * (0.16 / n) ** 0.5  # five standard deviations
    assert (chosen == VOCABULARY.mask_id).mean() == pytest.approx(0.8, abs=tolerance)
    assert (chosen == 77).mean() == pytest.approx(0.1, abs=tolerance)
    assert not np.isin(chosen, [0, 1, 2, 4]).any()
    drawn = chosen[(chosen != VOCABULARY.mask_id) & (chosen != 77)]
    assert len(np.unique(drawn)) > 900 and drawn.mean() == pytest.approx((5 + 999) / 2, abs=5 * 289 / len(drawn) ** 0.5)
    assert np.abs(masked.mean(0) - 0.4).max() < 5 * (0.24 / 200) ** 0.5  # no position is preferred


def test_documents_restart_in_each_row() -> None:
    batch = Batches(Stream(64, begins=(0, 3, 10, 17, 40)), 4, 16).at(0)
    for tokens, documents in zip(batch.tokens, batch.documents):
        begins = tokens == VOCABULARY.bos_id
        begins[0] = False
        assert torch.equal(documents, begins.cumsum(0).int())
    assert batch.documents.dtype == torch.int32 and batch.tokens.dtype == torch.int64


def test_documents_are_none_when_each_row_is_one_document() -> None:
    assert Batches(Stream(64), 4, 16).at(0).documents is None
    assert Batches(Stream(64, begins=(0, 15)), 3, 16).at(0).documents is not None


def test_documents_follow_the_document_boundaries(prepared: PreparedCorpus) -> None:
    """Each run of equal ids is a piece of one document of the corpus."""
    shards, tokenizer = prepared.train, prepared.tokenizer
    texts = {tokenizer.decode(shards.part(i)) for i in range(shards.documents)}
    batch = Batches(shards, 4, 64, 2).at(9)
    for tokens, ids in zip(batch.tokens, batch.documents):
        assert ids[0] == 0 and set(ids.diff().tolist()) <= {0, 1}
        for document in range(1, int(ids[-1])):  # whole ones: neither cut by the window's start nor by its end
            assert tokenizer.decode(tokens[ids == document]) in texts


@settings(max_examples=30)
@given(count=st.integers(1, 40), seed=st.integers(0, 100))
def test_held_out_windows_do_not_overlap(count: int, seed: int) -> None:
    stream = Stream(810, begins=tuple(range(0, 810, 27)))
    halves = [held_out_windows(stream, 10, part, count, seed) for part in ("dev", "test")]
    positions = [np.unique(h.batch.tokens[h.batch.tokens != VOCABULARY.bos_id]) for h in halves]
    for half, part in zip(halves, ("dev", "test")):
        assert half.batch.tokens.shape == (count, 10)
        assert equal(half.batch, held_out_windows(stream, 10, part, count, seed).batch)
    assert not set(positions[0]) & set(positions[1])
    assert not set(halves[0].document.flatten()) & set(halves[1].document.flatten())  # no document in both
    ordinary = [(h.batch.tokens != VOCABULARY.bos_id).sum() for h in halves]
    assert [len(p) for p in positions] == ordinary  # nothing twice


def test_held_out_windows_say_from_which_document_each_position_is() -> None:
    begins = tuple(range(0, 810, 27))
    found = held_out_windows(Stream(810, begins), 10, "test", 40)
    position = found.batch.tokens.numpy() - 5
    own = position >= 0  # the others are BOS
    assert (found.document[own] == position[own] // 27).all()


def test_held_out_windows_differ_by_seed_and_nest() -> None:
    few, many = (held_out_windows(Stream(810), 10, "dev", n).batch for n in (5, 20))
    assert torch.equal(few.tokens, many.tokens[:5])
    assert not torch.equal(few.tokens, held_out_windows(Stream(810), 10, "dev", 5, seed=1).batch.tokens)
    assert len(held_out_windows(Stream(810), 10, "dev", 10**6).batch.tokens) == 40  # as many as there are
    with pytest.raises(ValueError, match="of which 7 are for dev: not one window of 10"):
        held_out_windows(Stream(15), 10, "dev", 1)


def test_a_corpus_smaller_than_one_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smaller than one batch: .* holds 1,000 tokens, a batch of 8 x 128"):
        Batches(Stream(1_000), 8, 128)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Masking(0.0), "masking rate of 0.0"),
        (lambda: Masking(1.0), "masking rate of 1.0"),
        (lambda: Masking(True), "masking rate of True"),
        (lambda: Masking("high"), "masking rate of 'high'"),
        (lambda: Masking(0.15, "span"), "masking scheme 'span'"),
        (lambda: Batches(Stream(100), 1, 4), "sequence length of 4"),
        (lambda: Batches(Stream(100), 0, 16), "batch size 0"),
        (lambda: Batches(Stream(100), 1, 16, seed=-1), "seed -1"),
    ],
)
def test_contradictory_options_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
