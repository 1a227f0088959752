"""Words of windows, what training hides of them, and whole-word masking."""

import numpy as np
import pytest

from data.masking import Masking
from data.vocabulary import Vocabulary
from data.words import LONGEST, Hiding, Words, word_bounds, word_starts
from training.sampling import Batches

VOCABULARY = Vocabulary(size=64, pad_id=0, bos_id=1, eos_id=2, mask_id=3, unk_id=4)
STARTS = np.arange(64) % 4 == 0  # every fourth token begins a word
SPECIAL = VOCABULARY.special_ids
WORDS = Words(STARTS, SPECIAL)


def random_tokens(rows: int = 200, length: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 64, (rows, length))


def test_bounds_by_hand() -> None:
    tokens = np.array(
        [[9, 8, 9, 9, 1, 9, 12, 8, 2, 9]]
    )  # a cut word, one of three, BOS, one without a start, 12, 8, EOS, one
    first, last = word_bounds(word_starts(tokens, STARTS[tokens], SPECIAL))
    assert first.tolist() == [[0, 1, 1, 1, 4, 5, 6, 7, 8, 9]] and last.tolist() == [[0, 3, 3, 3, 4, 5, 6, 7, 8, 9]]
    documents = np.array([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1]])
    first, last = word_bounds(word_starts(tokens, STARTS[tokens], SPECIAL, documents))
    assert first.tolist()[0][:4] == [0, 1, 1, 3] and last.tolist()[0][:4] == [0, 2, 2, 3]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_words_is_hidden_whole(share: float) -> None:
    tokens, samples = random_tokens(), np.arange(200)
    first, last = WORDS.hidden(tokens, Hiding(share), 0, samples)
    own_first, own_last = WORDS.bounds(tokens, 0, samples)
    position = np.arange(64)
    whole, alone = (first == own_first) & (last == own_last), (first == position) & (last == position)
    assert (whole | alone).all()
    begins = position == own_first
    several = own_last > own_first
    assert whole[begins & several].mean() == pytest.approx(share, abs=0.03)
    for array in (whole, alone):  # all positions of a word alike
        assert (array == np.take_along_axis(array, own_first, 1))[several].all()
    assert (np.diff(first, axis=1) >= 0).all() and (np.diff(last, axis=1) >= 0).all()


@pytest.mark.parametrize("rest", [0.5, 1.0])
def test_of_a_share_of_the_hidden_words_the_earlier_tokens_are_seen(rest: float) -> None:
    tokens, samples = random_tokens(), np.arange(200)
    own_first, own_last = WORDS.bounds(tokens, 0, samples)
    position = np.arange(64)
    first, last = WORDS.hidden(tokens, Hiding(0.5, rest), 0, samples)
    _, whole_last = WORDS.hidden(tokens, Hiding(0.5), 0, samples)
    assert (last == whole_last).all()  # the same words are hidden
    begins = (position == own_first) & (own_last > own_first)
    hidden = np.take_along_axis(begins & (last > position), own_first, 1)
    later = hidden & (position > own_first)
    seen = (first == position)[later]
    assert seen.mean() == pytest.approx(rest, abs=0.03) and (first == own_first)[later][~seen].all()
    assert (first == position)[~hidden].all() and (last == position)[~hidden].all()
    alike = (first == position) == np.take_along_axis(first == position, np.minimum(own_first + 1, own_last), 1)
    assert alike[later].all()  # all later tokens of a word
    assert (np.diff(first, axis=1) >= 0).all() and (np.diff(last, axis=1) >= 0).all()


def test_what_is_hidden_of_a_row_depends_on_its_number_and_the_seed_alone() -> None:
    tokens = random_tokens(rows=8)
    whole = WORDS.hidden(tokens, Hiding(0.5, 0.5), 3, np.arange(10, 18))
    part = WORDS.hidden(tokens[4:6], Hiding(0.5, 0.5), 3, np.arange(14, 16))
    assert all((a[4:6] == b).all() for a, b in zip(whole, part))
    assert (whole[0] != WORDS.hidden(tokens, Hiding(0.5, 0.5), 4, np.arange(10, 18))[0]).any()


def test_text_without_spaces_is_cut_into_spans_of_geometric_length() -> None:
    words, tokens = Words(np.zeros(64, bool), SPECIAL), random_tokens(rows=400)
    first, last = words.bounds(tokens, 0, np.arange(400))
    lengths = (last - first + 1)[first == np.arange(64)]
    assert lengths.mean() == pytest.approx(2.0, abs=0.1)
    assert (lengths == 1).mean() == pytest.approx(0.5, abs=0.03) and (lengths == 2).mean() == pytest.approx(
        0.25, abs=0.03
    )
    short = Words(STARTS, SPECIAL)
    first, last = short.bounds(np.tile([8, *[9] * (LONGEST - 1)], (1, 3)), 0, np.arange(1))
    assert set((last - first + 1).flatten().tolist()) == {LONGEST}  # a word that is long enough is a word


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_whole_words_are_masked_in_a_share_of_the_rows(share: float) -> None:
    tokens, samples = random_tokens(rows=400), np.arange(400)
    corrupted, masked = Masking(0.3, words=share).apply(tokens, VOCABULARY, 0, samples, WORDS)
    first, _ = WORDS.bounds(tokens, 0, samples)
    by_words = (masked == np.take_along_axis(masked, first, 1)).all(1)
    assert by_words.mean() == pytest.approx(share, abs=0.08)
    assert ((corrupted == VOCABULARY.mask_id) == masked).all()
    assert masked.sum(1).max() <= round(0.3 * 64) and masked.sum(1).mean() > 0.3 * 64 - 3
    plain = Masking(0.3).apply(tokens, VOCABULARY, 0, samples)[1]
    assert (masked[~by_words] == plain[~by_words]).all()


def test_the_rest_of_a_word_is_masked_from_each_of_its_tokens_alike() -> None:
    """Words of four tokens: with rest=1 one to four of them are masked, each as often, always to the word's end."""
    tokens = np.tile([8, 9, 9, 9] * 64, (500, 1))
    corrupted, masked = Masking(0.3, words=1.0, rest=1.0).apply(tokens, VOCABULARY, 0, np.arange(500), WORDS)
    words = masked.reshape(-1, 4)
    assert (np.diff(words.astype(int), axis=1) >= 0).all()
    lengths = np.bincount(words.sum(1), minlength=5)[1:]
    assert lengths / lengths.sum() == pytest.approx(0.25, abs=0.03)  # longer ones fit less often at the end
    assert masked.sum(1).max() <= round(0.3 * 256) and masked.sum(1).min() >= round(0.3 * 256) - 3
    assert ((corrupted == VOCABULARY.mask_id) == masked).all()
    half = Masking(0.3, words=1.0, rest=0.5).apply(tokens, VOCABULARY, 0, np.arange(500), WORDS)[1].reshape(-1, 4)
    chosen = half.any(1)
    assert half[chosen].all(1).mean() == pytest.approx(0.5 + 0.5 / 4, abs=0.03)


def test_each_word_is_as_likely_to_be_masked() -> None:
    tokens = np.tile([8, 9, 9, 8, 8, 9, 8, 8, 9, 9], (4_000, 1))
    _, masked = Masking(0.5, words=1.0).apply(tokens, VOCABULARY, 0, np.arange(4_000), WORDS)
    one_piece = masked[:, [3, 6]].mean(0)
    assert one_piece[0] == pytest.approx(one_piece[1], abs=0.04) and masked.any(1).all()


def test_a_first_word_that_is_too_long_is_masked_all_the_same() -> None:
    tokens = np.tile([8, 9, 9, 9, 9, 9, 9, 9], (50, 1))
    _, masked = Masking(0.2, words=1.0).apply(tokens, VOCABULARY, 0, np.arange(50), WORDS)
    assert masked.all()


def test_wrong_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="1.5 as the share of rows masked by words"):
        Masking(0.3, words=1.5)
    with pytest.raises(ValueError, match="-1 as the share of words of which the rest is masked"):
        Masking(0.3, rest=-1)
    with pytest.raises(
        ValueError, match=r"words is 1.5; it is the share of the words that are hidden, from 0 \(off\) to 1"
    ):
        Hiding(1.5)
    with pytest.raises(
        ValueError, match="rest is -0.5; it is the share of the hidden words whose earlier tokens are seen"
    ):
        Hiding(0.5, -0.5)


def test_batches_carry_what_is_hidden(prepared) -> None:
    tokenizer = prepared.tokenizer
    words = Words(tokenizer.starts_word, tokenizer.special_ids)
    plain = Batches(prepared.train, 4, 32, 1).at(3)
    batch = Batches(prepared.train, 4, 32, 1, None, words, Hiding(0.5)).at(3)
    assert plain.spans is None and (batch.tokens == plain.tokens).all()
    first, last = words.hidden(batch.tokens.numpy(), Hiding(0.5), 1, np.array(batch.samples))
    assert (batch.spans.first.numpy() == first).all() and (batch.spans.last.numpy() == last).all()
    moved = batch.to("meta")
    assert moved.spans.first.is_meta and moved.spans.last.is_meta
    with pytest.raises(ValueError, match="none were given"):
        Batches(prepared.train, 4, 32, 1, None, None, Hiding(0.5))
