"""Reads rows of other people's files, and of the hub. An error is one sentence that names file and line."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data.text import parsed, read_lines, read_text

HUB = "hub"  # given as the data's place: download through `datasets`


def hub_rows(name: str, dataset: tuple[str, ...], split: str) -> Iterable[dict[str, Any]]:
    """A split of a dataset on the hub. Raises ConnectionError in a sentence for whatever keeps it from coming."""
    import datasets

    try:
        return datasets.load_dataset(*dataset, split=split)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConnectionError(
            f"{name}: the hub did not give {'/'.join(dataset)} ({reason}); give files with DATA=."
        ) from error


def number_of(found: Any, where: str) -> float:
    """Raises ValueError for anything that is not a finite number."""
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: the score {found!r} is not a number.")
    return value


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Raises ValueError that names file and line."""
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        row = parsed(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a JSON {type(row).__name__}; expected one object a line.")
        yield number, row


def whole_json(path: Path) -> Any:
    """A file that is one JSON value. Raises ValueError that names it."""
    return parsed(read_text(path), str(path))


def parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Raises ValueError, with the file's name, if it is not a Parquet file or is damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable parquet file ({' '.join(str(error).split())}).") from None
    yield from enumerate(rows, start=1)
