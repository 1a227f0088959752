"""From the name of a corpus to token shards and their tokenizer, in one call that does its work once."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from data.cache import building, cache_root, discard
from data.chinese import Dictionary, Segmenter, read_dictionary, vocabulary
from data.corpora import Corpus, open_corpus
from data.encode import encode
from data.holdout import SidedPart, Split, find_split
from data.options import check_types
from data.shards import Shards
from data.tokenizer import Tokenizer, check_vocabulary, sample_lines

_VERSION = 5  # raise when the same input would give other shards, so that old ones are not taken for them
_TRAIN, _VALID, _TOKENIZER, _INFO = "train", "valid", "tokenizer.model", "info.json"


@dataclass(frozen=True)
class DataConfig:
    """What to read and how."""

    corpus: str = "botocore"
    """A named corpus, a file, a folder, a quoted glob (.txt .jsonl .parquet, the first two also .gz .zst), or
    hf:owner/name[:config[:column]]."""
    vocab_size: int | None = None
    """Vocabulary of the tokenizer that is trained on the training part; the default is 4,096, or 8,192 with --lang zh."""
    lang: Literal["en", "zh"] = "en"
    """zh: for Chinese. Sets a vocabulary of 8,192 and --words jieba, unless you give these yourself."""
    tokenizer_kind: Literal["subwords", "words", "characters"] = "subwords"
    """Units of the trained tokenizer: subwords (SentencePiece's unigram model), Chinese words, or Chinese characters."""
    words: Literal["spaces", "jieba"] | None = None
    """How words are found, to be masked, hidden or scored whole. spaces (the default): between spaces. jieba: Chinese words of
    its dictionary."""
    dictionary: Path | None = None
    """A dictionary to use instead of jieba's: a file with `word frequency` on each line."""
    validation: str | None = None
    """Another corpus to validate on; without one, whole documents of the corpus are held out."""
    tokenizer: Path | None = None
    """A SentencePiece .model file to use instead of training one, whatever vocab_size says."""
    column: str = "text"
    """The column that holds the text in .jsonl, .parquet and hub rows."""
    held_out: float = 0.02
    """Share of the text to hold out. If that is fewer than 16 documents more is held out, up to a tenth of the text."""
    max_characters: int | None = None
    """Stop reading the corpus after this many characters."""
    cache: Path | None = None
    """Folder for downloads and shards; the default is $TWOSTREAM_CACHE or ~/.cache/twostream."""
    threads: int | None = None
    """Threads that encode; None takes one for each core. The result does not depend on their number."""

    def __post_init__(self):
        check_types(self)
        if self.dictionary is not None and not self.needs_dictionary:
            raise ValueError(
                f"found the dictionary {self.dictionary} and nothing that reads it; expected --words jieba too, or "
                "--tokenizer-kind words"
            )
        if self.pieces > 1 << 24:
            raise ValueError(f"found a vocabulary of {self.pieces}, expected at most {1 << 24:,} pieces")
        if self.tokenizer is None:
            check_vocabulary(self.pieces)
        if not 0 < self.held_out <= 0.2:
            raise ValueError(f"found a held-out share of {self.held_out}, expected more than 0 and at most 0.2")
        for name in ("threads", "max_characters"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"found {name} = {number}, expected 1 or more")

    @property
    def pieces(self) -> int:
        """Of the tokenizer that is made."""
        return (8192 if self.lang == "zh" else 4096) if self.vocab_size is None else self.vocab_size

    @property
    def kind_of_words(self) -> str:
        return self.words or ("jieba" if self.lang == "zh" else "spaces")

    @property
    def needs_dictionary(self) -> bool:
        return self.kind_of_words == "jieba" or (self.tokenizer_kind != "subwords" and self.tokenizer is None)


@dataclass(frozen=True)
class CorpusInfo:
    """Counts of a prepared corpus; tokens include one BOS and one EOS for each document, or part of 2**16 characters of one.

    held_out_whole: whole documents were held out; or parts of documents, where these are too few.
    seconds, encoding_seconds: what preparing took in all, and encoding alone, when it was done.
    """

    corpus: str
    vocab_size: int
    train_documents: int
    train_tokens: int
    train_characters: int
    valid_documents: int
    valid_tokens: int
    valid_characters: int
    seconds: float
    encoding_seconds: float
    held_out_whole: bool = True

    def __str__(self) -> str:
        parts = [
            f"{name} {documents:,} documents, {tokens:,} tokens, "
            f"{characters / max(1, tokens - 2 * documents):.2f} characters an ordinary token"
            for name, documents, tokens, characters in (
                ("train", self.train_documents, self.train_tokens, self.train_characters),
                ("held out", self.valid_documents, self.valid_tokens, self.valid_characters),
            )
        ]
        return f"{self.corpus}, vocabulary of {self.vocab_size:,}: {'; '.join(parts)}"


@dataclass(frozen=True)
class PreparedCorpus:
    """key: a hash of everything that determines the tokens. notes: sentences on what was left out of the corpus."""

    tokenizer: Tokenizer
    train: Shards
    valid: Shards
    info: CorpusInfo
    key: str
    notes: tuple[str, ...] = ()


def prepare(config: DataConfig) -> PreparedCorpus:
    """The corpus of `config`, split, tokenized and encoded. If an earlier run prepared the same bytes its result is used.

    Several processes may call this at once: one prepares, the others wait and share.

    Raises ValueError, FileNotFoundError, ConnectionError (no network) or OSError (disk full), each with one sentence
    that says what was found, what was expected and what to do. Nothing half-written is left behind.
    """
    cache = cache_root(config.cache)
    own_tokenizer = Tokenizer.load(config.tokenizer) if config.tokenizer else None
    corpus = open_corpus(config.corpus, cache, config.column, config.max_characters)
    validation = open_corpus(config.validation, cache, config.column) if config.validation else None
    corpora = [corpus] + ([validation] if validation else [])
    before = [each.state() for each in corpora]

    inputs = {
        "version": _VERSION,
        "corpora": [each.digest() for each in corpora],
        "tokenizer": own_tokenizer.hash if own_tokenizer else config.pieces,
        "held_out": None if validation else config.held_out,
    }
    dictionary = read_dictionary(config.dictionary) if config.needs_dictionary else None
    if dictionary is not None:
        digest = hashlib.sha256(json.dumps(dictionary).encode()).hexdigest()
        inputs |= {"kind": config.tokenizer_kind, "words": config.kind_of_words, "dictionary": digest}
    target = cache / "prepared" / hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:20]
    notes = tuple(note for each in corpora for note in replace(each, empty={}).notes)
    if target.exists():
        try:
            return _open(target, config.corpus, notes)
        except (ValueError, OSError, KeyError, TypeError) as error:
            told = f"What was prepared from {config.corpus} before is not whole ({error}); it is made again."
            print(told, file=sys.stderr)
            discard(target)
    with building(target) as partial:
        if partial is not None:
            _build(partial, config, corpus, validation, own_tokenizer, dictionary)
            if before != [each.state() for each in corpora]:
                raise ValueError(f"{config.corpus}: a file changed while it was read; run again when it is at rest")
    return _open(target, config.corpus, notes)


def _build(
    folder: Path,
    config: DataConfig,
    corpus: Corpus,
    validation: Corpus | None,
    own_tokenizer: Tokenizer | None,
    dictionary: Dictionary | None,
) -> None:
    started = time.perf_counter()
    print(f"preparing {config.corpus}: hold-out, tokenizer, shards", file=sys.stderr)
    folder.mkdir(parents=True)
    split = find_split(corpus, 0 if validation else config.held_out)
    tokenizer, segmenter = own_tokenizer, None if dictionary is None else Segmenter(dictionary)
    if tokenizer is None:
        training_part = (part.text for part in split(corpus) if not part.held_out)
        lines = sample_lines(training_part, split.train_bytes)
        if config.tokenizer_kind == "subwords":
            tokenizer = Tokenizer.train(lines, config.pieces)
        else:
            assert segmenter is not None  # of the dictionary, which these kinds need
            tokenizer = vocabulary(lines, config.pieces, config.tokenizer_kind, segmenter)
    folders = {False: folder / _TRAIN, True: folder / _VALID}
    encoding_started = time.perf_counter()
    threads = config.threads or os.cpu_count() or 1
    found = segmenter if config.kind_of_words == "jieba" else None
    encode(_sides(corpus, validation, split), tokenizer, folders, split.characters, threads, found)
    encoding_seconds = time.perf_counter() - encoding_started
    tokenizer.save(folder / _TOKENIZER)

    train, valid = Shards(folders[False], tokenizer), Shards(folders[True], tokenizer)
    info = CorpusInfo(
        corpus=config.corpus,
        vocab_size=tokenizer.vocab_size,
        train_documents=train.documents,
        train_tokens=train.tokens,
        train_characters=train.characters,
        valid_documents=valid.documents,
        valid_tokens=valid.tokens,
        valid_characters=valid.characters,
        seconds=round(time.perf_counter() - started, 2),
        encoding_seconds=round(encoding_seconds, 2),
        held_out_whole=validation is not None or not split.by_part,
    )
    empty = [note for each in (corpus, validation) if each and each.empty for note in each.notes[-1:]]
    (folder / _INFO).write_text(json.dumps({"info": asdict(info), "notes": empty}, indent=1))


def _sides(corpus: Corpus, validation: Corpus | None, split: Split) -> Iterator[SidedPart]:
    yield from split(corpus)
    if validation is not None:
        yield from (SidedPart(part.text, True, part.first) for part in validation.parts())


def _open(folder: Path, name: str, notes: tuple[str, ...]) -> PreparedCorpus:
    tokenizer = Tokenizer.load(folder / _TOKENIZER)
    found = json.loads((folder / _INFO).read_text())
    info = CorpusInfo(**found["info"] | {"corpus": name})
    train, valid = Shards(folder / _TRAIN, tokenizer), Shards(folder / _VALID, tokenizer)
    return PreparedCorpus(tokenizer, train, valid, info, folder.name, (*notes, *found["notes"]))
