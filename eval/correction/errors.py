"""Errors that are made up: characters taken for others that sound alike; and errors that people made, in SIGHAN's files."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from data.chinese import HAN
from data.extras import needs
from data.text import read_lines

CHARACTER = re.compile(f"[{HAN}]")
SENTENCE = re.compile("[^。！？\n]+[。！？]?")
FREQUENT = 4_000  # characters that may replace others: rare ones are not plausible errors


def sentences_of(texts: Iterable[str], shortest: int = 10, longest: int = 100) -> list[str]:
    """Each different one of so many characters, at least half of them Chinese."""
    found: dict[str, None] = {}
    for text in texts:
        for match in SENTENCE.finditer(text):
            sentence = match[0].strip()
            if shortest <= len(sentence) <= longest and 2 * len(CHARACTER.findall(sentence)) >= len(sentence):
                found[sentence] = None
    return list(found)


class Homophones:
    """Characters that sound alike but for the tone, among the frequent ones of some sentences."""

    def __init__(self, sentences: Sequence[str]) -> None:
        """Raises ValueError where pypinyin is not installed, or nothing is Chinese."""
        needs("pypinyin", "homophones", "requirements-more.txt")
        from pypinyin import Style, pinyin

        counts = Counter(character for sentence in sentences for character in CHARACTER.findall(sentence))
        if not counts:
            raise ValueError(
                "There is no Chinese sentence in this text; expected text with sentences of 10 to 100 characters."
            )
        self.known = [character for character, _ in counts.most_common(FREQUENT)]
        sounds = {c: pinyin(c, style=Style.NORMAL)[0][0] for c in self.known}  # the usual one of several
        by_sound: dict[str, list[str]] = defaultdict(list)
        for character, sound in sounds.items():
            by_sound[sound].append(character)
        self.like = {c: [o for o in by_sound[sounds[c]] if o != c] for c in self.known}

    def corrupted(self, sentence: str, rate: float, draw: random.Random, random_share: float = 0.2) -> str:
        """With a share of the Chinese characters replaced: by one that sounds alike, or for `random_share` of them, and where
        none does, by any. Soft-Masked BERT has 15% and 0.2."""

        def other(character: str) -> str:
            alike = self.like.get(character)
            return draw.choice(alike if alike and draw.random() >= random_share else self.known)

        return "".join(other(c) if CHARACTER.match(c) and draw.random() < rate else c for c in sentence)


def read_sighan(texts: Path, truth: Path) -> tuple[list[str], list[str]]:
    """Wrong and right texts from SIGHAN's test files: lines `(pid=ID)<tab>text`, and `ID, position, character, position, ...`
    (positions from 1; a single 0 for a text that is right).

    Raises FileNotFoundError, or ValueError that names file and line.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(read_lines(texts), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\(pid=([^)]+)\)\s(.+)", line.strip())
        if not match:
            raise ValueError(f"{texts}, line {number}: found {line[:30]!r}; expected (pid=ID), a tab and a text.")
        found[match[1]] = match[2].strip()
    wrong, right = [], []
    for number, line in enumerate(read_lines(truth), start=1):
        if not line.strip():
            continue
        where = f"{truth}, line {number}"
        name, *rest = (part.strip() for part in line.split(","))
        if name not in found:
            raise ValueError(f"{where}: there is no text {name!r} in {texts}; give the files of one set.")
        text = list(found[name])
        if rest != ["0"]:
            if not rest or len(rest) % 2:
                raise ValueError(
                    f"{where}: found {line[:30]!r}; expected ID, 0, or ID and pairs of a position and a character."
                )
            for position, character in zip(rest[::2], rest[1::2]):
                if not position.isdigit() or not 1 <= int(position) <= len(text) or len(character) != 1:
                    raise ValueError(
                        f"{where}: no position and character in {position!r}, {character!r} for a text of {len(text)}."
                    )
                text[int(position) - 1] = character
        wrong.append(found[name])
        right.append("".join(text))
    if not wrong:
        raise ValueError(f"{truth} is empty; expected a line for each text.")
    return wrong, right
