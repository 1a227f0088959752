"""The files of a run as a report reads them, and whether those of two runs may be read as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from data.text import parsed, read_lines, read_text

OLDER = {"evaluation.positions": "evaluation.places"}
"""Settings that were renamed: by their old name the new one."""
LATER = {"optimizer": {"regulariser": "weight_decay"}}
"""Settings that were added later, with the value that older runs had."""

CONFIG: tuple[str, ...] = (
    "sequence_length",
    "batch_size",
    "accumulate",
    "preset",
    "dropout",
    "evaluation.tokens",
    "evaluation.positions",
)
CONFIG += ("evaluation.seed", "optimizer", "data.held_out")
FACTS = ("identity", "precision", "yardstick.dev.tokens", "yardstick.test.tokens")
"""What two runs must have in common in their run.json, and in their facts.json, to be read as one."""
KNOWN_AS = {
    "identity.prepared": "their text (identity.prepared)",
    "identity.tokenizer": "their tokenizer (identity.tokenizer)",
}


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a results.jsonl. Raises ValueError, with file and line, for a line that is not a record."""
    records = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = parsed(line, where, file_names=True)
        needed = ("contestant", "seed", "step", "curve", "final")
        missing = [name for name in needed if not isinstance(record, dict) or name not in record]
        if missing:
            raise ValueError(
                f"{where}: no record of an evaluation (no {', '.join(missing)}); expected what `pretrain.py` writes. Remove the "
                "line, or continue the run, which writes the file again."
            )
        records.append(record)
    return records


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """An object with these entries. Raises FileNotFoundError or ValueError that names the file."""
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; give a folder in which `pretrain.py` ran.")
    found = parsed(read_text(path), str(path), file_names=True)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}; expected what `pretrain.py` wrote, an object.")
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{path} has no {', '.join(missing)}; expected what `pretrain.py` wrote.")
    return found


def identity(contestant: dict[str, Any]) -> str:
    """Of a contestant's entry in facts.json what makes it the model that it is: equal for equal models, whatever they are called.
    What is off is left out: fields and options that were added or removed since stand in some records as 0, false or null."""
    model, optimizer = (LATER.get(part, {}) | contestant.get(part, {}) for part in ("model", "optimizer"))
    options = {name: value for name, value in model.pop("options", ()) if value}
    if "words" not in options:
        options.pop("rest", None)  # of the hidden words
    on = [{name: value for name, value in part.items() if value} for part in (model, options, optimizer)]
    return json.dumps([*on, contestant.get("init")], sort_keys=True)


class Recorded(Protocol):
    """A run, as read from its files."""

    @property
    def facts(self) -> dict[str, Any]: ...

    @property
    def config(self) -> dict[str, Any]: ...

    @property
    def folder(self) -> Path: ...


def check_alike(first: Recorded, other: Recorded, also: Sequence[str] = (), but: Sequence[str] = ()) -> None:
    """Raises ValueError where two runs were trained or measured on different things, so that they are not read as one: the text
    and the tokenizer by their content, the yardstick, windows, batches and precision; and the settings named in `also`. What
    `but` names may differ."""

    def told(results: Recorded, name: str) -> Any:
        value: Any = results.facts if name in FACTS else results.config
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if value is None and name in OLDER:
            return told(results, OLDER[name])
        return LATER[name] | value if name in LATER and isinstance(value, dict) else value

    for name in (name for name in (*CONFIG, *FACTS, *also) if name not in but):
        one, two = told(first, name), told(other, name)
        if one != two:
            while isinstance(one, dict) and isinstance(two, dict):
                step = next(step for step in (one | two) if one.get(step) != two.get(step))
                name, one, two = f"{name}.{step}", one.get(step), two.get(step)
            raise ValueError(
                f"{first.folder} and {other.folder} differ in {KNOWN_AS.get(name, name)}: {one} and {two}; give "
                "runs that agree in it."
            )
