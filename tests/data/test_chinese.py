"""Words of Chinese against jieba, and vocabularies of words and of characters."""

import random
from pathlib import Path

import jieba
import numpy as np
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from data import extras
from data.chinese import Segmenter, read_dictionary, token_starts, vocabulary
from data.masking import Masking
from data.prepare import DataConfig, PreparedCorpus, prepare
from data.tokenizer import Tokenizer
from data.words import Hiding, Words
from training.sampling import Batches, held_out_windows

WORDS = {
    "我们": 900,
    "我": 800,
    "们": 10,
    "喜欢": 500,
    "读书": 300,
    "读": 100,
    "书": 200,
    "图书馆": 80,
    "图书": 90,
    "馆": 5,
    "的": 4000,
}
RARE = "喜欢图"  # characters that the dictionary lacks as words


def documents(count: int, seed: int = 0) -> list[str]:
    chosen = random.Random(seed)
    other = ["，", "。", " ", "GPU", "3", "啊", "\n"]
    return ["".join(chosen.choices([*WORDS, *other], k=chosen.randint(30, 90))).strip() + "。" for _ in range(count)]


@pytest.fixture(scope="module")
def dictionary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dictionary") / "words.txt"
    path.write_text("".join(f"{word} {frequency} n\n" for word, frequency in WORDS.items()))
    return path


@pytest.fixture(scope="module")
def segmenter(dictionary: Path) -> Segmenter:
    return Segmenter(read_dictionary(dictionary))


@pytest.fixture(scope="module")
def reference(dictionary: Path) -> jieba.Tokenizer:
    jieba.setLogLevel(60)
    return jieba.Tokenizer(str(dictionary))


@pytest.fixture(scope="module")
def prepared(dictionary: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedCorpus]:
    folder = tmp_path_factory.mktemp("chinese")
    (folder / "a.txt").write_text("\n\n".join(documents(1_000)))
    found = {}
    for kind in ("subwords", "words", "characters"):
        config = DataConfig(
            str(folder / "a.txt"), 400, "zh", kind, dictionary=dictionary, held_out=0.1, cache=folder / "cache"
        )
        found[kind] = prepare(config)
    return found


@given(st.text(alphabet="".join({*"".join(WORDS), *RARE, "鸟"}), min_size=1, max_size=30))
def test_words_are_those_of_jieba(segmenter: Segmenter, reference: jieba.Tokenizer, text: str) -> None:
    assert [word for _, word in segmenter.words(text)] == list(reference.cut(text, HMM=False))


def test_other_scripts_spaces_and_punctuation(segmenter: Segmenter) -> None:
    text = "我们 用GPU3。 the book\n书"
    assert list(segmenter.words(text)) == [(0, "我们"), (3, "用"), (4, "GPU3"), (10, "the"), (14, "book"), (19, "书")]
    begins = [0, 2, 4, 8, 9, 13, 18, 19]  # a space begins what follows it
    assert segmenter.starts(text).nonzero()[0].tolist() == begins
    assert segmenter.starts("").shape == (0,)


@pytest.mark.parametrize("kind", ["subwords", "words", "characters"])
def test_tokens_stand_where_the_text_says(prepared: dict[str, PreparedCorpus], segmenter: Segmenter, kind: str) -> None:
    tokenizer = prepared[kind].tokenizer

    @given(st.text(alphabet=st.sampled_from([*"".join(WORDS), *" \nGx3，龘é😀"]), max_size=40))
    def every(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        found = tokenizer.encode_with_offsets(text)
        ids, starts = np.array([i for i, *_ in found], np.int64), segmenter.starts(text)
        begins = token_starts(tokenizer, ids, starts)
        after = 0
        for number, (one, begin, end) in enumerate(found):
            first = number == 0 or (end > after and bool(starts[begin]))  # of a character's bytes the first one alone
            assert begins[number] == first, (text, number, tokenizer.pieces([one]))
            after = max(after, end)

    every()


def test_a_vocabulary_of_words_cuts_as_the_dictionary_does(
    prepared: dict[str, PreparedCorpus], reference: jieba.Tokenizer
) -> None:
    for text in ("我们喜欢图书馆的书", "的的我们读书"):
        found = prepared["words"].tokenizer.pieces(prepared["words"].tokenizer.encode(text))
        assert found == ["▁", *reference.cut(text, HMM=False)]
        one = prepared["characters"].tokenizer
        assert one.pieces(one.encode(text)) == ["▁", *text]
    assert one.pieces(one.encode("GPU")) == ["▁", "GPU"]  # words of other scripts are in both
    assert {p.tokenizer.vocab_size for p in prepared.values()} > {prepared["words"].tokenizer.vocab_size}


def test_shards_know_where_words_begin(prepared: dict[str, PreparedCorpus], segmenter: Segmenter) -> None:
    for corpus in prepared.values():
        shards, tokenizer = corpus.train, corpus.tokenizer
        length = 50
        positions = np.array([0, 3, 777, shards.tokens - 20])
        everything = shards.word_starts(np.array([0]), shards.tokens)[0]
        expected = []
        for number in range(shards.documents):
            ids = shards.document(number)
            text = tokenizer.decode(ids)
            expected += [True, *token_starts(tokenizer, ids[1:-1], segmenter.starts(text)), True]
        assert everything.tolist() == expected
        windows = shards.word_starts(positions, length)
        assert (windows == np.take(everything, positions[:, None] + np.arange(length), mode="wrap")).all()


def test_what_is_hidden_and_masked_is_a_word_of_the_dictionary(prepared: dict[str, PreparedCorpus]) -> None:
    corpus = prepared["characters"]
    words = Words(corpus.tokenizer.starts_word, corpus.tokenizer.special_ids)
    batches = Batches(corpus.train, 8, 64, 0, Masking(0.3, words=1.0), words, Hiding(1.0))
    batch = batches.at(3)
    first, last = batch.spans.first.numpy(), batch.spans.last.numpy()
    seen = set()
    for row in range(8):
        for position in range(1, 63):
            a, b = first[row, position], last[row, position]
            if a > 0 and b < 63:
                seen.add("".join(corpus.tokenizer.pieces(batch.tokens[row, a : b + 1].tolist())))
            assert len(set(batch.masked[row, a : b + 1].tolist())) == 1
    assert {"我们", "喜欢", "图书馆"} <= seen and "我们喜欢" not in seen and "馆" in seen


def test_held_out_words_are_scored_without_punctuation(prepared: dict[str, PreparedCorpus]) -> None:
    from training.whole_words import WholeWords

    for kind, corpus in prepared.items():
        found = WholeWords.sample(held_out_windows(corpus.valid, 40, "dev", 99), corpus.tokenizer, 500, 0)
        texts = [
            corpus.tokenizer.text_of(found.tokens[r, a : b + 1].tolist())
            for r, a, b in zip(found.row, found.first, found.last)
        ]
        assert found.characters.tolist() == list(map(len, texts))
        assert all(any(map(str.isalnum, text)) for text in texts)
        if kind == "words":
            assert {text.strip() for text in texts if not text.strip().isascii()} <= {*WORDS, "啊"}


def test_bad_input_is_one_sentence(tmp_path: Path, dictionary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.txt").write_text("我们 3 n\n喜欢\n")
    with pytest.raises(
        ValueError, match=r"broken.txt, line 2: found '喜欢'; expected a word, a space and its frequency"
    ):
        read_dictionary(tmp_path / "broken.txt")
    (tmp_path / "english.txt").write_text("we 3\n")
    with pytest.raises(ValueError, match="no Chinese word in it"):
        read_dictionary(tmp_path / "english.txt")
    with pytest.raises(ValueError, match=r"0 of 500 characters of this text are Chinese.*--tokenizer-kind subwords"):
        vocabulary(["ab. " * 125], 400, "words", Segmenter(read_dictionary(dictionary)))
    with pytest.raises(ValueError, match="expected --words jieba"):
        DataConfig(dictionary=dictionary)
    monkeypatch.setattr(extras, "missing", lambda package: True)
    (tmp_path / "a.txt").write_text("\n\n".join(documents(20)))
    with pytest.raises(ValueError, match=r"needs the package jieba.*requirements-more.txt"):
        prepare(DataConfig(str(tmp_path / "a.txt"), lang="zh", cache=tmp_path / "cache"))


def test_one_word_sets_the_defaults_of_chinese() -> None:
    from training.config import PretrainConfig

    for arguments, expected in (
        ([], (4096, "spaces")),
        (["--lang", "zh"], (8192, "jieba")),
        (["--lang", "zh", "--vocab-size", "500", "--words", "spaces"], (500, "spaces")),
    ):
        data = tyro.cli(PretrainConfig, args=arguments).data
        assert (data.pieces, data.kind_of_words) == expected


def test_words_change_the_key_and_a_dictionary_does(
    prepared: dict[str, PreparedCorpus], dictionary: Path, tmp_path: Path
) -> None:
    assert len({p.key for p in prepared.values()}) == 3
    other = tmp_path / "other.txt"
    other.write_text(dictionary.read_text() + "鸟 7\n")
    (tmp_path / "a.txt").write_text("\n\n".join(documents(1_000)))
    again = [
        prepare(DataConfig(str(tmp_path / "a.txt"), 400, "zh", dictionary=d, held_out=0.1, cache=tmp_path)).key
        for d in (dictionary, other)
    ]
    assert again[0] == prepared["subwords"].key != again[1]


def test_tokenizers_of_both_kinds_are_read_again(prepared: dict[str, PreparedCorpus], tmp_path: Path) -> None:
    path = tmp_path / "words.model"
    prepared["words"].tokenizer.save(path)
    assert Tokenizer.load(path).encode("我们") == prepared["words"].tokenizer.encode("我们")
