"""Official files with their quirks, the hub's layout, and what is refused: file, line, what was found and expected."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.clue import CLUE
from eval.glue import GLUE
from eval.tasks import Example

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
    "score": ("STS-B/dev.tsv", "sentence1\tsentence2\tscore\na\tb\tx\n", r"line 2: the score 'x' is no number"),
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
    assert GLUE["CoLA"].count_differs("train", 8551) is None
    assert "dev has 1,042 rows and the official one 1,043" in GLUE["CoLA"].count_differs("dev", 1042)


def test_every_benchmark_s_tasks_have_counts_and_files() -> None:
    for task in (*GLUE.values(), *CLUE.values()):
        assert {"train", *task.dev, *task.test} == task.rows.keys() and set(task.test) == task.submission.keys()
