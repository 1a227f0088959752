"""Reranking: lists and references in each format, WER and GLEU by hand, the sweep; what is refused."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from data.tokenizer import Tokenizer
from eval import rerank
from eval.scoring.nbest import NBest, corpus_gleu, error_rate, gleu, gleu_statistics, gleu_table, read
from eval.scoring.reranking import Measure, choose, sweep
from tests.model.models import tiny_model
from training import checkpoint


def test_lists_in_json_and_tsv_and_their_references(tmp_path: Path) -> None:
    hypotheses = {"u1": {"hyp_1": {"score": -7.5, "text": "a b"}, "hyp_2": {"score": -8, "text": "a c"}}}
    (tmp_path / "l.json").write_text(json.dumps(hypotheses))
    (tmp_path / "r.json").write_text(json.dumps({"u1": {"text": "a c"}}))
    (tmp_path / "l.tsv").write_text("id\tscore\ttext\nu1\t-7.5\ta b\nu1\t-8\ta c\n")
    (tmp_path / "r.tsv").write_text("id\ttext\nu1\ta c\nu1\ta d\n")
    for name in ("l.json", "l.tsv"):
        [found] = read(str(tmp_path / name), [str(tmp_path / "r.json"), str(tmp_path / "r.tsv")])
        assert found == NBest("u1", ["a b", "a c"], [-7.5, -8.0], ["a c", "a c", "a d"], [-1, -1])


def test_line_by_line_a_reference_is_not_measured_against_itself(tmp_path: Path) -> None:
    for name, text in (("src", "a b\nx\n"), ("ref0", "a c\nx\n"), ("ref1", "a d\ny\n")):
        (tmp_path / name).write_text(text)
    src, one, two = (str(tmp_path / n) for n in ("src", "ref0", "ref1"))
    first, second = read(f"{src},{one},{two}", [one, two])
    assert first.texts == ["a b", "a c", "a d"] and first.own == [-1, 0, 1] and second.references == ["x", "y"]
    # words: "a b" differs from both in one of two; "a c" from the other reference in one of two
    assert [rows.tolist() for rows in error_rate([first])] == [[[1, 2], [1, 2], [1, 2]]]
    assert error_rate([second])[0].tolist() == [[0, 1], [1, 1], [1, 1]]


def test_error_rates_by_hand() -> None:
    entry = NBest("u", ["the cat sat", "a cat sat down"], [0, 0], ["the cat sat down"], [-1, -1])
    assert error_rate([entry])[0].tolist() == [[1, 4], [1, 4]]
    assert error_rate([entry], characters=True)[0].tolist() == [[4, 13], [3, 13]]
    assert Measure([entry, entry], "wer").of([0, 1]) == 25.0


def test_gleu_by_hand() -> None:
    """The hypothesis keeps the source's mistake: its n-grams that no reference has are taken off."""
    stats = gleu_statistics("he go home now ok", "he go home now ok", "he goes home now ok")
    # unigrams: 4 of 5 match, 1 (go) is kept from the source; bigrams: 2 match, 2 kept; trigrams 1 - 2 -> 0; 4-grams 0
    assert stats.tolist() == [5, 5, 3, 5, 0, 4, 0, 3, 0, 2]
    perfect = gleu_statistics("he go home now ok", "he goes home now ok", "he goes home now ok")
    assert gleu(perfect) == pytest.approx(1.0) and gleu(stats) == 0.0
    short = gleu_statistics("x", "a b c d", "a b c d e")
    assert gleu(short) == pytest.approx(math.exp(1 - 5 / 4))
    table = gleu_table([NBest("u", ["x", "a b c d"], [0, 0], ["a b c d e", "a b c d"], [-1, 1])])
    assert corpus_gleu(table, [1]) == pytest.approx(math.exp(1 - 5 / 4))  # not against the reference that it is


def test_the_sweep_finds_the_weight_that_is_needed() -> None:
    """The list's own score prefers the wrong one by 1; the model the right one by 3: a weight above 1/3 is needed."""
    lists = [NBest(str(i), ["a x", "a b"], [0.0, -1.0], ["a b"], [-1, -1]) for i in range(4)]
    pll = [np.array([-6.0, -3.0])] * 4
    weight, bonus, reached = sweep(lists, pll, Measure(lists, "wer"), False)
    assert weight == 0.4 and bonus == 0.0 and reached == 0.0
    assert choose(lists, pll, 0.3, 0.0, False) == [0] * 4


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"l.tsv": "id\tscore\nu\t1\n"}, r"l\.tsv, line 1: no column text; found id, score"),
        ({"l.tsv": "id\ttext\tscore\nu\ta\tx\n"}, r"line 2: the score 'x' is not a number"),
        ({"l.tsv": "id\ttext\nu\n"}, r"line 2: 1 columns, expected 2"),
        ({"l.tsv": "id\ttext\nv\ta\n"}, r"1 utterances have no reference, the first is 'v'"),
        ({"l.json": "{"}, r"l\.json: not JSON"),
        ({"l.json": '{"u": {"h": {"text": "a"}}}'}, r"'u': expected hypotheses with text and score"),
        ({"l.txt": "a\nb\n", "r.txt": "a\n"}, r"different numbers of lines .*they must have the same number"),
    ],
)
def test_bad_lists_are_named(files: dict[str, str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"u": "a"}')
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    references = [str(tmp_path / ("r.txt" if "r.txt" in files else "r.json"))]
    with pytest.raises(ValueError, match=sentence):
        read(str(tmp_path / next(iter(files))), references)


def test_one_command_sweeps_on_dev_and_chooses_on_test(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    tokenizer = Tokenizer.train(text_file.read_text().splitlines(), 340)
    checkpoint.save(tmp_path / "model", 1, tiny_model("tta", vocab_size=tokenizer.vocab_size), {}, tokenizer.model)
    for split in ("dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("id\ttext\tscore\nu\tthe barid\t-1\nu\tthe denot\t-2\nv\ta\t0\n")
        (tmp_path / f"{split}.ref.tsv").write_text("id\ttext\nu\tthe denot\nv\ta\n")
    d, out = str(tmp_path), tmp_path / "out"
    options = [
        "--checkpoints",
        f"{d}/model",
        "--dev",
        f"{d}/dev.tsv",
        "--dev-references",
        f"{d}/dev.ref.tsv",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(
        sys, "argv", ["rerank", *options, "--test", f"{d}/test.tsv", "--test-references", f"{d}/test.ref.tsv"]
    )
    assert rerank.main() == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "33.33" in shown and "0.00" in shown  # first: one of three words wrong; oracle: none
    assert (out / "chosen-0.tsv").read_text().splitlines()[0] == "id\ttext"
    monkeypatch.setattr(sys, "argv", ["rerank", *options[:-6], "--dev", "nowhere.tsv", "--dev-references", "x"])
    assert rerank.main() == 2 and "There is no file nowhere.tsv" in " ".join(capsys.readouterr().err.split())
