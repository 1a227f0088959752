"""Multiple choice: which of a row's choices is right. C3 (Sun et al. 2020, arXiv 1904.09679) and ChID (Zheng et al. 2019,
arXiv 1906.01265), from CLUE's official files or the hub's rows."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from data.files import to_json
from eval.finetune.tasks import Example, Task
from eval.reading import json_lines, whole_json

BLANK = "____"
CHID_REACH = 100  # characters on each side of a blank that are read: a passage may hold several, far apart
_IDIOM = re.compile(r"#idiom\d*#")


@dataclass(frozen=True)
class C3(Task):
    """Questions on dialogues and mixed-genre texts, two to four choices each. texts: the passage and the question."""

    def names(self, split: str) -> tuple[str, ...]:
        """The official folder has dialogues (d) and mixed texts (m) in files of their own."""
        return (*Task.names(self, split), *(f"{prefix}{kind}-{split}" for prefix in ("", "c3-") for kind in "dm"))

    def examples(self, path: Path, split: str, notes: list[str] | None = None) -> list[Example]:
        if path.suffix != ".json":
            return Task.examples(self, path, split, notes)
        found = whole_json(path)
        if not isinstance(found, list):
            raise ValueError(f"{path}: a JSON {type(found).__name__}; expected C3's list of [passage, questions, id].")
        examples: list[Example] = []
        for number, entry in enumerate(found):
            where = f"{path}, passage {number}"
            try:
                passage, questions, _ = entry
                rows = [{"context": passage, **question} for question in questions]
            except (TypeError, ValueError):
                raise ValueError(f"{where}: expected [passage, questions, id].") from None
            for row in rows:
                examples += self.of_official(row, len(examples), where)
        return examples

    def of_official(self, row: dict[str, Any], index: int, where: str) -> list[Example]:
        passage, question, choices = row.get("context"), row.get("question"), row.get("choice")
        if not (isinstance(passage, list) and isinstance(question, str) and isinstance(choices, list) and choices):
            raise ValueError(f"{where}: no context, question and choice; found {', '.join(row)}.")
        answer = row.get("answer") or None
        if answer is not None and answer not in choices:
            raise ValueError(f"{where}: the answer {answer!r} is none of the choices {', '.join(choices)}.")
        label = None if answer is None else choices.index(answer)
        return [Example(("".join(passage), question), label, row.get("id", index), tuple(choices))]

    of_hub = of_official

    def answer(self, example: Example, predicted: Any) -> int:
        return int(predicted)


@dataclass(frozen=True)
class ChID(Task):
    """Which idiom stands in the blank. A row for each blank; texts: the passage around it, and nothing.

    The official answers stand in a file beside the rows, by the blank's name. FewCLUE's rows hold their own.
    """

    answers: dict[str, str] = field(default_factory=lambda: {s: f"{s}_answer.json" for s in ("train", "dev", "test")})

    def examples(self, path: Path, split: str, notes: list[str] | None = None) -> list[Example]:
        beside = path.parent / self.answers.get(split, f"{split}_answer.json")
        known = whole_json(beside) if beside.exists() else {}
        found: list[Example] = []
        for number, row in json_lines(path):
            found += self._blanks(row, known, len(found), f"{path}, line {number}")
        return found

    def of_hub(self, row: dict[str, Any], index: int, where: str) -> list[Example]:
        told = row.get("answers") or {}
        return self._blanks(row, dict(zip(told.get("text", ()), told.get("candidate_id", ()))), index, where)

    def _blanks(self, row: dict[str, Any], known: dict[str, int], index: int, where: str) -> list[Example]:
        passages, choices = row.get("content"), row.get("candidates")
        passages = [passages] if isinstance(passages, str) else passages
        if not isinstance(passages, list) or not isinstance(choices, list) or not choices:
            raise ValueError(f"{where}: no content and candidates; found {', '.join(row)}.")
        found: list[Example] = []
        for passage in passages:
            for blank in _IDIOM.finditer(passage):
                label = known.get(blank[0], row.get("answer"))
                if label is not None and not (isinstance(label, int) and 0 <= label < len(choices)):
                    raise ValueError(
                        f"{where}: the answer {label!r} of {blank[0]} is not a number from 0 to {len(choices) - 1}."
                    )
                before, after = (_IDIOM.sub("…", part) for part in (passage[: blank.start()], passage[blank.end() :]))
                text = before[-CHID_REACH:] + BLANK + after[:CHID_REACH]
                name = blank[0] if blank[0] != "#idiom#" else row.get("id", index + len(found))
                found.append(Example((text, ""), label, name, tuple(choices)))
        if not found:
            raise ValueError(f"{where}: no blank (#idiom...#) in the passage.")
        return found

    def count(self, examples: Sequence[Example]) -> int:
        """Lines, each of which holds several blanks with the same candidates."""
        return sum(1 for _ in groupby(examples, key=lambda example: example.choices))

    def submitted(self, split: str, examples: Sequence[Example], answers: Sequence[Any]) -> tuple[str, str]:
        named = {str(example.index): int(answer) for example, answer in zip(examples, answers)}
        return self.submission.get(split, f"{self.name}.json"), json.dumps(json.loads(to_json(named)), indent=0) + "\n"
