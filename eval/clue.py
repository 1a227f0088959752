"""CLUE (Xu et al. 2020, arXiv 2004.05986), its ten tasks: `python -m eval.clue --checkpoints FOLDER ...` (make clue)."""

import sys
from dataclasses import dataclass, replace
from typing import Any

from eval.finetune.benchmark import main
from eval.finetune.choices import C3, ChID
from eval.finetune.spans import Spans
from eval.finetune.tasks import Example, Task

NEWS = tuple(str(n) for n in (100, 101, 102, 103, 104, 106, 107, 108, 109, 110, 112, 113, 114, 115, 116))
NLI = ("neutral", "entailment", "contradiction")
TEST11 = {"test": ("test1.1",)}  # what the submissions c311 and chid11 answer; test1.0.json is an older one
PAIR, TEXT, TWO = ("sentence1", "sentence2"), ("sentence",), ("0", "1")


@dataclass(frozen=True)
class Winograd(Task):
    """Does the pronoun mean the noun? The noun is marked _so_ in the text and the pronoun [so]."""

    def of_official(self, row: dict[str, Any], index: int, where: str) -> list[Example]:
        text, target = row.get("text"), row.get("target")
        if not isinstance(text, str) or not isinstance(target, dict):
            raise ValueError(f"{where}: no text and target; found {', '.join(row)}.")
        marks = []
        for name, left, right in (("span1", "_", "_"), ("span2", "[", "]")):
            begin, word = target.get(f"{name}_index"), target.get(f"{name}_text")
            if not isinstance(begin, int) or not isinstance(word, str) or text[begin : begin + len(word)] != word:
                raise ValueError(f"{where}: {word!r} does not stand at {begin} of the text; expected {name} there.")
            marks += [(begin + len(word), 0, right), (begin, 1, left)]
        for at, _, mark in sorted(marks, reverse=True):
            text = text[:at] + mark + text[at:]
        label = row.get("label")
        if isinstance(label, int) and not isinstance(label, bool):  # the hub's numbers, -1 for a label that is not told
            label = self.labels[label] if label >= 0 else None
        return [Example((text,), self.label_of(label, where), row.get("id", row.get("idx", index)))]

    of_hub = of_official


@dataclass(frozen=True)
class Keywords(Task):
    """Are all of these keywords the abstract's own?"""

    def of_official(self, row: dict[str, Any], index: int, where: str) -> list[Example]:
        words = row.get("keyword")
        if isinstance(words, list):
            row = row | {"keyword": "、".join(map(str, words))}
        return Task.of_official(self, row, index, where)

    def of_hub(self, row: dict[str, Any], index: int, where: str) -> list[Example]:
        return self.of_official({**row, "label": None if row.get("label") == -1 else row.get("label")}, index, where)


def _task(
    name: str,
    labels: tuple[str, ...],
    texts: tuple[str, ...],
    rows: tuple[int, ...],
    kind: type[Task] = Task,
    **options: Any,
) -> Task:
    folder = options.pop("folder", name.lower())
    file = options.pop("file", folder)
    counts, submission = dict(zip(("train", "dev", "test"), rows)), {"test": f"{file}_predict.json"}
    task = kind(
        name,
        labels,
        texts,
        "label",
        ("accuracy",),
        folder,
        rows=counts,
        submission=submission,
        hub=("clue/clue", folder),
    )
    return replace(task, **options)


CLUE = {
    task.name: task
    for task in (
        _task("TNEWS", NEWS, TEXT, (53360, 10000, 10000), file="tnews11", also=("macro_f1",)),
        _task("AFQMC", TWO, PAIR, (34334, 4316, 3861)),
        _task("IFLYTEK", tuple(map(str, range(119))), TEXT, (12133, 2599, 2600), also=("macro_f1",)),
        _task("CMNLI", NLI, PAIR, (391783, 12241, 13880)),
        _task("OCNLI", NLI, PAIR, (50437, 2950, 3000), file="ocnli_50k", files={"train": ("train.50k",)}),
        _task("CLUEWSC2020", ("true", "false"), ("text",), (1244, 304, 290), Winograd, file="cluewsc11"),
        _task("CSL", TWO, ("keyword", "abst"), (20000, 3000, 3000), Keywords),
        _task("CMRC2018", (), ("question", "context"), (10142, 3219), Spans, metrics=("em", "span_f1"), form="span"),
        _task("CHID", (), ("content",), (84709, 3218, 3231), ChID, form="choice", file="chid11", files=TEST11),
        _task("C3", (), ("context", "question"), (11869, 3816, 3892), C3, form="choice", file="c311", files=TEST11),
    )
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(CLUE, "CLUE", __doc__))
