"""Official files with their quirks, the hub's layout, and what is refused: file, line, what was found and expected."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from eval.clue import CLUE
from eval.finetune.benchmark import load
from eval.finetune.tasks import Example
from eval.glue import GLUE

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    return written


def test_cola_has_no_header_and_its_test_has_one(write: Write, tmp_path: Path) -> None:
    write("CoLA/train.tsv", 'gj04\t1\t\tThe "sailors" rode.\ngj04\t0\t*\tA b.\n')
    write("CoLA/test.tsv", "index\tsentence\n0\tBill whistled.\n")
    rows = GLUE["CoLA"].read(str(tmp_path), "train")
    assert rows == [Example(('The "sailors" rode.',), 1, 0), Example(("A b.",), 0, 1)]
    assert GLUE["CoLA"].read(str(tmp_path), "test") == [Example(("Bill whistled.",), None, 0)]


def test_quotation_marks_are_text_and_a_byte_order_mark_is_none(write: Write, tmp_path: Path) -> None:
    write("MRPC/dev.tsv", '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\t" He said\tHe " said\n')
    assert GLUE["MRPC"].read(str(tmp_path), "dev") == [Example(('" He said', 'He " said'), 1, 0)]


def test_scores_and_names_of_classes(write: Write, tmp_path: Path) -> None:
    write("STS-B/dev.tsv", "index\tsentence1\tsentence2\tscore\n0\ta\tb\t2.50\n")
    write("QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\tq\ts\tnot_entailment\n")
    assert GLUE["STS-B"].read(str(tmp_path), "dev")[0].label == 2.5
    assert GLUE["QNLI"].read(str(tmp_path), "dev")[0].label == 1


def test_the_hub_s_layout(write: Write, tmp_path: Path) -> None:
    rows = [{"premise": "p", "hypothesis": "h", "label": 2, "idx": 5}, {"premise": "p", "hypothesis": "h", "label": -1}]
    write("MNLI/dev_matched.jsonl", "\n".join(map(json.dumps, rows)))
    assert GLUE["MNLI"].read(str(tmp_path), "dev_matched") == [Example(("p", "h"), 2, 5), Example(("p", "h"), None, 1)]


def test_clue_s_own_layout(write: Write, tmp_path: Path) -> None:
    write("tnews/dev.json", json.dumps({"label": "108", "label_desc": "news_edu", "sentence": "上课", "keywords": ""}))
    assert CLUE["TNEWS"].read(str(tmp_path), "dev") == [Example(("上课",), 7, 0)]


BAD = {
    "label": ("SST-2/dev.tsv", "sentence\tlabel\na\t0\nb\t7\n", r"dev\.tsv, line 3: the label '7' is none of 0, 1"),
    "columns": ("SST-2/dev.tsv", "sentence\tlabel\na\n", r"dev\.tsv, line 2: 1 columns, expected 2 with tabs"),
    "header": ("SST-2/dev.tsv", "text\tlabel\na\t0\n", r"line 1: no column sentence; found text, label"),
    "score": ("STS-B/dev.tsv", "sentence1\tsentence2\tscore\na\tb\tx\n", r"line 2: the score 'x' is not a number"),
    "json": ("SST-2/dev.jsonl", '{"sentence": "a", "label": 0}\n{', r"dev\.jsonl, line 2: not JSON"),
    "list": ("SST-2/dev.jsonl", "[1]", r"line 1: a JSON list; expected one object a line"),
    "class": ("SST-2/dev.jsonl", '{"sentence": "a", "label": 3}', r"line 1: the label 3 is none of the numbers 0 to 1"),
    "text": ("SST-2/dev.jsonl", '{"text": "a", "label": 0}', r"line 1: no text in sentence; found text, label"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_named(kind: str, write: Write, tmp_path: Path) -> None:
    name, text, sentence = BAD[kind]
    write(name, text)
    with pytest.raises(ValueError, match=sentence):
        GLUE[name.split("/")[0]].read(str(tmp_path), "dev")


def test_missing_folders_and_splits_are_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="RTE: there is no folder .*RTE; give with DATA="):
        GLUE["RTE"].read(str(tmp_path), "train")
    write("RTE/train.tsv", "sentence1\tsentence2\tlabel\n")
    with pytest.raises(FileNotFoundError, match=r"has no dev\.tsv or dev\.json or dev\.jsonl or dev\.parquet"):
        GLUE["RTE"].read(str(tmp_path), "dev")


def test_official_counts_are_held_against_what_is_read() -> None:
    assert GLUE["CoLA"].count_differs("train", [Example(("a",), 0, 0)] * 8551) is None
    assert "dev has 1,042 rows and the official one 1,043" in GLUE["CoLA"].count_differs(
        "dev", [Example(("a",), 0, 0)] * 1042
    )


def test_every_benchmark_s_tasks_have_counts_and_files() -> None:
    for task in (*GLUE.values(), *CLUE.values()):
        assert {"train", *task.dev} <= task.rows.keys() <= {"train", *task.dev, *task.test}
        assert set(task.test) == task.submission.keys()


def test_the_noun_and_the_pronoun_are_marked(write: Write, tmp_path: Path) -> None:
    target = {"span2_index": 6, "span2_text": "他", "span1_index": 0, "span1_text": "毛豆"}
    write(
        "cluewsc2020/dev.json",
        json.dumps({"target": target, "idx": 4, "label": "false", "text": "毛豆生气了，他走了。"}),
    )
    assert CLUE["CLUEWSC2020"].read(str(tmp_path), "dev") == [Example(("_毛豆_生气了，[他]走了。",), 1, 4)]
    target["span1_index"] = 1
    write(
        "cluewsc2020/dev.json",
        json.dumps({"target": target, "idx": 4, "label": "false", "text": "毛豆生气了，他走了。"}),
    )
    with pytest.raises(ValueError, match=r"line 1: '毛豆' does not stand at 1 of the text"):
        CLUE["CLUEWSC2020"].read(str(tmp_path), "dev")


def test_keywords_stand_before_their_abstract(write: Write, tmp_path: Path) -> None:
    write("csl/dev.json", json.dumps({"id": 3, "abst": "本文", "keyword": ["综述", "磁珠"], "label": "1"}))
    assert CLUE["CSL"].read(str(tmp_path), "dev") == [Example(("综述、磁珠", "本文"), 1, 3)]


def test_c3_reads_dialogues_and_mixed_texts(write: Write, tmp_path: Path) -> None:
    def entry(line: str) -> list:
        return [[line, "女：是呀"], [{"question": "谈什么?", "choice": ["旅行", "工作"], "answer": "工作"}], "47-275"]

    write("c3/c3-d-dev.json", json.dumps([entry("男：好")]))
    write("c3/c3-m-dev.json", json.dumps([entry("甲")]))
    rows = CLUE["C3"].read(str(tmp_path), "dev")
    assert rows[0] == Example(("男：好女：是呀", "谈什么?"), 1, 0, ("旅行", "工作"))
    assert [row.texts[0][0] for row in rows] == ["男", "甲"]
    bad = entry("男")
    bad[1][0]["answer"] = "家"
    write("c3/c3-d-dev.json", json.dumps([bad]))
    with pytest.raises(ValueError, match="passage 0: the answer '家' is none of the choices"):
        CLUE["C3"].read(str(tmp_path), "dev")


def test_every_blank_of_chid_is_a_question(write: Write, tmp_path: Path) -> None:
    line = {"content": ["甲#idiom000001#乙#idiom000002#", "丙#idiom000003#"], "candidates": ["一心一意", "三心二意"]}
    write("chid/dev.json", json.dumps(line))
    write("chid/dev_answer.json", json.dumps({"#idiom000001#": 1, "#idiom000002#": 0, "#idiom000003#": 1}))
    rows = CLUE["CHID"].read(str(tmp_path), "dev")
    assert [(row.texts[0], row.label) for row in rows] == [("甲____乙…", 1), ("甲…乙____", 0), ("丙____", 1)]
    assert CLUE["CHID"].count(rows) == 1  # the official numbers count lines
    file, text = CLUE["CHID"].submitted("test", rows, [1, 0, 0])
    assert file == "chid11_predict.json" and json.loads(text)["#idiom000003#"] == 0
    few = {"id": 7, "candidates": ["一心一意", "三心二意"], "content": "甲#idiom#乙", "answer": 1}
    write("chid/dev.json", json.dumps(few))
    (tmp_path / "chid" / "dev_answer.json").unlink()
    assert CLUE["CHID"].read(str(tmp_path), "dev") == [Example(("甲____乙", ""), 1, 7, ("一心一意", "三心二意"))]


def test_squad_s_layout_and_answers_that_stand_elsewhere(write: Write, tmp_path: Path) -> None:
    answers = [{"text": "北京", "answer_start": 2}, {"text": "北京", "answer_start": 0}]
    question = {"question": "在哪?", "id": "Q0", "answers": answers}
    file = {"data": [{"paragraphs": [{"context": "他在北京。", "qas": [question]}]}]}
    write("cmrc2018/cmrc2018_dev.json", json.dumps(file))
    rows = CLUE["CMRC2018"].read(str(tmp_path), "dev")
    assert rows == [Example(("在哪?", "他在北京。"), (("北京", 2), ("北京", 2)), "Q0")]
    assert json.loads(CLUE["CMRC2018"].submitted("test", rows, ["北京"])[1]) == {"Q0": "北京"}
    write("cmrc2018/cmrc2018_dev.json", "[]")
    with pytest.raises(ValueError, match="no list under 'data'"):
        CLUE["CMRC2018"].read(str(tmp_path), "dev")


def test_rows_that_nobody_could_label_are_left_out_and_said(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": label} for label in ("neutral", "-", "entailment")]
    write("ocnli/train.50k.json", "\n".join(map(json.dumps, rows)))
    write("ocnli/dev.json", json.dumps(rows[0]))
    splits = load(CLUE["OCNLI"], str(tmp_path), Console())
    assert [row.label for row in splits.train] == [0, 1]
    assert "OCNLI: 1 rows of train have no label" in " ".join(capsys.readouterr().out.split())


def test_the_diagnostic_set_goes_with_mnli(write: Write, tmp_path: Path) -> None:
    for split in ("train", "dev_matched", "dev_mismatched"):
        write(f"MNLI/{split}.tsv", "sentence1\tsentence2\tgold_label\na\tb\tneutral\n")
    write("diagnostic/diagnostic-full.tsv", "Logic\tPremise\tHypothesis\tLabel\n\ta\tb\tcontradiction\n")
    splits = load(GLUE["MNLI"], str(tmp_path), Console())
    assert splits.extra == {"AX": [Example(("a", "b"), 2, 0)]}
    assert GLUE["MNLI"].extra[0].submitted("AX", splits.extra["AX"], [0]) == (
        "AX.tsv",
        "index\tprediction\n0\tentailment\n",
    )


def test_rows_that_a_line_break_cuts_are_left_out_of_qqp_and_said(tmp_path: Path) -> None:
    (tmp_path / "QQP").mkdir()
    head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    rows = '1\t2\t3\t"Who?\tWho is it?\t1\n4\t5\t6\tWho was it?\nWhat?\tWhat was it?\t0\n7\t8\t9\tWhy?\tHow?\t0\n'
    (tmp_path / "QQP" / "train.tsv").write_text(head + rows)
    notes: list[str] = []
    found = GLUE["QQP"].read(str(tmp_path), "train", notes)
    assert [e.texts for e in found] == [('"Who?', "Who is it?"), ("Why?", "How?")] and [e.label for e in found] == [
        1,
        0,
    ]
    assert "2 lines of" in notes[0] and "the first in line 3" in notes[0]
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\n")
    with pytest.raises(ValueError, match=r"train\.tsv, line 2: 3 columns, expected 4"):
        GLUE["RTE"].read(str(tmp_path), "train")
    (tmp_path / "CoLA").mkdir()
    (tmp_path / "CoLA" / "dev.tsv").write_text("gj04\t1\t\tone\ttwo\n")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 1: 5 columns, expected 4"):
        GLUE["CoLA"].read(str(tmp_path), "dev")


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"nan"'])
def test_labels_that_are_no_numbers_are_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "STS-B").mkdir()
    (tmp_path / "STS-B" / "dev.jsonl").write_text(f'{{"sentence1": "a", "sentence2": "b", "label": {value}}}\n')
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 1: .*not a number"):
        GLUE["STS-B"].read(str(tmp_path), "dev")


def test_scores_of_a_submission_lie_where_the_server_takes_them() -> None:
    rows = [Example(("a", "b"), None, i) for i in range(3)]
    _, text = GLUE["STS-B"].submitted("test", rows, [-1.2, 2.5, 5.4])
    assert [line.split("\t")[1] for line in text.splitlines()[1:]] == ["0.000", "2.500", "5.000"]
