import pytest
import torch

from model.layers import Block
from tests.conftest import random_batch
from tests.model.models import tiny_model
from training.optimizer import OptimizerConfig, Optimizers


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_has_exactly_one_optimizer(name: str) -> None:
    model = tiny_model("tta", d_embed=16)
    optimizers = Optimizers(model, OptimizerConfig(name=name))
    held = [id(p) for o in optimizers.optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_muon_holds_the_matrices_that_the_architecture_names_and_nothing_else() -> None:
    """By default every linear layer of the architecture, one outside the blocks too, but none of the embedding's."""
    model = tiny_model("tta", "bert", d_embed=16)
    model.architecture.extra = torch.nn.Linear(32, 32)
    muon = Optimizers(model, OptimizerConfig(name="muon")).optimizers[1]
    held = {id(p) for group in muon.param_groups for p in group["params"]}
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    expected = {id(p) for block in blocks for p in block.parameters() if p.ndim == 2}
    assert held == expected | {id(model.architecture.extra.weight)}


@pytest.mark.parametrize(
    ("architecture", "preset", "options"), [("tta", "bert", ()), ("local", "modern", (("words", 0.5),))]
)
def test_tables_norms_and_biases_are_not_decayed(architecture: str, preset: str, options: tuple) -> None:
    model = tiny_model(architecture, preset, options=options)
    adamw = Optimizers(model, OptimizerConfig(name="adamw")).optimizers[0]
    decayed = {id(p) for group in adamw.param_groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert names and not any(n.endswith("bias") or "norm" in n or "table" in n or "positions" in n for n in names)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_clips_and_learns(name: str) -> None:
    model, batch = tiny_model("tta"), random_batch("whole")
    optimizers = Optimizers(model, OptimizerConfig(name=name, clip=0.5))
    losses = []
    for _ in range(30):
        loss = model.loss(batch)
        loss.backward()
        norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters()]))
        torch.testing.assert_close(optimizers.step(1e-2), norm)
        assert all(p.grad is None for p in model.parameters())
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_state_bytes_are_what_the_states_hold() -> None:
    model = tiny_model("tta")
    for name in ("adamw", "muon"):
        optimizers = Optimizers(model, OptimizerConfig(name=name))
        model.loss(random_batch("whole")).backward()
        optimizers.step(1e-3)
        states = (s for o in optimizers.optimizers for s in o.state.values())
        held = sum(t.nbytes for s in states for t in s.values() if torch.is_tensor(t) and t.ndim > 0)
        assert optimizers.state_bytes() == held


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"learning_rate": 0.0}, "learning rate is 0.0"),
        ({"warmup": 0.6, "decay": 0.6}, "shares of the budget"),
        ({"clip": -1.0}, "must not be negative"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be a number"),
        ({"name": "adam"}, "name is 'adam'; it must be one of muon, adamw"),
        ({"betas": (0.9, 1.0)}, "must lie in"),
    ],
)
def test_impossible_options_are_refused(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        OptimizerConfig(**fields)
