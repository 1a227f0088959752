"""A small language to test on: made-up words in sentences, documents of one to a few lines."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from data.prepare import DataConfig, PreparedCorpus, prepare
from data.tokenizer import Tokenizer

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


def make_documents(count: int, seed: int = 0, lines: int = 3) -> list[str]:
    chosen = random.Random(seed)
    words = ["".join(chosen.choices("aeiounrstlkmdb", k=chosen.randint(2, 8))) for _ in range(600)]
    frequencies = [1 / (rank + 3) for rank in range(len(words))]
    return [
        "\n".join(
            " ".join(chosen.choices(words, frequencies, k=chosen.randint(4, 16))) + f" {chosen.randint(0, 10**6)}."
            for _ in range(chosen.randint(1, lines))
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """2,000 distinct documents, about 300,000 characters."""
    return make_documents(2_000)


@pytest.fixture(scope="session")
def corpus_file(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n\n".join(documents))
    return path


@pytest.fixture(scope="session")
def prepared(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    cache = tmp_path_factory.mktemp("cache")
    return prepare(DataConfig(str(corpus_file), vocab_size=800, cache=cache))


@pytest.fixture(scope="session")
def tokenizer(prepared: PreparedCorpus) -> Tokenizer:
    return prepared.tokenizer


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(name, content): a file in a fresh folder, from text or bytes."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
