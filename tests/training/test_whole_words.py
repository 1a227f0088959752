"""Whole words: which are drawn, and what they cost, by hand."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.tokenizer import Tokenizer
from kernels.attention import spans_of
from model.architectures import REGISTRY
from model.batch import Batch
from tests.model.models import tiny_model
from training.sampling import HeldOut
from training.whole_words import WholeWords

SENTENCE = "the barids often see the denum twice. "


@pytest.fixture(scope="module")
def tokenizer(text_file) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


def held_out(tokenizer: Tokenizer, rows: int = 4) -> HeldOut:
    ids = tokenizer.encode(SENTENCE * 3)[:40]
    tokens = torch.tensor([ids] * rows)
    return HeldOut(Batch(tokens), np.arange(rows)[:, None].repeat(40, 1))


def test_every_word_is_equally_likely_wherever_it_stands(tokenizer: Tokenizer) -> None:
    """Long words as often as short ones, late ones as early ones; those that the window may have cut, never."""
    windows, drawn = held_out(tokenizer, 1), Counter()
    whole = WholeWords.sample(windows, tokenizer, 1_000, 0)
    starts = np.flatnonzero(tokenizer.starts_word[windows.batch.tokens[0].numpy()]).tolist()
    starts = starts if starts[0] else starts[1:]  # the window's first word may be cut
    assert whole.first.tolist() == starts[:-1] and (whole.last + 1).tolist() == starts[1:]
    for seed in range(3_000):
        drawn.update(WholeWords.sample(windows, tokenizer, 2, seed).first.tolist())
    expected = 6_000 / len(whole.first)
    assert set(drawn) == set(whole.first.tolist())
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in drawn.values())


def test_scores_do_not_depend_on_the_division_into_tokens(tokenizer: Tokenizer) -> None:
    """A model that knows nothing pays log V a token, whatever the word: bits a character by hand, and both ways the same."""
    model = tiny_model("tta", vocab_size=tokenizer.vocab_size, max_length=64)
    with torch.no_grad():
        model.head.table.weight.zero_()
        model.head.bias.zero_()
    words = WholeWords.sample(held_out(tokenizer), tokenizer, 12, 0)
    score = words.measure(model)
    tokens = int((words.last - words.first + 1).sum())
    ids = words.tokens[0].tolist()
    characters = sum(len(tokenizer.text_of(ids[a : b + 1])) for a, b in zip(words.first, words.last))
    expected = pytest.approx(tokens * math.log2(tokenizer.vocab_size) / characters, rel=1e-5)
    assert score.bits_per_character == expected and score.chain == expected
    assert score.words == 12 and score.characters == characters == sum(score.clusters.counts)


@pytest.mark.parametrize("architecture", REGISTRY)
def test_scores_by_hand(architecture: str, tokenizer: Tokenizer) -> None:
    """Each token of a word in a pass of its own, what it must not see hidden alone in it."""
    model = tiny_model(architecture, vocab_size=tokenizer.vocab_size, max_length=64)
    words = WholeWords.sample(held_out(tokenizer, 3), tokenizer, 7, 1)
    assert len(set(words.row.tolist())) > 1 and (words.last > words.first).any()
    score = words.measure(model)
    together, chain, right = 0.0, 0.0, 0
    every = torch.arange(40)
    for row, a, b in zip(words.row.tolist(), words.first.tolist(), words.last.tolist()):
        tops = []
        for position in range(a, b + 1):
            for begin in {a, position}:
                own = (every >= begin) & (every <= b)
                spans = spans_of(torch.where(own, begin, every)[None], torch.where(own, b, every)[None])
                batch = Batch(words.tokens[row][None], spans=spans)
                found = model.leave_one_out(batch, torch.tensor([[position]]))
                if begin == a:
                    together += float(found.nll)
                    tops.append(int(found.top) == int(words.tokens[row, position]))
                if begin == position:
                    chain += float(found.nll)
        right += all(tops)
    assert score.bits_per_character * score.characters * math.log(2) == pytest.approx(together, rel=1e-4)
    assert score.chain * score.characters * math.log(2) == pytest.approx(chain, rel=1e-4)
    assert score.accuracy == right / 7
    again = replace(words, documents=torch.zeros_like(words.tokens, dtype=torch.int32)).measure(model)
    assert again.bits_per_character == pytest.approx(score.bits_per_character, rel=1e-4)


def test_text_without_spaces_has_no_words(tokenizer: Tokenizer) -> None:
    ids = [t for t in tokenizer.encode(SENTENCE * 9) if not tokenizer.starts_word[t]][:40]
    assert WholeWords.sample(HeldOut(Batch(torch.tensor([ids])), np.zeros((1, 40), int)), tokenizer, 5, 0) is None
