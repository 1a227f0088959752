import io
import random

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from data import tokenizer as module
from data.prepare import PreparedCorpus
from data.tokenizer import SPECIALS, Tokenizer, sample_lines

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"))  # the one that stands for a space


@settings(max_examples=300)
@given(text=TEXT)
def test_decoding_undoes_encoding(prepared: PreparedCorpus, text: str) -> None:
    assert prepared.tokenizer.decode(prepared.tokenizer.encode(text)) == text


@given(texts=st.lists(TEXT, max_size=5))
def test_all_ways_to_encode_agree(prepared: PreparedCorpus, texts: list[str]) -> None:
    tokenizer = prepared.tokenizer
    one_by_one = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts, threads=2) == one_by_one
    framed = [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in one_by_one]
    assert [ids.tolist() for ids in tokenizer.encode_documents(texts, threads=2)] == framed


def test_specials_have_fixed_ids_and_never_come_from_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces(range(5)) == list(SPECIALS)
    assert tokenizer.special_ids == (0, 1, 2, 3, 4)
    assert not set(tokenizer.encode(" ".join(SPECIALS) + " <s> </s> \0 \uffff")) & set(tokenizer.special_ids)
    assert tokenizer.decode([1, *tokenizer.encode("ab"), 3, 0, 2]) == "ab"


def test_vocabulary_has_the_size_asked_for(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 800 == len(set(tokenizer.pieces(range(800))))


def test_reloads_from_a_file(tokenizer: Tokenizer, tmp_path: object) -> None:
    tokenizer.save(tmp_path / "t.model")
    again = Tokenizer.load(tmp_path / "t.model")
    assert (again.hash, again.vocabulary) == (tokenizer.hash, tokenizer.vocabulary)
    assert again.encode("anything 一") == tokenizer.encode("anything 一")


def test_training_is_deterministic(documents: list[str]) -> None:
    lines = [line for document in documents[:600] for line in document.split("\n")]
    assert Tokenizer.train(lines, 400).hash == Tokenizer.train(lines, 400).hash
    assert Tokenizer.train(lines, 400).hash != Tokenizer.train(lines, 401).hash


def test_an_alphabet_of_thousands_leaves_room_for_words() -> None:
    """Zipf's law over 1,000 characters: the rare ones are spelt in bytes, and still decode."""
    chosen = random.Random(0)
    alphabet, weights = [chr(0x4E00 + i) for i in range(1_000)], [1 / (i + 1) ** 2 for i in range(1_000)]
    lines = ["".join(chosen.choices(alphabet, weights, k=50)) for _ in range(1_000)]
    tokenizer = Tokenizer.train(lines, 600)
    pieces = tokenizer.pieces(range(5 + 256, 600))
    assert sum(len(piece) == 1 for piece in pieces) <= 339 / 2 + 1 < len(set("".join(lines)))
    assert tokenizer.decode(tokenizer.encode("".join(alphabet))) == "".join(alphabet)


@pytest.mark.parametrize(
    ("lines", "size", "message"),
    [
        (
            ["some words of a text"] * 9,
            5_000,
            r"vocabulary of 5000 is too large .*supports at most \d+ pieces; take a sm",
        ),
        (["   "] * 9, 800, "no text to train a tokenizer on"),
        ([], 800, "no text to train a tokenizer on"),
        (["some words"], 100, "vocabulary of 100 is too small: 5 specials and 256 bytes"),
    ],
)
def test_impossible_vocabularies_are_refused_in_one_sentence(
    lines: list[str], size: int, message: str, capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Tokenizer.train(lines, size)
    assert "trainer_interface" not in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # SentencePiece writes to the process's own stderr


def foreign_model(**options: object) -> bytes:
    model = io.BytesIO()
    lines = ["the quick brown fox jumps over the lazy dog"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=40,
        minloglevel=3,
        hard_vocab_limit=False,
        **options,
    )
    return model.getvalue()


def test_a_model_of_the_user_works_if_it_has_the_specials() -> None:
    tokenizer = Tokenizer(foreign_model(pad_id=3, control_symbols=["<mask>"]))
    assert tokenizer.pieces(tokenizer.special_ids) == ["<pad>", "<s>", "</s>", "<mask>", "<unk>"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"lacks \[PAD\], \[MASK\]; train it with"),
        ({"pad_id": 3}, r"lacks \[MASK\]; train it with"),
        # As an ordinary piece the text could spell it.
        ({"pad_id": 3, "user_defined_symbols": ["<mask>"]}, r"lacks \[MASK\]; train it with"),
    ],
)
def test_a_model_of_the_user_without_specials_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer(foreign_model(**options))


def test_what_is_no_model_is_refused(tmp_path: object) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.model: no such tokenizer"):
        Tokenizer.load(tmp_path / "none.model")


@pytest.mark.parametrize("content", [b"not a model", b""])
def test_what_is_no_sentencepiece_model_is_refused(tmp_path: object, content: bytes) -> None:
    (tmp_path / "bad.model").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.model: not a SentencePiece model"):
        Tokenizer.load(tmp_path / "bad.model")


def test_the_sample_is_bounded_and_a_function_of_the_text(
    documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(map(len, documents))
    assert "\n".join(sample_lines(documents, size)) == "\n".join(documents)  # small enough: all of it
    monkeypatch.setattr(module, "_SAMPLE", 60_000)
    sample = list(sample_lines(documents, size))
    assert sum(map(len, sample)) == pytest.approx(60_000, rel=0.15)
    assert sorted(sample) == sorted(sample_lines(reversed(documents), size))
