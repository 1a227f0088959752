"""Correction: tokens that the rest of the sentence does not expect. `python -m eval.correct --checkpoint A --input FILE`.

Every token is predicted from all others, in one pass for two-stream models. A token is doubtful when another is likelier by a
margin in nats: log p(best) - log p(own) > margin; it is replaced by that one. What may replace it can be narrowed: by likeness
of spelling, or by a confusion set (for Chinese: characters taken for each other), a line `字 候选...` for each character.

    --pairs FILE    instead of texts, wrong and right ones (a tab between): detection and correction, precision, recall and F1.
                    The margin is swept on --dev, a file of the same kind, if there is one.

An edit is a stretch of words that differs (of characters, where words have no spaces). It is detected if the stretch differs
from the right text, and corrected if its replacement is right too.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from data.files import to_json, write_atomically
from data.options import check_types
from data.text import read_lines
from eval.command import command, open_checkpoint
from eval.correction.doubts import MARGINS, Limits, corrected, doubts, measured, read_confusions, read_pairs
from report.correction import write_page


@dataclass(frozen=True)
class CorrectConfig:
    """Find and replace doubtful tokens."""

    checkpoint: Path
    """A folder of checkpoints that pretrain.py wrote."""
    input: Path | None = None
    """A file with one text on each line."""
    pairs: Path | None = None
    """A file to measure on: on each line a wrong text, a tab, and the right text."""
    dev: Path | None = None
    """A file of the same kind, to choose the margin on."""
    margin: float = 4.0
    """By how many nats another token must be likelier."""
    similar: float = 0.0
    """Least similarity of spelling between a token and its replacement, from 0 (any) to 1."""
    confusions: Path | None = None
    """A confusion set: on each line a character, a space or tab, and the characters that it is confused with."""
    out: Path = Path("runs/correct")
    """Folder for corrected.txt, doubts.jsonl, report.html and results.json."""

    def __post_init__(self) -> None:
        check_types(self)
        if (self.input is None) == (self.pairs is None):
            raise ValueError("Give either texts with --input or pairs of wrong and right ones with --pairs.")
        if not 0 <= self.similar <= 1 or self.margin < MARGINS[0]:
            raise ValueError(
                f"similar {self.similar} must lie in [0, 1] and margin {self.margin} be {MARGINS[0]:g} or more."
            )


def run(config: CorrectConfig, console: Console) -> None:
    limits = Limits(config.similar, read_confusions(config.confusions) if config.confusions else None)
    if config.pairs:
        wrong, right = read_pairs(config.pairs)
    else:
        assert config.input is not None
        wrong, right = read_lines(config.input), None
    model, tokenizer = open_checkpoint(config.checkpoint)
    margin = config.margin
    if config.dev:
        dev_wrong, dev_right = read_pairs(config.dev)
        if dev_wrong == dev_right:
            raise ValueError(f"{config.dev}: every text is right already; a margin is swept on texts with errors.")
        on_dev = doubts(model, tokenizer, dev_wrong, limits)

        def f1(margin: float) -> float:
            return measured(dev_wrong, dev_right, [corrected(t, d, margin) for t, d in zip(dev_wrong, on_dev)])[
                "correction F1"
            ]

        margin = max(MARGINS, key=f1)
        console.print(f"margin {margin:g} nats is best on dev, of {', '.join(f'{m:g}' for m in MARGINS)}")
    found = doubts(model, tokenizer, wrong, limits)
    proposed = [corrected(text, own, margin) for text, own in zip(wrong, found)]
    shown = [[d for d in own if d.margin > margin] for own in found]
    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / "corrected.txt", "\n".join(proposed) + "\n")
    lines = [
        {"text": text, "corrected": new, "doubts": [vars(d) for d in own]}
        for text, new, own in zip(wrong, proposed, shown)
    ]
    write_atomically(config.out / "doubts.jsonl", "\n".join(map(to_json, lines)) + "\n")
    write_page(config.out / "report.html", lines)
    count = sum(map(len, shown))
    console.print(
        f"{count:,} doubtful tokens in {len(wrong):,} texts. Page: {config.out / 'report.html'}", soft_wrap=True
    )
    if right is not None:
        scores = measured(wrong, right, proposed)
        facts = {"checkpoint": str(config.checkpoint), "margin": margin, "similar": config.similar, "texts": len(wrong)}
        write_atomically(config.out / "results.json", to_json(facts | scores, indent=1) + "\n")
        for name, value in scores.items():
            console.print(f"  {name:28} {value:5.1f}")


def main() -> int:
    return command(CorrectConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
