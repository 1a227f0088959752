"""The files of a run as a report reads them, and whether those of two runs may be read as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from report.summary import Results

CONFIG = ("sequence_length", "batch_size", "accumulate", "preset", "dropout", "evaluation.tokens", "evaluation.places")
CONFIG += ("evaluation.seed", "optimizer", "data.held_out")
FACTS = ("identity", "precision", "yardstick.dev.tokens", "yardstick.test.tokens")
"""What two runs must have in common in their run.json, and in their facts.json, to be read as one."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a results.jsonl. Raises ValueError that names file and line for what is no record."""
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            record["contestant"], record["seed"], record["step"], record["curve"], record["final"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}: no record of an evaluation ({type(error).__name__}: {error}); expected what "
                "`pretrain.py` writes. Remove the line, or continue the run, which writes the file again."
            ) from None
        records.append(record)
    return records


def read_json(path: Path) -> dict[str, Any]:
    """Raises FileNotFoundError or ValueError that names the file."""
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; give a folder in which `pretrain.py` ran.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); expected what `pretrain.py` wrote.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}; expected what `pretrain.py` wrote, an object.")
    return found


def check_alike(first: "Results", other: "Results", also: Sequence[str] = ()) -> None:
    """Raises ValueError where two runs were trained or measured on different things, so that they are not read as one: the text
    and the tokenizer by their content, the yardstick, windows, batches and precision; and the settings named in `also`."""

    def told(results: "Results", name: str) -> Any:
        value: Any = results.facts if name in FACTS else results.config
        for step in name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return value

    for name in (*CONFIG, *FACTS, *also):
        one, two = told(first, name), told(other, name)
        if one != two:
            raise ValueError(f"The runs differ in {name}: {one} and {two}; give alike ones.")
