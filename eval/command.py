"""What all commands of this folder share: read options, open checkpoints, report what failed, and go on."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.files import user_path
from data.tokenizer import Tokenizer
from eval.foreign import PREFIX, open_foreign
from model import MaskedLM
from report.names import seeds_of
from training.checkpoint import load_model_from, whole_checkpoint
from training.machine import default_device, keep_freed_memory

C = TypeVar("C")


def command(kind: type[C], description: str, run: Callable[[C, Console], int | None]) -> int:
    """`run` with a `kind` made from the command line; its exit code, or 2 after one sentence.

    Errors that a user can cause are a ValueError or an OSError. Any other exception is our bug: it is reported in a sentence
    too, and its traceback is written to a file that the sentence names.
    """
    config = None
    try:
        config = tyro.cli(kind, description=description)
        keep_freed_memory()
        return run(config, Console()) or 0
    except Exception as error:
        sentence = told(error, getattr(config, "out", None))
        Console(stderr=True).print(f"[bold red]error[/]: {escape(sentence)}", soft_wrap=True)
        return 2


def told(error: Exception, out: Path | None) -> str:
    """The sentence for an error. For a bug of ours it names the file that holds the traceback."""
    sentence = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ValueError | OSError) and not isinstance(error, UnicodeError):
        return sentence
    folder = out if isinstance(out, Path) else Path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "errors.log", "a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)) + "\n")
        where = f"its traceback is in {folder / 'errors.log'}"
    except OSError as failed:
        where = f"its traceback could not be kept ({failed})"
    return f"{sentence} ({type(error).__name__}; {where})"


@contextmanager
def barrier(what: str, failed: list[str], out: Path | None = None) -> Iterator[None]:
    """Around one task, file or checkpoint: an exception becomes a sentence in `failed`, and the others go on."""
    try:
        yield
    except Exception as error:
        sentence = told(error, out)
        failed.append(sentence if not what or what in sentence else f"{what}: {sentence}")


def said(failed: Sequence[str], console: Console) -> int:
    """Each failure in a sentence; the exit code."""
    for sentence in failed:
        console.print(f"[bold red]failed[/]: {escape(sentence)}", soft_wrap=True)
    return 1 if failed else 0


def note(sentence: str, console: Console) -> None:
    console.print(f"[yellow]note[/]: {escape(sentence)}", soft_wrap=True)


Cells = Callable[[dict[int, str], dict[int, str]], list[str]]
"""The cells of a model's row, from its checkpoints by seed and from those of the first model."""


def print_seeds(labels: Sequence[str], of: str, columns: Sequence[str], cells: Cells, console: Console) -> None:
    """Where a model was pretrained with several seeds, a table with a row for each model. of: what differences hold, if any."""
    seeds = seeds_of(labels)
    if not seeds:
        return
    title = "by model: mean ± standard deviation of seeds"
    if of:
        title += f"; differences of the seeds that both have, ± half of a 95% interval of {of}"
    table = Table(title=title, title_justify="left")
    table.add_column("model", overflow="fold")
    for name in ("seeds", *columns):
        table.add_column(name, justify="right", overflow="fold")
    first = next(iter(seeds.values()))
    for name, own in seeds.items():
        table.add_row(escape(name), str(len(own)), *cells(own, first))
    console.print(table)


def open_checkpoints(paths: Sequence[Path]) -> dict[str, tuple[MaskedLM, Tokenizer]]:
    """Checkpoints by their path as given. Raises ValueError if one folder is named twice, even by different paths."""
    found: dict[str, tuple[MaskedLM, Tokenizer]] = {}
    known: dict[Path, str] = {}
    for path in paths:
        path = path if is_foreign(path) else user_path(path)
        if (same := known.get(path.resolve())) is not None:
            raise ValueError(f"The checkpoint {path} is named twice (as {same}); name each once.")
        known[path.resolve()] = str(path)
        found[str(path)] = open_checkpoint(path)
    return found


def is_foreign(path: Path) -> bool:
    return str(path).startswith(PREFIX)


def open_checkpoint(path: Path) -> tuple[MaskedLM, Tokenizer]:
    """The newest whole checkpoint in `path`, or `path` itself, on the default device, with its tokenizer; or for `hf:...` a
    masked model of transformers, see foreign.py.

    Raises FileNotFoundError, or ValueError for a damaged one and for a tokenizer that does not fit the model.
    """
    if is_foreign(path):
        foreign, theirs = open_foreign(str(path))
        return foreign.to(default_device()), cast(Tokenizer, theirs)
    folder = whole_checkpoint(user_path(path))
    model = load_model_from(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    if tokenizer.vocab_size != model.config.vocab_size or tokenizer.mask_id != model.config.mask_id:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} pieces and the model {model.config.vocab_size:,}; a "
            "checkpoint needs the tokenizer that it was trained with."
        )
    return model.to(default_device()), tokenizer
