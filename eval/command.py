"""What every command of this folder does alike: read its options, open checkpoints, keep records, say what went wrong."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.markup import escape

from data.files import to_json, write_atomically
from data.tokenizer import Tokenizer
from model import MaskedLM
from training.checkpoint import last_good, load_model_from
from training.machine import default_device, keep_freed_memory

C = TypeVar("C")


def command(kind: type[C], description: str, run: Callable[[C, Console], int | None]) -> int:
    """`run` with a `kind` made from the command line; its exit code, or 2 after one sentence for what a user can cause."""
    try:
        config = tyro.cli(kind, description=description)
        keep_freed_memory()
        return run(config, Console()) or 0
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
        return 2


def said(failed: Sequence[str], console: Console) -> int:
    """Each failure in a sentence; the exit code."""
    for sentence in failed:
        console.print(f"[bold red]failed[/]: {escape(sentence)}", soft_wrap=True)
    return 1 if failed else 0


def open_checkpoint(path: Path) -> tuple[MaskedLM, Tokenizer]:
    """The newest whole checkpoint in `path`, or `path` itself, on the default device, with its tokenizer.

    Raises FileNotFoundError, or ValueError for a damaged one and for a tokenizer that does not fit the model.
    """
    model = load_model_from(path)
    folder = path if (path / "tokenizer.model").exists() else last_good(path)[0]
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    if tokenizer.vocab_size != model.config.vocab_size or tokenizer.mask_id != model.config.mask_id:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} pieces and the model {model.config.vocab_size:,}; a "
            "checkpoint needs the tokenizer that it was trained with."
        )
    return model.to(default_device()), tokenizer


def read_records(path: Path) -> list[dict[str, Any]]:
    """What `write_records` wrote, or nothing where it did not. Raises ValueError that names file and line."""
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: no record ({error}); remove the line, and it is run again."
            ) from None
    return records


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(to_json(record) + "\n" for record in records))
