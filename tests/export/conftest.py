"""Models of ours, exported to folders once a session."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from data.tokenizer import Tokenizer
from export.hf import export
from model import MaskedLM
from tests.model.models import tiny_model

logging.getLogger("transformers").setLevel(logging.ERROR)

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "local": ("local", "modern", {}),
    "local-bert": ("local", "bert", {}),
    "local-narrow-table": ("local", "modern", {"d_embed": 16}),
    "local-plain": ("local", "modern", {"options": (("words", 0.0), ("near", 3), ("taps", 1))}),
    "tta": ("tta", "modern", {"options": (("words", 0.25),)}),
    "vanilla": ("vanilla", "modern", {"options": (("narrow", 1), ("near", 2), ("taps", 2))}),
    "vanilla-deep": ("vanilla", "modern", {}),
    "vanilla-bert": ("vanilla", "bert", {}),
    "causal-first": ("causal_first", "modern", {"options": (("narrow", 1),)}),
}
TWO_STREAM = [kind for kind in KINDS if kind.startswith(("local", "tta"))]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    pages = sorted(Path("docs").glob("*.md"))
    return Tokenizer.train([line for page in pages for line in page.read_text().splitlines()], 600)


@pytest.fixture(scope="session")
def exported(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, monkeypatch_session) -> Any:
    """kind -> (our model, the folder it was exported to)."""
    folder, made = tmp_path_factory.mktemp("exported"), {}
    monkeypatch_session.setenv("HF_MODULES_CACHE", str(folder / "modules"))

    def of(kind: str) -> tuple[MaskedLM, Path]:
        if kind not in made:
            architecture, preset, options = KINDS[kind]
            model = tiny_model(
                architecture, preset, vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id, **options
            )
            with torch.no_grad():  # taps and ends start at zero, and zeros would hide a mistake
                for name, p in model.named_parameters():
                    if "taps" in name or "ends" in name:
                        p.normal_(std=0.3)
            made[kind] = model, export(model, tokenizer, folder / f"m_{kind}")
        return made[kind]

    return of


@pytest.fixture(scope="session")
def monkeypatch_session():
    with pytest.MonkeyPatch.context() as patch:
        yield patch
