"""Talk to a checkpoint that was fine-tuned on dialogues: `python -m eval.chat --checkpoint runs/seq2seq/checkpoints/NAME`.

A line is a turn; an empty line begins a new dialogue, and the end of the input ends. Answers are drawn from the likeliest tokens,
after all turns so far. What does not fit into the model is forgotten from the beginning, turn by turn.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from data.options import check_types
from data.tokenizer import Tokenizer
from eval.command import command, open_checkpoint
from model.decoding import sample
from model.generate import TAIL, Writer


@dataclass(frozen=True)
class ChatConfig:
    """A dialogue in the terminal."""

    checkpoint: Path
    """A checkpoint that `python -m eval.seq2seq` fine-tuned on rows with turns."""
    top_k: int = 5
    """At each step, draw from this many of the likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """Of these, draw from the fewest that together have this probability."""
    longest: int = 40
    """Most tokens in an answer."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.top_k < 0 or not 0 < self.top_p <= 1 or self.longest < 1:
            raise ValueError(
                f"top_k {self.top_k} must be 0 or more, top_p {self.top_p} in (0, 1], and longest {self.longest} at least 1."
            )


class Dialogue:
    """Turns so far, and the answer to the next one."""

    def __init__(self, writer: Writer, tokenizer: Tokenizer, config: ChatConfig) -> None:
        self.writer, self.tokenizer, self.config = writer, tokenizer, config
        self.banned = [number for number in tokenizer.special_ids if number != tokenizer.eos_id]
        self.generator = torch.Generator().manual_seed(config.seed)
        self.turns: list[list[int]] = []

    def answer(self, text: str) -> str:
        """Raises ValueError for a turn that the model cannot read at all."""
        t, c = self.tokenizer, self.config
        self.turns.append([*t.encode_inside(text), t.eos_id])
        room = self.writer.model.config.max_length - TAIL - c.longest - 1
        while sum(map(len, self.turns)) > room:
            if len(self.turns) == 1:
                raise ValueError(
                    f"This turn has {len(self.turns.pop()) - 1} tokens and the model reads {room - 1}; say less."
                )
            self.turns.pop(0)
        source = [t.bos_id, *(token for turn in self.turns for token in turn)]
        found = sample(
            self.writer,
            source,
            t.eos_id,
            c.longest,
            top_k=c.top_k,
            top_p=c.top_p,
            banned=self.banned,
            generator=self.generator,
        )
        self.turns.append([*found, t.eos_id])
        return t.decode(found)


def run(config: ChatConfig, console: Console) -> None:
    model, tokenizer = open_checkpoint(config.checkpoint)
    writer = Writer(model).eval()
    dialogue = Dialogue(writer, tokenizer, config)
    if sys.stdin.isatty():
        console.print("A line is a turn; an empty line begins anew; Ctrl-D ends.")
    for line in sys.stdin:
        if not line.strip():
            dialogue.turns.clear()
            continue
        console.print(dialogue.answer(line.strip()), markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    return command(ChatConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
