"""Rows to write from, what is measured, one command, and a dialogue."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch

from data import extras
from data.tokenizer import Tokenizer
from eval import chat, seq2seq
from eval.chat import ChatConfig, Dialogue
from eval.writing.texts import Row, lead, read, rouge, tokens_of
from eval.writing.train import in_groups
from model.generate import Writer
from tests.model.models import tiny_model
from training import checkpoint


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


def test_files_of_three_kinds(tmp_path: Path) -> None:
    rows = [Row("the long text", ("a title",)), Row("another", ("b",))]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"source": r.source, "target": r.targets[0]}) + "\n" for r in rows)
    )
    (tmp_path / "a.tsv").write_text("".join(f"{r.source}\t{r.targets[0]}\n" for r in rows))
    (tmp_path / "a.txt").write_text("a title\nthe long text\n\n\nlonely\n\nb\nanother\n")
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "a.tsv") == read(tmp_path / "a.txt") == rows
    (tmp_path / "d.jsonl").write_text('{"turns": ["hello", "hello you", "bye"]}\n')
    assert read(tmp_path / "d.jsonl") == [Row("", ("hello", "hello you", "bye"))]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.tsv", "a\tb\n\tb\n", r"a.tsv, line 2: the source is empty; leave the line out"),
        ("a.tsv", "a\tb\na\t \n", r"line 2: the target is empty"),
        ("a.tsv", "a\n", r"line 1: 1 columns; expected a source, a tab and its target"),
        ("a.jsonl", '{"source": "a"}\n', r"line 1: no source and target; expected both"),
        ("a.jsonl", '{"turns": ["a"]}\n', r"line 1: turns must be a list of at least two texts"),
        ("a.jsonl", '{"turns": ["a", "b"]}\n{"source": "a", "target": "b"}\n', "some rows are dialogues and some"),
        ("a.txt", "only a title\n", "no row in it"),
        ("a.csv", "a,b\n", r"expected .jsonl, .tsv or .txt; found .csv"),
    ],
)
def test_bad_rows_are_one_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path / name)


def test_tokens_are_cut_at_the_source_and_every_turn_ends(tokenizer: Tokenizer) -> None:
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    row = Row("the barids often see the denum", ("the denum",))
    whole = [bos, *tokenizer.encode(row.source), eos]
    target = [*tokenizer.encode_inside("the denum"), eos]
    assert tokens_of(row, tokenizer, 99, 30) == (whole, target, False)
    source, same, cut = tokens_of(row, tokenizer, len(whole) + len(target) - 2, 30)
    assert (source, same, cut) == ([*whole[:-3], eos], target, True)
    assert tokens_of(row, tokenizer, 99, 3)[1:] == ([*target[:2], eos], True)
    turns = tokens_of(Row("", ("the", "denum")), tokenizer, 99, 3)
    assert turns == ([bos], [*tokenizer.encode_inside("the"), eos, *tokenizer.encode_inside("denum"), eos], False)
    assert sorted(i for group in in_groups([(whole, target)] * 5, 2) for i in group) == [0, 1, 2, 3, 4]


def test_rouge_by_hand() -> None:
    """Of four words wanted and three written two are shared, in order: precision 2/3, recall 1/2; Chinese by characters."""
    found = rouge(["the Cat sat down"], ["the dog sat"])
    assert found["rouge1"] == pytest.approx(100 * 4 / 7) and found["rougeL"] == pytest.approx(100 * 4 / 7)
    assert found["rouge2"] == 0
    chinese = rouge(["东富山站"], ["富山车站"])  # 3 of 4 characters, one pair of 3, and 富山站 in order
    assert chinese["rouge1"] == pytest.approx(75) and chinese["rougeL"] == pytest.approx(75)
    assert chinese["rouge2"] == pytest.approx(100 / 3)


def test_the_baseline_copies_the_beginning_that_serves_best() -> None:
    train = [Row("one two three four five", ("one two",)), Row("six seven eight nine ten", ("six seven",))]
    assert lead(train, [Row("a b c d", ("x",))]) == ["a b"]
    assert lead([Row("东富山站是隶属", ("东富山站",))], [Row("甲乙丙丁戊己", ("x",))]) == ["甲乙丙丁"]


def test_one_command_from_checkpoints_to_table(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("local", "vanilla", "bicausal"):
        model = tiny_model(name, vocab_size=tokenizer.vocab_size, max_length=96)
        checkpoint.save(tmp_path / name, 1, model, {}, tokenizer.model)
    nouns = ["barid", "denot", "folum", "gimel"]
    rows = [f"the {a} often sees the {b}.\t{a}\n" for a in nouns for b in nouns] * 2
    (tmp_path / "rows.tsv").write_text("".join(rows))
    paths = [str(tmp_path / name) for name in ("local", "vanilla", "bicausal")]
    arguments = ["--checkpoints", *paths, "--data", str(tmp_path / "rows.tsv"), "--out", str(tmp_path / "out")]
    arguments += ["--recipe.epochs", "2", "--longest", "64", "--longest-target", "10"]
    monkeypatch.setattr(sys, "argv", ["seq2seq", *arguments])
    assert seq2seq.main() == 1  # bicausal cannot write, and the others are there
    told = " ".join(capsys.readouterr().out.split())
    assert "bicausal cannot write" in told and "beginning" in told
    records = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert len(records) == 2 and all(r["nats"] > 0 and 0 <= r["rougeL"] <= 100 for r in records)
    assert len(list((tmp_path / "out" / "written").iterdir())) == 2
    assert seq2seq.main() == 1 and len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr(extras, "missing", lambda package: package == "rouge_score")
    (tmp_path / "more.tsv").write_text("".join(rows[:30]))
    monkeypatch.setattr(sys, "argv", ["seq2seq", *arguments[:4], *arguments[4:], "--data", str(tmp_path / "more.tsv")])
    assert seq2seq.main() == 2 and "needs the package rouge_score" in " ".join(capsys.readouterr().err.split())


def test_a_dialogue_is_trained_on_and_talked_to(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model("local", vocab_size=tokenizer.vocab_size, max_length=64)
    checkpoint.save(tmp_path / "local", 1, model, {}, tokenizer.model)
    (tmp_path / "turns.jsonl").write_text('{"turns": ["the barid", "the denot", "the folum"]}\n' * 20)
    arguments = [
        "--checkpoints",
        str(tmp_path / "local"),
        "--data",
        str(tmp_path / "turns.jsonl"),
        "--out",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(sys, "argv", ["seq2seq", *arguments, "--recipe.epochs", "30", "--recipe.learning-rate", "1e-2"])
    assert seq2seq.main() == 0 and "rouge" not in capsys.readouterr().out
    [tuned] = (tmp_path / "out" / "checkpoints").iterdir()
    monkeypatch.setattr(sys, "argv", ["chat", "--checkpoint", str(tuned), "--top-k", "1", "--longest", "8"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("the barid\n\nthe barid\n"))
    assert chat.main() == 0
    assert capsys.readouterr().out.splitlines() == ["the denot", "the denot"]


def test_old_turns_are_forgotten_and_one_that_is_too_long_is_refused(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    writer = Writer(tiny_model("tta", vocab_size=tokenizer.vocab_size, max_length=48)).eval()
    dialogue = Dialogue(writer, tokenizer, ChatConfig(Path("x"), longest=4))
    for _ in range(12):
        dialogue.answer("the barid")
    assert sum(map(len, dialogue.turns)) <= 48 and len(dialogue.turns) < 24
    dialogue.turns.clear()
    with pytest.raises(ValueError, match=r"This turn has \d+ tokens and the model reads 34; say less"):
        dialogue.answer("the barid sees " * 20)
    with pytest.raises(ValueError, match="top_p 0 in"):
        ChatConfig(Path("x"), top_p=0)
