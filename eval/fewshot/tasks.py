"""Few-shot tasks: their rows, their patterns, and the words of their labels.

FewCLUE's nine (Xu et al. 2021, arXiv 2107.07498) from its files (train_0.json .. test_public.json in a folder for each task),
and four of GLUE, of which a few rows of each class are drawn.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.text import read_lines
from eval.fewshot.cloze import SLOT, Question
from eval.finetune.choices import CHID_REACH
from eval.finetune.tasks import Task
from eval.glue import GLUE
from eval.reading import json_lines

SHOTS = 16  # rows of each class that are drawn of a GLUE task, to train on and as many to choose by


@dataclass(frozen=True)
class FewShotTask:
    """patterns: see cloze.fill. words: of each label as the files spell it, or None where the rows or a file tell them.
    fields: makes a row's fields and, for rows with choices of their own, its words."""

    name: str
    patterns: tuple[str, ...]
    words: dict[str, str] | None
    fields: Callable[[dict[str, Any]], dict[str, str]]
    glue: Task | None = None
    choices: bool = False


@dataclass(frozen=True)
class FewShotData:
    """A few labelled rows to train on and to choose by, the test rows, and rows whose labels are not looked at."""

    train: list[Question]
    dev: list[Question]
    test: list[Question]
    unlabelled: list[Question]


def _plain(*names: str) -> Callable[[dict[str, Any]], dict[str, str]]:
    return lambda row: {name: str(row[name]) for name in names}


def _csl(row: dict[str, Any]) -> dict[str, str]:
    return {"abst": row["abst"], "keyword": "、".join(map(str, row["keyword"]))}


def _winograd(row: dict[str, Any]) -> dict[str, str]:
    return {"text": row["text"], "noun": row["target"]["span1_text"], "pronoun": row["target"]["span2_text"]}


def _idiom(row: dict[str, Any]) -> dict[str, str]:
    before, _, after = row["content"].partition("#idiom#")
    return {"before": before[-CHID_REACH:], "after": after[:CHID_REACH]}


NEWS = dict(zip(
    map(str, (100, 101, 102, 103, 104, 106, 107, 108, 109, 110, 112, 113, 114, 115, 116)),
    "故事 文化 娱乐 体育 财经 房产 汽车 教育 科技 军事 旅游 国际 股票 农业 游戏".split(),
))  # fmt: skip

FEWCLUE = {
    task.name: task
    for task in (
        FewShotTask("eprstmt", ("{sentence}。总之很{slot}。", "我觉得很{slot}。{sentence}"), {"Positive": "好", "Negative": "差"},
                    _plain("sentence")),
        FewShotTask("csldcp", ("这是一篇{slot}类论文。{content}", "{content}。它属于{slot}。"), None, _plain("content")),
        FewShotTask("tnews", ("这是一则{slot}新闻。{sentence}", "{sentence}。这条消息属于{slot}。"), NEWS, _plain("sentence")),
        FewShotTask("iflytek", ("这是一款{slot}类软件。{sentence}", "{sentence}。它的类别是{slot}。"), None, _plain("sentence")),
        FewShotTask("ocnli", ("{sentence1}。{slot}，{sentence2}", "“{sentence1}”和“{sentence2}”的关系是{slot}。"),
                    {"entailment": "所以", "neutral": "也许", "contradiction": "但是"}, _plain("sentence1", "sentence2")),
        FewShotTask("bustm", ("“{sentence1}”和“{sentence2}”的意思{slot}同。", "“{sentence1}”{slot}是“{sentence2}”。"),
                    {"1": "相", "0": "不"}, _plain("sentence1", "sentence2")),
        FewShotTask("chid", ("{before}{slot}{after}",), None, _idiom, choices=True),
        FewShotTask("csl", ("关键词{slot}是：{keyword}。{abst}", "“{keyword}”{slot}符合这篇文章：{abst}"),
                    {"1": "就", "0": "不"}, _csl),
        FewShotTask("cluewsc", ("{text}其中“{pronoun}”指的{slot}是“{noun}”。", "“{pronoun}”{slot}是“{noun}”。{text}"),
                    {"true": "就", "false": "不"}, _winograd),
    )
}  # fmt: skip

ENGLISH = {
    task.name: task
    for task in (
        FewShotTask("SST-2", ("{sentence} It was {slot}.", "A {slot} one. {sentence}"), {"1": "great", "0": "terrible"},
                    _plain("sentence"), GLUE["SST-2"]),
        FewShotTask("MRPC", ("{sentence1} {slot}, {sentence2}", "{slot}: {sentence1} {sentence2}"), {"1": "Yes", "0": "No"},
                    _plain("sentence1", "sentence2"), GLUE["MRPC"]),
        FewShotTask("RTE", ("{sentence1} {slot}, {sentence2}", "{sentence2}? {slot}. {sentence1}"),
                    {"entailment": "Yes", "not_entailment": "No"}, _plain("sentence1", "sentence2"), GLUE["RTE"]),
        FewShotTask("MNLI", ("{sentence1} {slot}, {sentence2}", "{sentence2}? {slot}. {sentence1}"),
                    {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"},
                    _plain("sentence1", "sentence2"), GLUE["MNLI"]),
    )
}  # fmt: skip

TASKS = FEWCLUE | ENGLISH


def read(task: FewShotTask, data: Path, split: int) -> FewShotData:
    """Raises FileNotFoundError, or ValueError that names file and line."""
    return _glue(task, data, split) if task.glue is not None else _fewclue(task, data / task.name, split)


def _fewclue(task: FewShotTask, folder: Path, split: int) -> FewShotData:
    if not folder.is_dir():
        raise FileNotFoundError(f"{task.name}: there is no folder {folder}; give the folder that holds {task.name}/.")
    files = [folder / f"{name}.json" for name in (f"train_{split}", f"dev_{split}", "test_public")]
    if missing := [file.name for file in files if not file.exists()]:
        raise FileNotFoundError(f"{task.name}: {folder} has no {', '.join(missing)}.")
    words = dict(task.words or {})
    if not words and not task.choices:
        words = _words_told(folder, files)
    train, dev, test = parts = [_questions(task, file, words, labelled=True) for file in files]
    for file, part in zip(files, parts):
        if not part:
            raise ValueError(f"{file}: no rows; expected the official file.")
    if (folder / "unlabeled.json").exists():
        unlabelled = _questions(task, folder / "unlabeled.json", words)
    else:  # the rows of the other splits, without their labels
        others = (f for kind in ("train", "dev") for f in sorted(folder.glob(f"{kind}_*.json")) if f not in files)
        unlabelled = [question for file in others for question in _questions(task, file, words)]
    known = {tuple(question.fields.values()) for part in parts for question in part}
    unlabelled = [Question(q.fields, q.words, None) for q in unlabelled if tuple(q.fields.values()) not in known]
    return FewShotData(train, dev, test, unlabelled)


def _words_told(folder: Path, files: list[Path]) -> dict[str, str]:
    """Labels that are words themselves (the part before a stroke), or whose description stands in the rows."""
    if (folder / "labels_all.txt").exists():
        labels = read_lines(folder / "labels_all.txt")
        return {label.strip(): label.strip().split("/")[0] for label in labels if label.strip()}
    found: dict[str, str] = {}
    for file in files:
        for _, row in json_lines(file):
            if row.get("label") is not None:
                found.setdefault(str(row["label"]), str(row.get("label_des") or row["label"]).split("/")[0])
    return found


def _questions(task: FewShotTask, file: Path, words: dict[str, str], labelled: bool = False) -> list[Question]:
    """labelled: a row without a label is refused."""
    labels, found = list(words), []
    for number, row in json_lines(file):
        where = f"{file}, line {number}"
        try:
            fields = task.fields(row)
            own = tuple(map(str, row["candidates"])) if task.choices else tuple(words.values())
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}: no {error} in {', '.join(row)}.") from None
        told = row.get("answer" if task.choices else "label")
        if told is None and labelled:
            raise ValueError(f"{where}: no label; expected one in each row of {file.name}.")
        if told is None:
            label = None
        elif task.choices:
            if not isinstance(told, int) or not 0 <= told < len(own):
                raise ValueError(f"{where}: the answer {told!r} is not a number from 0 to {len(own) - 1}.")
            label = told
        elif str(told) not in words:
            raise ValueError(f"{where}: the label {told!r} is none of {', '.join(labels[:20])}.")
        else:
            label = labels.index(str(told))
        found.append(Question(fields, own, label))
    return found


def _glue(task: FewShotTask, data: Path, split: int) -> FewShotData:
    """SHOTS rows of each class to train on and as many to choose by, drawn by the number of the split; test is the official
    dev; some of the other rows are the unlabelled ones."""
    glue, told = task.glue, task.words
    assert glue is not None and told is not None
    order = [glue.labels.index(label) for label in told]
    names = ("sentence",) if len(glue.texts) == 1 else ("sentence1", "sentence2")

    def questions(examples) -> list[Question]:
        words = tuple(told.values())
        return [
            Question(dict(zip(names, e.texts)), words, order.index(e.label)) for e in examples if e.label is not None
        ]

    rows = questions(glue.read(str(data), "train"))
    test = questions(glue.read(str(data), glue.dev[0]))
    random.Random(split).shuffle(rows)
    train: list[Question] = []
    dev: list[Question] = []
    rest: list[Question] = []
    for question in rows:
        for part in (train, dev, rest):
            if part is rest or sum(q.label == question.label for q in part) < SHOTS:
                part.append(question)
                break
    return FewShotData(train, dev, test, [Question(q.fields, q.words, None) for q in rest[:1000]])


assert all(SLOT in pattern for task in TASKS.values() for pattern in task.patterns)
