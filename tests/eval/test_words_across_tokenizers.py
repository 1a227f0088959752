"""Words of a text, scored by models with different tokenizers."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from data.tokenizer import Tokenizer
from eval import words as module
from eval.scoring.words import Drawn, Excerpt, Tokenized, words_of
from eval.words import WordsConfig, excerpts_of, run
from kernels.attention import spans_of
from model.batch import Batch
from tests.model.models import tiny_model
from training.whole_words import WholeWords

TEXT = "the barid sees 3 well-known denots, don't it?"


def tokenizers(text_file: Path) -> list[Tokenizer]:
    lines = text_file.read_text().splitlines()
    return [Tokenizer.train(lines, size) for size in (340, 375)]


def test_words_by_hand() -> None:
    found = [TEXT[a:b] for a, b in words_of(TEXT, None)]
    assert found == ["the", "barid", "sees", "3", "well-known", "denots", "don't", "it"]
    assert words_of("我们喜欢", None) == [] and words_of("GPU的3号", None) == [(0, 3), (4, 5)]


def test_tokens_of_a_word_are_its_own(text_file: Path) -> None:
    """They spell the word, or a space and it; a word that shares a token with another character is none."""
    words = tuple(words_of(TEXT, None))
    for tokenizer in tokenizers(text_file):
        drawn = Drawn.of([Excerpt(TEXT, 0, words)], 99, 0)
        tokenized = Tokenized([Excerpt(TEXT, 0, words)], drawn, tokenizer)
        row = tokenized.rows[0]
        assert row[0] == tokenizer.bos_id and row[-1] == tokenizer.eos_id
        for first, last, whole, begin, end in zip(
            tokenized.first, tokenized.last, tokenized.whole, drawn.begin, drawn.end
        ):
            spelt = tokenizer.text_of(row[first : last + 1])
            assert whole == (spelt.strip() == TEXT[begin:end])
        assert tokenized.whole.sum() >= 6


@pytest.mark.parametrize("name", ["local", "vanilla"])
def test_scores_are_those_of_a_pass_for_each_token(text_file: Path, name: str) -> None:
    tokenizer = tokenizers(text_file)[0]
    torch.manual_seed(0)
    model = tiny_model(name, vocab_size=tokenizer.vocab_size, max_length=128).eval()
    excerpts = [Excerpt(t, n, tuple(words_of(t, None))) for n, t in enumerate([TEXT, "a barid is the denot"])]
    drawn = Drawn.of(excerpts, 7, 3)
    tokenized = Tokenized(excerpts, drawn, tokenizer)
    which = np.flatnonzero(tokenized.whole)
    words = tokenized.words(excerpts, drawn, which, tokenizer.pad_id)
    score = words.measure(model)
    together = 0.0
    for k in which:
        row, first, last = (
            torch.tensor(x) for x in (tokenized.rows[drawn.excerpt[k]], tokenized.first[k], tokenized.last[k])
        )
        every = torch.arange(len(row))
        own = (every >= first) & (every <= last)
        batch = Batch(
            row[None], spans=spans_of(torch.where(own, first, every)[None], torch.where(own, last, every)[None])
        )
        together += float(model.leave_one_out(batch, every[own][None]).nll.sum()) / math.log(2)
    assert score.bits_per_character * score.characters == pytest.approx(together, rel=1e-4)
    assert score.characters == (drawn.end - drawn.begin)[which].sum() and score.words == len(which)


class Unmeasured(Tokenized):
    def words(self, *_: object) -> WholeWords:
        raise AssertionError("measured again")


def test_two_tokenizers_meet_in_one_table(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = {
        f"{name}/{i}": (tiny_model(name, vocab_size=tokenizer.vocab_size, max_length=128).eval(), tokenizer)
        for name in ("local", "vanilla")
        for i, tokenizer in enumerate(tokenizers(text_file))
    }
    monkeypatch.setattr(module, "open_checkpoints", lambda paths: opened)
    config = WordsConfig((Path("x"),), str(text_file), held_out=0, words=40, out=tmp_path)
    assert run(config, Console(width=200)) == 0
    told = capsys.readouterr().out
    kept, drawn = map(int, re.search(r"(\d+) words of (\d+) drawn", told).groups())
    assert 0 < kept <= drawn == 40
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [r["checkpoint"] for r in records] == list(opened) and {r["words"] for r in records} == {kept}
    assert len({r["characters"] for r in records}) == 1 and len({r["bits_per_character"] for r in records}) == 4
    again = [r["key"] for r in records]
    with monkeypatch.context() as patch:  # what is there is not measured again, nor written twice
        patch.setattr(module, "Tokenized", Unmeasured)
        assert run(config, Console(width=200)) == 0
    assert capsys.readouterr().out == told
    assert [json.loads(line)["key"] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == again


def test_models_of_several_seeds_have_a_table(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tokenizers(text_file)[0]
    opened = {}
    for label in ("local-seed0", "local-seed1", "vanilla-seed1"):
        model = tiny_model(label.split("-")[0], vocab_size=tokenizer.vocab_size, max_length=128).eval()
        with torch.no_grad():
            model.architecture.embedding.table.weight.mul_(1 + 0.1 * len(opened))
        opened[label] = (model, tokenizer)
    monkeypatch.setattr(module, "open_checkpoints", lambda paths: opened)
    config = WordsConfig((Path("x"),), str(text_file), held_out=0, words=40, out=tmp_path)
    assert run(config, Console(width=200)) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    by_label = {r["checkpoint"]: r for r in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
    a, b, c = (by_label[label] for label in opened)
    [ours] = [row for row in rows if row[:2] == ["local", "2"]]
    [theirs] = [row for row in rows if row[:2] == ["vanilla", "1"]]
    for cell, name in zip(ours[2:4], ("bits_per_character", "chain")):
        assert cell == f"{(a[name] + b[name]) / 2:.3f} ± {abs(a[name] - b[name]) / 2**0.5:.3f}"
    assert ours[-1] == "" and a["bits_per_character"] != b["bits_per_character"]
    assert theirs[-1].split(" ± ")[0] == f"{c['bits_per_character'] - b['bits_per_character']:+.3f}"  # of seed 1


def test_what_is_held_out_is_scored(text_file: Path) -> None:
    """The second half of the held-out documents, each a document of its own."""
    text = text_file.read_text()
    everything = excerpts_of(WordsConfig((Path("x"),), str(text_file), held_out=0))
    assert sum(len(e.text) for e in everything) <= len(text)
    held_out = excerpts_of(WordsConfig((Path("x"),), str(text_file)))
    assert 0 < len(held_out) < 0.2 * len(everything)
    assert all(e.text in text for e in held_out)


def test_bad_input_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_file: Path) -> None:
    with pytest.raises(ValueError, match="Name a checkpoint"):
        WordsConfig((), "a")
    with pytest.raises(ValueError, match="at least 1, 16 and 0 are expected"):
        WordsConfig((Path("x"),), "a", characters=3)
    with pytest.raises(ValueError, match="is read with --segmenter jieba only"):
        WordsConfig((Path("x"),), "a", dictionary=Path("d"))
    (tmp_path / "a.txt").write_text("我们喜欢读书。" * 400)
    with pytest.raises(ValueError, match=r"no word was found in it by spaces.*--segmenter jieba"):
        excerpts_of(WordsConfig((Path("x"),), str(tmp_path / "a.txt"), held_out=0))
    tokenizer = tokenizers(text_file)[0]
    opened = {"a": (tiny_model("tta", vocab_size=tokenizer.vocab_size, max_length=16), tokenizer)}
    monkeypatch.setattr(module, "open_checkpoints", lambda paths: opened)
    with pytest.raises(ValueError, match=r"a: an excerpt has \d+ tokens and the model reads 16; take fewer"):
        run(WordsConfig((Path("x"),), str(text_file), held_out=0, out=tmp_path), Console())
