"""Minimal pairs: who is right, with what certainty, from which files."""

import json
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from data.tokenizer import Tokenizer
from eval import pairs
from eval.scoring import minimal_pairs
from eval.scoring.likelihood import Score, score
from eval.scoring.minimal_pairs import Paradigm, files_of, interval, paired, read_paradigm, right, unique_names
from tests.model.models import tiny_model
from training import checkpoint

ROWS = [("the barid sees", "the barid see"), ("the denot paints", "the denot paint"), ("same", "same")]
TEXT = "\n".join(json.dumps({"sentence_good": a, "sentence_bad": b, "linguistics_term": "agreement"}) for a, b in ROWS)


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


def test_a_pair_is_right_when_the_good_sentence_is_likelier_and_a_tie_counts_half(tokenizer: Tokenizer) -> None:
    model = tiny_model("tta", vocab_size=tokenizer.vocab_size)
    totals = [[score(model, tokenizer, [text])[0].total for text in pair] for pair in ROWS]
    expected = [0.5 if a == b else float(a > b) for a, b in totals]
    assert right(model, tokenizer, ROWS, "original") == expected and expected[2] == 0.5
    assert right(model, tokenizer, [pair[::-1] for pair in ROWS], "original") == [1 - x for x in expected]


def test_intervals_by_hand() -> None:
    mean, low, high = interval([[1.0] * 8 + [0.0] * 2])  # Wilson's interval of 8 of 10
    assert (mean, low, high) == (0.8, pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    # Paradigms of 10 with 10, 6 and 8 right: residuals 2, -2 and 0, variance 3/2 (4 + 4) / 900; t of 2 degrees is 4.3027.
    mean, low, high = interval([[1.0] * 10, [1.0] * 6 + [0.0] * 4, [1.0] * 8 + [0.0] * 2])
    assert mean == pytest.approx(0.8) and low == pytest.approx(0.8 - 4.3027 * 0.11547, abs=1e-4) and high == 1.0
    # No spread between paradigms that are all right is no certainty: Wilson's of 20 of 20.
    assert interval([[1.0] * 10] * 2) == (1.0, pytest.approx(0.8389, abs=1e-3), pytest.approx(1.0))


def test_archives_are_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(TEXT)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("data/a.jsonl", TEXT)
        archive.writestr("data/readme.txt", "no")
        archive.writestr("__MACOSX/._a.jsonl", "no")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.jsonl", "x/a.jsonl")
    for path in (tmp_path / "a.jsonl", tmp_path, tmp_path / "b.zip", tmp_path / "b.tar.gz"):
        [(name, text)] = files_of(path)
        paradigm = read_paradigm(name, text)
        assert (paradigm.name, paradigm.phenomenon, paradigm.pairs) == ("a", "agreement", ROWS)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TEXT + "\n{", r"x\.jsonl, line 4: not JSON"),
        ('{"sentence_good": "a"}', r"x\.jsonl, line 1: no sentence_good and sentence_bad"),
        ("[1]", r"line 1: no sentence_good"),
        ("", "no pair in it"),
    ],
)
def test_what_is_no_pair_is_named(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_paradigm("x.jsonl", text.encode())


def test_the_command_scores_what_is_whole_and_names_the_rest(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    checkpoint.save(tmp_path / "model", 1, tiny_model("vanilla", vocab_size=tokenizer.vocab_size), {}, tokenizer.model)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "good.jsonl").write_text(TEXT)
    (tmp_path / "data" / "torn.jsonl").write_text(TEXT + "\n{")
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04")
    arguments = ["--checkpoints", str(tmp_path / "model"), "--data", str(tmp_path / "data"), str(tmp_path / "torn.zip")]
    monkeypatch.setattr(sys, "argv", ["pairs", *arguments, "--out", str(tmp_path / "out")])
    assert pairs.main() == 1
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "torn.jsonl, line 4: not JSON" in out
        and "torn.zip: not a whole archive" in out
        and "1 paradigms, 3 pairs" in out
    )
    [record] = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert record["paradigm"] == "good" and record["pairs"] == 3
    with monkeypatch.context() as patch:  # what is there is not scored again, and the table is the same
        patch.setattr(pairs, "right", None)
        assert pairs.main() == 1
    assert " ".join(capsys.readouterr().out.split()) == out
    monkeypatch.setattr(sys, "argv", ["pairs", "--checkpoints", str(tmp_path / "model"), "--data", "nowhere"])
    assert pairs.main() == 2 and "There is no nowhere" in capsys.readouterr().err


def test_paired_difference_by_hand() -> None:
    """Three paradigms of 2 pairs: +2, 0 and +1 right of 6, so +50 points. They lie 1, -1 and 0 from 2 x 0.5, so the error is
    sqrt(3/2 x 2) / 6, and t with two degrees of freedom is 4.303."""
    ours, theirs = [[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert paired((ours, theirs)) == "+50.0 ± 124.2"
    assert paired((theirs, ours)) == "-50.0 ± 124.2"
    assert paired((ours[:1], theirs[:1])) == "+100.0"


def test_a_difference_of_two_seeds_by_hand() -> None:
    """Two paradigms of 2 pairs: seed 0 has +2 and +1 right of 4 (75 points), seed 1 has +1 and +2 (75 points). That is +3 of 4 in
    both paradigms, and nothing is left of either spread. With a seed of 25 points instead (+1, 0), the mean is 50; paradigms have
    +3 and +1 of 4, 1 from 2 each, so the error is sqrt(2 x 2) / 8 = 25 points; seeds lie 25 from it, so sqrt(1250 / 2) = 25 more.
    Together 35.36, of two degrees of freedom (Welch and Satterthwaite), whose t is 4.303."""
    none, half, both = [0.0, 0.0], [0.0, 1.0], [1.0, 1.0]
    theirs = [none, none]
    assert paired(([both, half], theirs), ([half, both], theirs)) == "+75.0 ± 0.0"
    assert paired(([both, half], theirs), ([half, none], theirs)) == "+50.0 ± 152.1"


def test_climp_s_tables_are_read(tmp_path: Path) -> None:
    """A good and a bad sentence in turns, a comma inside quotation marks."""
    text = ',sentence,label\n0,"她看书,吃饭。",1\n1,她看书书。,0\n2,她去。,1\n3,去她。,0\n'
    found = read_paradigm("x/binding_1000.csv", text.encode("utf-8-sig"))
    assert found.pairs == [("她看书,吃饭。", "她看书书。"), ("她去。", "去她。")] and found.name == "binding_1000"
    with pytest.raises(ValueError, match=r"x\.csv, line 3: expected the columns sentence and label"):
        read_paradigm("x.csv", b"sentence,label\na,1\nb,1\n")
    with pytest.raises(ValueError, match="has no bad one after it"):
        read_paradigm("x.csv", b"sentence,label\na,1\n")


def test_files_of_one_name_are_told_apart() -> None:
    names = ["data/fast/a.jsonl", "data/full/a.jsonl", "b.zip:x/c.jsonl"]
    paradigms = [Paradigm(Path(name.rpartition(":")[2]).stem, "p", []) for name in names]
    assert [p.name for p in unique_names(paradigms, names)] == ["fast/a", "full/a", "c"]


def test_equal_sentences_and_equal_but_for_rounding_are_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = {"a": -10.0, "b": -10.0 + 5e-6, "c": -9.0}
    monkeypatch.setattr(
        minimal_pairs,
        "score",
        lambda model, tokenizer, texts, variant: [Score(["x"], [0.0], totals[t], 1) for t in texts],
    )
    assert right(None, None, [("a", "a"), ("a", "b"), ("c", "a"), ("a", "c")], "original") == [0.5, 0.5, 1.0, 0.0]
    totals["c"] = float("nan")
    with pytest.raises(ValueError, match="the checkpoint has diverged"):
        right(None, None, [("a", "c")], "original")


def test_models_of_several_seeds_have_a_table(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rights = {
        "a-seed0": [1.0, 1.0, 0.5],
        "a-seed1": [1.0, 0.0, 0.5],
        "b-seed1": [0.0, 0.0, 0.0],
        "c-seed7": [1.0, 0.0, 0.0],
    }
    opened = {label: (tiny_model("tta", vocab_size=tokenizer.vocab_size), tokenizer) for label in rights}
    (tmp_path / "a.jsonl").write_text(TEXT)
    monkeypatch.setattr(pairs, "open_checkpoints", lambda paths: opened)
    answers = iter(rights.values())
    monkeypatch.setattr(pairs, "right", lambda *_: next(answers))
    config = pairs.PairsConfig((Path("x"),), (tmp_path / "a.jsonl",), out=tmp_path / "out")
    assert pairs.run(config, Console(width=200)) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    # One paradigm has no spread, and two models have one seed in common, so no difference has an interval.
    assert rows[-5:-2] == [["a", "2", "66.7 ± 23.6", ""], ["b", "1", "0.0", "-50.0"], ["c", "1", "33.3", "-"]]
