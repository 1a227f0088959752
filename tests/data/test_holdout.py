from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.corpora import Corpus
from data.holdout import MINIMUM, find_split
from data.readers import Part

Write = Callable[..., Path]


class Memory(Corpus):
    """A corpus given as lists of parts."""

    def __init__(self, documents: Iterable[list[str]]):
        object.__setattr__(self, "name", "memory")
        object.__setattr__(self, "given", list(documents))

    def parts(self, cut: int = 1 << 16) -> Iterable[Part]:
        for document in self.given:
            for i, text in enumerate(document):
                yield Part(text, i == 0)


def texts(count: int, length: int = 500) -> list[str]:
    return [f"{i} ".ljust(length, "x") for i in range(count)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(count=st.integers(400, 1_500), fraction=st.floats(0.005, 0.15))
def test_the_share_held_out(count: int, fraction: float) -> None:
    """At least what was asked for and at least the minimum; at most one document too many."""
    corpus = Memory([text] for text in texts(count))
    split = find_split(corpus, fraction)
    sides = list(split(corpus))
    held_out = sum(len(part.text) for part in sides if part.held_out)
    assert held_out == split.held_out_bytes and held_out + split.train_bytes == split.characters == 500 * count
    wanted = max(MINIMUM, fraction * 500 * count)
    assert wanted - 1 <= held_out <= wanted + 1_000
    assert [part.text for part in sides] == texts(count)


def test_the_counts_of_a_split_are_exact() -> None:
    """With so many documents that the bucket after the last one held out is not empty."""
    for seed in range(4):
        corpus = Memory([f"{text} {seed}"] for text in texts(40_000, 10))
        split = find_split(corpus, 0.1)
        assert split.held_out_bytes == sum(len(part.text) for part in split(corpus) if part.held_out)


def test_a_document_stays_on_its_side_whatever_surrounds_it() -> None:
    """With the same threshold; equal documents therefore never straddle the border."""
    documents = texts(1_000)
    split = find_split(Memory([text] for text in documents), 0.02)
    sides = {part.text: part.held_out for part in split(Memory([text] for text in documents))}
    again = split(Memory([text] for text in reversed(documents[::2])))
    assert {part.text: part.held_out for part in again} == {t: sides[t] for t in documents[::2]}


def test_parts_of_a_document_stay_together() -> None:
    corpus = Memory([text, text + "second", text + "third"] for text in texts(600))
    split = find_split(corpus, 0.05)
    assert not split.by_part
    sides = [part.held_out for part in split(corpus)]
    assert any(sides) and sides[0::3] == sides[1::3] == sides[2::3]


def test_one_long_document_is_split_by_its_parts(write: Write) -> None:
    """2 M characters give parts of 64 K; 200 K characters are too few of them, so the parts become smaller."""
    for lines, cut in ((40_000, 1 << 16), (4_000, 1 << 11)):
        path = write(f"{lines}.txt", "\n".join(f"line {i} of a long book with no blank line" for i in range(lines)))
        corpus = Corpus(path.name, (path,))
        split = find_split(corpus, 0.02)
        assert split.by_part and split.cut == cut
        held_out = {part.text for part in split(corpus) if part.held_out}
        train = {part.text for part in split(corpus) if not part.held_out}
        assert not held_out & train and MINIMUM <= sum(map(len, held_out)) < 0.2 * path.stat().st_size
        assert "\n".join(part.text for part in split(corpus)) == path.read_text()


@pytest.mark.parametrize(("count", "length", "held_out"), [(400, 9_000, 16), (86, 40_000, 8), (2_000, 2_000, 40)])
def test_a_few_long_documents_are_held_out_in_greater_number(count: int, length: int, held_out: int) -> None:
    """16 of them, or a tenth of the corpus, or what was asked for."""
    split = find_split(Memory([text] for text in texts(count, length)), 0.02)
    found = sum(part.held_out for part in split(Memory([text] for text in texts(count, length))))
    assert abs(found - held_out) <= 1 and not split.by_part


def test_nothing_is_held_out_when_validation_comes_from_elsewhere() -> None:
    split = find_split(Memory([["tiny"]]), 0)
    assert list(split(Memory([["tiny"]]))) == [("tiny", False, True)]


def test_a_corpus_too_small_to_be_split_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"too small .* holds 50,000 bytes of text, of which at least 16,000 and at most 20%"
    ):
        find_split(Memory([text] for text in texts(100)), 0.02)
