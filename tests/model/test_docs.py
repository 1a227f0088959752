"""The worked example of docs/architectures.md is extracted, registered and certified; every architecture is described."""

import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import MaskedLM
from model.architectures import REGISTRY
from model.batch import Batch
from model.draw import LENGTH, measure
from tests.conftest import LAYOUTS, random_batch
from tests.model.models import tiny_config
from tests.model.test_architectures import assert_a_word_is_hidden
from tests.model.test_no_leak import certify, certify_documents, certify_leave_one_out

PAGE = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")


@pytest.fixture
def bipartite(monkeypatch: pytest.MonkeyPatch) -> MaskedLM:
    [source] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = types.ModuleType("bipartite")
    monkeypatch.setitem(sys.modules, "bipartite", module)
    exec(compile(source, "docs/architectures.md", "exec"), vars(module))
    assert len([line for line in source.splitlines() if line.strip()]) <= 52
    monkeypatch.setitem(REGISTRY, "bipartite", module.Bipartite)
    torch.manual_seed(0)
    model = MaskedLM(tiny_config("bipartite"))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_worked_example_is_certified(layout: str, bipartite: MaskedLM) -> None:
    batch = random_batch(layout)
    certify(bipartite, batch)
    certify_leave_one_out(bipartite, batch)
    assert_a_word_is_hidden(bipartite)
    if layout != "whole":
        certify_documents(bipartite, replace(batch, corrupted=batch.tokens))


def test_the_worked_example_trains_and_encodes(bipartite: MaskedLM) -> None:
    batch = random_batch("packed")
    bipartite.loss(batch).backward()
    assert all(p.grad is not None for p in bipartite.parameters())
    tokens = batch.tokens.clone()
    tokens[:, 5] = tokens[:, 5] % 50 + 6
    changed = bipartite.encode(replace(batch, tokens=tokens)) - bipartite.encode(batch)
    assert changed[:, 5].abs().max() > 1e-3
    assert torch.isfinite(bipartite.encode(Batch(batch.tokens), with_self=False)).all()


@pytest.mark.parametrize("architecture", REGISTRY)
def test_every_architecture_is_described(architecture: str) -> None:
    assert PAGE.count(f"| `{architecture}` |") >= 2  # what it is, and what it costs


def test_the_picture_shows_what_the_contract_says() -> None:
    """A prediction depends on all other tokens and not on its own; T-TA's keys on their own token alone."""
    others = ~torch.eye(LENGTH, dtype=torch.bool)
    for name in ("tta", "local", "bicausal", "rtd"):
        assert torch.equal(measure(name)["prediction"], others)
    assert torch.equal(measure("tta")["keys"], ~others)
    assert torch.equal(measure("local")["keys"], torch.ones(LENGTH, LENGTH).tril(2).triu(-2).bool())
    permuted = measure("permuted")["prediction"]
    assert not permuted.diagonal().any() and permuted.sum() == LENGTH * (LENGTH - 1) // 2
