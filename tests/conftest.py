"""Shared by all tests. Triton reads TRITON_INTERPRET when kernels are decorated, so it is set before any import."""

import os
import random
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from model.batch import Batch

torch.set_num_threads(1)

VOCAB, MASK = 64, 3  # of the tiny models; ids 0 to 4 are special


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus with structure to learn: subject, verb, object agree in their number."""
    choose = random.Random(0).choice
    nouns = [first + last for first in "bar den fol gim kur lam ner pos".split() for last in "id ot um el ak".split()]
    verbs = "see follow carry answer remember draw cross paint".split()
    adverbs = "slowly gladly often never twice".split()

    def sentence() -> str:
        s = choose(("s", ""))
        one, two = choose(nouns), choose(nouns)
        return f"the {one}{s} {choose(adverbs)} {choose(verbs)}{'' if s else 's'} the {two}{s}."

    documents = ["\n".join(" ".join(sentence() for _ in range(6)) for _ in range(8)) for _ in range(160)]
    path = tmp_path_factory.mktemp("corpus") / "sentences.txt"
    path.write_text("\n\n".join(documents) + "\n")
    return path


LAYOUTS = ("whole", "padded", "packed")


def random_batch(layout: str, rows: int = 2, length: int = 12, seed: int = 0) -> Batch:
    """Random ordinary tokens: whole rows, rows padded at their end, or rows of several documents (one of length 1)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, VOCAB, (rows, length), generator=generator)
    if layout == "whole":
        return Batch(tokens)
    documents = torch.zeros(rows, length, dtype=torch.int32)
    if layout == "padded":
        documents[0, length - 4 :] = -1
        tokens = tokens.masked_fill(documents < 0, 0)
    else:
        documents[:, 4:], documents[:, 9:], documents[0, 10:] = 1, 2, 3
    return Batch(tokens, documents)
