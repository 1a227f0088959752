"""The tokenizer.json has the ids of our tokenizer."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.tokenizer import SPECIALS, Tokenizer
from export.tokenizer_json import SPACE, converted


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer):
    return converted(tokenizer.model, tokenizer.vocabulary)


def in_domain(text: str) -> bool:
    return not text.startswith((" ", SPACE)) and not any(special in text for special in SPECIALS)


TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=" abthe\n\t.,!中文模型🙂é\u00a0\u200b▁[]", max_size=60),
    st.lists(st.sampled_from("the model of two streams  budget\n, www www1999 一二 ".split(" ")), max_size=12).map(
        " ".join
    ),
).filter(in_domain)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="two  spaces   and one ")
@example(text="line\nline\r\nline\ttab")
@example(text="中文，和 English 混合。🙂")
@example(text="<0x00>")
@example(text="the byte <0x41> and a<0xFF>b")
def test_ids_are_ours(text: str, tokenizer: Tokenizer, theirs) -> None:
    ours = tokenizer.encode(text)
    found = theirs.encode(text, add_special_tokens=False).ids
    if found != ours:  # a tie of two segmentations: equal scores up to rounding
        assert score(tokenizer, found) == pytest.approx(score(tokenizer, ours), abs=1e-5)
        assert tokenizer.decode(found) == tokenizer.decode(ours)


def score(tokenizer: Tokenizer, ids: list[int]) -> float:
    return sum(tokenizer._processor.get_score(i) for i in ids)


@settings(max_examples=100, deadline=None)
@example(text="<0x00>")
@example(text="a<0xFF>b <0x41>")
@given(text=TEXTS.filter(lambda text: SPACE not in text))
def test_decoding_gives_the_text(text: str, tokenizer: Tokenizer, theirs) -> None:
    assert theirs.decode(theirs.encode(text).ids) == tokenizer.decode(tokenizer.encode(text)) == text


def test_specials_stand_around_texts_and_for_themselves(tokenizer: Tokenizer, theirs) -> None:
    v = tokenizer.vocabulary
    assert theirs.encode("").ids == [v.bos_id, v.eos_id]
    pair = theirs.encode("one", "two").ids
    assert pair == [v.bos_id, *tokenizer.encode("one"), v.eos_id, *tokenizer.encode("two"), v.eos_id]
    masked = theirs.encode("one [MASK] two", add_special_tokens=False).ids
    assert masked == [*tokenizer.encode("one"), v.mask_id, *tokenizer.encode("two")]
