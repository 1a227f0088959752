"""Span extraction: which part of a passage answers the question. CMRC 2018 (Cui et al. 2019, arXiv 1810.07366), or any file
in SQuAD's layout.

Measured as the task's own script does: the answer in lower case and without punctuation must equal an accepted one (em), or
share a run of units with it (span_f1: of precision and recall of the longest common run, units being Chinese characters one
by one and other words whole). Punctuation is dropped and does not split words; the script does not count … as punctuation.
The best over the accepted answers counts. Other words are split at spaces here, by NLTK there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from data.files import to_json
from eval.finetune.tasks import Example, Task
from eval.reading import whole_json

IGNORED = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # what the task's script takes away


@dataclass(frozen=True)
class Spans(Task):
    """texts: question and passage; label: accepted (text, where it begins in the passage)."""

    def names(self, split: str) -> tuple[str, ...]:
        return (split, f"{self.folder or self.name}_{split}")

    def examples(self, path: Path, split: str, notes: list[str] | None = None) -> list[Example]:
        if path.suffix != ".json":
            return Task.examples(self, path, split, notes)
        found = whole_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("data"), list):
            raise ValueError(f"{path}: no list under 'data'; expected a file in SQuAD's layout.")
        examples: list[Example] = []
        for i, article in enumerate(found["data"]):
            for paragraph in article.get("paragraphs", ()):
                for question in paragraph.get("qas", ()):
                    where = f"{path}, article {i}, question {question.get('id')}"
                    told = question.get("answers") or []
                    answers = {
                        "text": [a.get("text") for a in told],
                        "answer_start": [a.get("answer_start") for a in told],
                    }
                    row = {**question, "context": paragraph.get("context"), "answers": answers}
                    examples += self.of_hub(row, len(examples), where)
        return examples

    def of_hub(self, row: dict[str, Any], index: int, where: str) -> list[Example]:
        question, passage = row.get("question"), row.get("context")
        if not isinstance(question, str) or not isinstance(passage, str):
            raise ValueError(f"{where}: no question and context; found {', '.join(row)}.")
        told = row.get("answers") or {"text": [], "answer_start": []}
        accepted = []
        for text, begin in zip(told["text"], told["answer_start"]):
            if not isinstance(text, str) or not isinstance(begin, int):
                raise ValueError(f"{where}: an answer needs text and answer_start; found {text!r} and {begin!r}.")
            if passage[begin : begin + len(text)] != text:
                begin = passage.find(text)  # the released files count some positions wrongly; -1: it is nowhere
            accepted.append((text, begin))
        return [Example((question, passage), tuple(accepted) or None, row.get("id", index))]

    def submitted(self, split: str, examples: Sequence[Example], answers: Sequence[Any]) -> tuple[str, str]:
        named = {str(example.index): answer for example, answer in zip(examples, answers)}
        return self.submission.get(split, f"{self.name}.json"), to_json(named, indent=0) + "\n"


def plain(text: str) -> str:
    """In lower case and without punctuation. The script compares sign by sign with a list that holds "……" as one entry, so a
    sign of it alone is kept."""
    return "".join(c for c in text.lower().strip() if c not in IGNORED)


def units(text: str) -> list[str]:
    """Chinese characters one by one, what else stands between spaces whole, in lower case, no punctuation."""
    return re.findall(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+", plain(text))


def exact(accepted: Sequence[tuple[str, int]], predicted: str) -> float:
    return float(any(plain(text) == plain(predicted) for text, _ in accepted))


def overlap(accepted: Sequence[tuple[str, int]], predicted: str) -> float:
    found = units(predicted)
    best = 0.0
    for text, _ in accepted:
        wanted = units(text)
        common = SequenceMatcher(None, wanted, found, autojunk=False).find_longest_match().size
        if common:
            precision, recall = common / len(found), common / len(wanted)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best
