"""Texts to shards."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.chinese import Segmenter, token_starts
from data.holdout import SidedPart
from data.shards import ShardWriter
from data.tokenizer import Tokenizer

_GROUP = 1 << 20  # characters that are encoded at a time


def encode(
    parts: Iterable[SidedPart],
    tokenizer: Tokenizer,
    folders: dict[bool, Path],
    characters: int | None = None,
    threads: int = 1,
    segmenter: Segmenter | None = None,
) -> None:
    """Encode parts into `folders[held out]`, with a progress bar if stderr is a terminal.

    characters: of all documents, for the bar's time left. segmenter: of a text without spaces, whose words are written down too.
    """
    writers = {side: ShardWriter(folder, tokenizer, segmenter is not None) for side, folder in folders.items()}
    bar = tqdm(total=characters, desc="encoding", unit="char", unit_scale=True, disable=None)
    with bar, writers[False] as train, writers[True] as held_out:
        tokens = 0
        for group in _groups(parts):
            for writer, side in ((train, False), (held_out, True)):
                if own := [part for part in group if part.held_out is side]:
                    encoded = tokenizer.encode_documents([part.text for part in own], threads)
                    starts = [
                        _starts(tokenizer, segmenter, p.text, ids, threads) for p, ids in zip(own, encoded) if segmenter
                    ]
                    writer.write(encoded, [part.first for part in own], sum(len(part.text) for part in own), starts)
                    tokens += sum(map(len, encoded))
            bar.update(sum(len(part.text) for part in group))
            bar.set_postfix_str(f"{tokens / max(bar.format_dict['elapsed'], 1e-9) / 1e6:.2f} M tokens/s", refresh=False)


def _starts(tokenizer: Tokenizer, segmenter: Segmenter, text: str, ids: np.ndarray, threads: int) -> np.ndarray:
    """Of BOS, the tokens of the text, EOS."""
    inside = token_starts(tokenizer, ids[1:-1], segmenter.starts(text, threads))
    return np.concatenate([[True], inside, [True]])


def _groups(parts: Iterable[SidedPart]) -> Iterable[list[SidedPart]]:
    """Consecutive parts of about _GROUP characters together."""
    group, characters = [], 0
    for part in parts:
        group.append(part)
        characters += len(part.text)
        if characters >= _GROUP:
            yield group
            group, characters = [], 0
    if group:
        yield group
