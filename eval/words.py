"""Whole words, in bits a character: models with different tokenizers on the same words of the same text.

    python -m eval.words --checkpoints A B --corpus FILE                    words between spaces (make words)
    python -m eval.words --checkpoints A hf:bert-base-chinese --corpus FILE --segmenter jieba

Tokenizers cannot be compared by the token: a piece whose neighbours belong to the same word is easy to predict, and the finer
the pieces, the easier. Here a word of the text is hidden with all of its tokens, and its bits are divided by its characters:

    together   each of its tokens is predicted while all are hidden, and these are added up
    chain      each is predicted from what stands outside of the word and the word's tokens before it: the word's probability

Words are drawn at random from excerpts of the text, each equally likely. Words of which a token reaches beyond the word, with any
of the checkpoints, are left out for all. Of the corpus that runs were trained on it takes the second half of what they held out
(--held-out as theirs); --held-out 0 takes all of a text.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.cache import cache_root
from data.chinese import Segmenter, read_dictionary
from data.corpora import open_corpus
from data.holdout import find_split
from data.options import check_types
from data.statistics import Spread, paired_difference
from eval.command import Cells, barrier, command, note, open_checkpoints, print_seeds, said
from eval.scoring.words import Drawn, Excerpt, Tokenized, words_of
from eval.store import Store, digest_of, digest_of_model, key_of
from report.names import shortened
from training.whole_words import WholeWordScore


@dataclass(frozen=True)
class WordsConfig:
    """Bits a character of whole words, on text of your own."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--checkpoint"])]
    """Folders of checkpoints, or hf:NAME."""
    corpus: str
    """A file, a folder, or another corpus that pretrain.py can read."""
    segmenter: Literal["spaces", "jieba"] = "spaces"
    """How words are found. spaces: letters and digits between other characters. jieba: Chinese words of its dictionary."""
    dictionary: Path | None = None
    """A dictionary to use instead of jieba's: a file with `word frequency` on each line."""
    held_out: float = 0.02
    """The share that the runs held out; 0 for a text that no checkpoint has trained on."""
    words: int = 2048
    """How many words to draw."""
    characters: int = 120
    """Length of an excerpt in characters: what a model sees around a word."""
    seed: int = 0
    """Seed of the draw."""
    out: Path = Path("runs/words")
    """Folder of results.jsonl; results that are there are kept and not run again."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.checkpoints:
            raise ValueError("Name a checkpoint with --checkpoints.")
        if self.words < 1 or self.characters < 16 or self.seed < 0:
            raise ValueError(
                f"words is {self.words}, characters {self.characters}, seed {self.seed}; at least 1, 16 and 0 are expected."
            )
        if not 0 <= self.held_out <= 0.2:
            raise ValueError(f"held_out is {self.held_out}; expected a share from 0 (take everything) to 0.2.")
        if self.dictionary is not None and self.segmenter == "spaces":
            raise ValueError(f"The dictionary {self.dictionary} is read with --segmenter jieba only.")


def excerpts_of(config: WordsConfig) -> list[Excerpt]:
    """The text in excerpts with at least one word. Raises ValueError where there is no word."""
    corpus = open_corpus(config.corpus, cache_root(None))
    documents: list[list[str]] = []
    for part in find_split(corpus, config.held_out)(corpus):
        if part.held_out or not config.held_out:
            if part.first or not documents:
                documents.append([])
            documents[-1].append(part.text)
    sizes = np.cumsum([0] + [sum(map(len, parts)) for parts in documents])
    begin = int(np.searchsorted(sizes, sizes[-1] / 2)) if config.held_out and len(documents) > 1 else 0
    segmenter = Segmenter(read_dictionary(config.dictionary)) if config.segmenter == "jieba" else None
    found = []
    for number, parts in enumerate(documents[min(begin, len(documents) - 1) :]):
        step = config.characters
        for text in (part[i : i + step] for part in parts for i in range(0, len(part), step)):
            spans = words_of(text, segmenter)
            inside = tuple((a, b) for a, b in spans if a > 0 and b < len(text))  # one at an edge may be cut
            if inside:
                found.append(Excerpt(text, number, inside))
    if not found:
        raise ValueError(
            f"{config.corpus}: no word was found in it by {config.segmenter}; of Chinese take --segmenter jieba, of text with "
            "spaces --segmenter spaces."
        )
    return found


def run(config: WordsConfig, console: Console) -> int:
    opened, store = open_checkpoints(config.checkpoints), Store(config.out)
    for sentence in store.repair():
        note(sentence, console)
    excerpts = excerpts_of(config)
    drawn = Drawn.of(excerpts, config.words, config.seed)
    tokenized = {label: Tokenized(excerpts, drawn, tokenizer) for label, (_, tokenizer) in opened.items()}
    for label, (model, _) in opened.items():
        if (longest := max(map(len, tokenized[label].rows.values()))) > model.config.max_length:
            raise ValueError(
                f"{label}: an excerpt has {longest} tokens and the model reads {model.config.max_length}; take fewer "
                "--characters."
            )
    which = np.flatnonzero(np.logical_and.reduce([each.whole for each in tokenized.values()]))
    if not len(which):
        raise ValueError(
            f"None of {len(drawn.excerpt):,} words consists of whole tokens of every checkpoint; compare fewer checkpoints."
        )
    scores: dict[str, WholeWordScore] = {}
    failed: list[str] = []
    rows = digest_of([(excerpts[n].text, a, b) for n, a, b in zip(drawn.excerpt, drawn.begin[which], drawn.end[which])])
    for label, (model, tokenizer) in opened.items():
        with barrier(label, failed, config.out):
            key = key_of(model=digest_of_model(model, tokenizer), name=label, rows=rows, method="words, whole score")
            if record := store.find(key):
                scores[label] = WholeWordScore.from_dict(record)
                continue
            score = tokenized[label].words(excerpts, drawn, which, tokenizer.pad_id).measure(model)
            if not np.isfinite(score.bits_per_character):
                raise ValueError("a word's probability is not a number: the checkpoint has diverged.")
            scores[label] = score
            store.add({"checkpoint": label, **dataclasses.asdict(score), "key": key})
    if scores:
        console.print(table(scores, {label: tokenized[label] for label in scores}, which))
        columns = ["together", "chain", "guessed right", "together, less the first"]
        print_seeds(list(scores), "documents and seeds", columns, of_seeds(scores), console)
        console.print(
            f"{len(which):,} words of {len(drawn.excerpt):,} drawn, those that consist of whole tokens of every checkpoint; "
            f"{next(iter(scores.values())).characters:,} characters. Results: {config.out}/results.jsonl"
        )
    return said(failed, console)


def table(scores: dict[str, WholeWordScore], tokenized: dict[str, Tokenized], which: np.ndarray) -> Table:
    """A row for each checkpoint."""
    called = shortened(list(scores))
    errors = "standard errors by documents in brackets; ± half of a 95% interval"
    found = Table(title=f"whole words, bits a character ({errors})", title_justify="left")
    found.add_column("checkpoint", overflow="fold")
    for name in ("tokens a word", "together", "chain", "guessed right", "together, less the first"):
        found.add_column(name, justify="right")
    first = next(iter(scores.values()))
    for label, score in scores.items():
        own = tokenized[label]
        pair = "" if score is first else paired_difference([(vars(score.clusters), vars(first.clusters))]).text()
        found.add_row(
            escape(called[label]),
            f"{(own.last - own.first + 1)[which].mean():.2f}",
            with_error(score.bits_per_character, score.standard_error),
            with_error(score.chain, score.chain_standard_error),
            f"{score.accuracy:.1%}",
            pair,
        )
    return found


def of_seeds(scores: dict[str, WholeWordScore]) -> Cells:
    def cells(labels: dict[int, str], first: dict[int, str]) -> list[str]:
        own = [scores[label] for label in labels.values()]
        clusters = [(vars(scores[labels[s]].clusters), vars(scores[first[s]].clusters)) for s in labels if s in first]
        return [
            Spread.of([score.bits_per_character for score in own]).text(),
            Spread.of([score.chain for score in own]).text(),
            Spread.of([score.accuracy for score in own]).text(".1%"),
            "" if labels is first else paired_difference(clusters).text() if clusters else "-",
        ]

    return cells


def with_error(value: float, error: float | None) -> str:
    return f"{value:.3f}" + ("" if error is None else f" ({error:.3f})")


def main() -> int:
    return command(WordsConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
