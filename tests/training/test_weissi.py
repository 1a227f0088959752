"""A penalty that a shift of scale leaves alone, and the decay that is made of it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from model.architectures import REGISTRY
from model.architectures.base import Architecture
from model.layers import Block
from tests.conftest import random_batch
from tests.model.models import tiny_model
from training.optimizer import OptimizerConfig, Optimizers
from training.weissi import Pair, Weissi, pairs_of, penalty

NAMES = ("query", "key", "value", "out")


def l2(model: nn.Module) -> float:
    return float(sum(p.detach().square().sum() for p in model.parameters() if p.ndim == 2)) / 2


def shifted(model: nn.Module, seed: int = 0) -> None:
    """Every pair of every block by factors of its own, for each head and each hidden unit; biases with their rows."""
    architectures = [m for m in model.modules() if isinstance(m, Architecture)]
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in (m for m in model.modules() if isinstance(m, Block)):
            heads, width = block.n_heads, block.query.in_features
            feed = block.feed_forward
            units = feed.leave.in_features
            attention = (block.query, block.key, heads, False, 0), (block.value, block.out, heads, True, 0)
            two_sources = any(a.keys_have_two_sources and block in list(a.blocks) for a in architectures)
            for first, second, groups, columns, begin in (
                *(() if two_sources else attention),
                (feed.enter, feed.leave, units, True, units),
            ):
                c = (torch.rand(groups, generator=draw) * 3 + 0.2).repeat_interleave(
                    (units if begin else width) // groups
                )
                first.weight[begin:] *= c[:, None]
                if first.bias is not None:
                    first.bias[begin:] *= c
                if columns:
                    second.weight /= c
                else:
                    second.weight /= c[:, None]
                    if second.bias is not None:
                        second.bias /= c


@pytest.mark.parametrize("architecture", [*REGISTRY, "bicausal:width=0"])
def test_a_shift_of_scale_changes_neither_the_model_nor_the_penalty_but_l2(architecture: str) -> None:
    torch.manual_seed(0)
    name, *options = architecture.split(":")
    model = tiny_model(name, options=(("width", 0),) if options else ()).double()
    batch = random_batch("packed")
    batch = replace(batch, masked=batch.tokens % 3 == 0, corrupted=torch.where(batch.tokens % 3 == 0, 3, batch.tokens))
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    before = model.loss(batch).item(), float(penalty(model)), l2(model)
    shifted(model)
    after = model.loss(batch).item(), float(penalty(model)), l2(model)
    assert after[:2] == pytest.approx(before[:2], rel=1e-9)
    assert abs(after[2] / before[2] - 1) > 0.1


def test_the_decay_is_the_gradient_of_the_penalty() -> None:
    torch.manual_seed(0)
    model = tiny_model("local").double()
    expected = {}
    pairs = pairs_of(model)
    for pair in pairs:  # by autograd, of the definition
        first = pair.first[pair.begin :].unflatten(0, (pair.groups, -1)).flatten(1).norm(dim=1)
        second = (pair.second.T if pair.columns else pair.second).unflatten(0, (pair.groups, -1)).flatten(1).norm(dim=1)
        (first * second).sum().backward()
    for pair in pairs:
        for p in (pair.first, pair.second):
            expected[id(p)] = p.detach() - 0.02 * 0.5 * p.grad
    Weissi(model, [], 0.5).step(0.02)
    for pair in pairs:
        found, wanted = pair.first.detach()[pair.begin :], expected[id(pair.first)][pair.begin :]
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(pair.second.detach(), expected[id(pair.second)])


def test_equal_norms_have_ordinary_decay_and_nothing_is_decayed_twice_or_not_at_all() -> None:
    model, names = tiny_model("local"), ("adamw", "muon")
    for name in names:
        plain = Optimizers(model, OptimizerConfig(name=name))
        decayed = {id(p) for o in plain.optimizers for g in o.param_groups if g["weight_decay"] for p in g["params"]}
        ours = Optimizers(model, OptimizerConfig(name=name, regulariser="weissi"))
        assert not any(g["weight_decay"] for o in ours.optimizers for g in o.param_groups)
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(1.0)
        ours.weissi.step(0.1)
        for p in model.parameters():
            expected = 1 - 0.1 * 0.05 if id(p) in decayed else 1.0
            # A head's part of a pair, and a unit's row and column, are of equal size here.
            torch.testing.assert_close(p.detach(), torch.full_like(p, expected))


def test_a_matrix_of_zeros_stays_what_it_is() -> None:
    first, second = nn.Parameter(torch.zeros(4, 4)), nn.Parameter(torch.ones(4, 4))
    holder = Weissi(nn.Module(), [], 1.0)
    holder.pairs = [Pair(first, second, 2, columns=False)]
    holder.step(0.5)
    assert not first.any() and torch.equal(second.detach(), torch.ones(4, 4))


def test_it_trains() -> None:
    model, batch = tiny_model("local"), random_batch("whole")
    optimizers = Optimizers(model, OptimizerConfig(regulariser="weissi", weight_decay=0.2))
    losses = []
    for _ in range(30):
        loss = model.loss(batch)
        loss.backward()
        optimizers.step(1e-2)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
