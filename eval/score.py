"""Pseudo-log-likelihood of sentences: `python -m eval.score --checkpoint FOLDER --input FILE` (make score).

log p(x_i | everything else) of each token, and their sum, in nats (Salazar et al. 2020, arXiv 1910.14659). A two-stream model
needs one pass for a sentence, vanilla one for each of its tokens. Variants (Kauf and Ivanova 2023, arXiv 2305.10588):

    original          a token is predicted from all others
    within_word_l2r   not from the later tokens of its own word either: a long word's pieces no longer give each other away
    whole_word        from no token of its own word

All in the same passes: only what a position may see changes. A text is one BOS ... EOS, of which the tokens between are scored.
A text longer than the model reads is scored in windows that overlap by half, each token in the window in whose middle it
stands. Lines come out in their order, empty ones too.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from tqdm import tqdm

from data.files import to_json, user_path
from data.options import check_types
from data.text import CONVERT, decoded
from eval.command import command, open_checkpoint
from eval.scoring.likelihood import (
    Variant,
    score,
)

LINES = 2048  # read and put in order of length at a time


@dataclass(frozen=True)
class ScoreConfig:
    """Pseudo-log-likelihood of each line."""

    checkpoint: Path
    """A folder of checkpoints that pretrain.py wrote."""
    input: Annotated[str, tyro.conf.arg(aliases=["-i"])] = "-"
    """A text file with one sentence on each line; - is standard input."""
    output: str = "-"
    """File for the JSON lines; - is standard output."""
    variant: Variant = "original"
    """What each token is predicted from; see above."""
    per_token: bool = False
    """Write the tokens and their log-probabilities too, not only the totals."""

    def __post_init__(self) -> None:
        check_types(self)


def chunks(lines: Iterable[bytes], name: str, size: int = LINES) -> Iterator[list[str]]:
    """Raises ValueError, with the line number, for bytes that are not text."""
    group: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            text = decoded(line, name) if number == 1 else line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}, line {number}: not UTF-8 ({error.reason}); {CONVERT}.") from None
        group.append(text.removesuffix("\n").removesuffix("\r"))
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def run(config: ScoreConfig, console: Console) -> None:
    """Memory holds LINES lines, however long the input."""
    given, asked = user_path(config.input), user_path(config.output)
    if config.input != "-" and not given.is_file():
        raise FileNotFoundError(
            f"There is no file {config.input}; give a text file with a sentence on each line, or -."
        )
    model, tokenizer = open_checkpoint(config.checkpoint)
    partial = asked.with_name(f"{asked.name}.partial")  # renamed when whole
    source = nullcontext(sys.stdin.buffer) if config.input == "-" else open(given, "rb")  # noqa: SIM115
    target = nullcontext(sys.stdout) if config.output == "-" else open(partial, "w", encoding="utf-8")  # noqa: SIM115
    name, index = "standard input" if config.input == "-" else config.input, 0
    with source as read, target as written, tqdm(unit="sentences", disable=None, file=sys.stderr) as bar:
        for group in chunks(read, name):
            for found in score(model, tokenizer, group, config.variant):
                record: dict[str, Any] = {
                    "index": index,
                    "total": found.total,
                    "tokens": len(found.tokens),
                    "passes": found.passes,
                }
                if config.per_token:
                    record |= {"pieces": found.tokens, "log_probs": found.log_probs}
                if not math.isfinite(found.total):
                    raise ValueError(
                        f"{name}, line {index + 1}: its likelihood is not a number; the checkpoint has diverged."
                    )
                written.write(to_json(record) + "\n")
                index += 1
            bar.update(len(group))
    if config.output != "-":
        partial.replace(asked)


def main() -> int:
    return command(ScoreConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
