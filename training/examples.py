"""Held-out text with one token hidden, and what each model would write there."""

import dataclasses
from typing import Any

import torch

from data.files import to_json, write_atomically
from data.tokenizer import Tokenizer
from model.batch import Batch
from training.run import Run

CONTEXT, SHOWN = 16, 5  # tokens on each side, predictions of each model


@torch.no_grad()
def write_examples(run: Run, count: int = 8) -> None:
    """examples.json of a finished run: `count` positions, one in each of the first held-out windows."""
    count = min(count, len(run.test.tokens))
    yardstick = run.test.first(count * run.test.positions.shape[1])
    positions = yardstick.positions[:, yardstick.positions.shape[1] // 2, None]  # (W, 1)
    batch = Batch(yardstick.tokens, yardstick.documents)
    examples: list[dict[str, Any]] = [
        {
            "before": run.tokenizer.decode(tokens[max(0, position - CONTEXT) : position]),
            "hidden": shown(run.tokenizer, [tokens[position]])[0],
            "after": run.tokenizer.decode(tokens[position + 1 : position + 1 + CONTEXT]),
            "predictions": {},
        }
        for tokens, position in zip(batch.tokens.tolist(), positions.flatten().tolist())
    ]
    for contestant in run.contestants:
        if contestant.seed != run.config.seeds[0] or contestant.progress.diverged is not None:
            continue
        contestant.model.eval()
        with contestant.precision():
            scored = contestant.model.leave_one_out(
                batch.to(contestant.device), positions.to(contestant.device), k=SHOWN
            )
        for example, top, probability in zip(examples, scored.top[:, 0], scored.log_probabilities[:, 0].exp()):
            example["predictions"][contestant.label] = [
                (piece, round(p, 3)) for piece, p in zip(shown(run.tokenizer, top.tolist()), probability.tolist())
            ]
    facts = {"examples": examples, "seed": run.config.seeds[0], "yardstick": dataclasses.asdict(run.config.evaluation)}
    write_atomically(run.folder / "examples.json", to_json(facts, indent=2))


def shown(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """Pieces as a reader wants them: spaces as spaces, never SentencePiece's mark for them, and no blank where it is all."""
    names = {"<0x0A>": "(line end)", "<0x09>": "(tab)"}
    texts = [names.get(piece, piece).replace("▁", " ") for piece in tokenizer.pieces(ids)]
    return [text if text.strip() else "(space)" for text in texts]
