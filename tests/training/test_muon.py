import pytest
import torch

from training import muon
from training.muon import Muon, orthogonalise

OPTIONS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}
SHAPES = [(16, 16), (40, 16), (16, 16), (16, 24)]


def after_steps(optimizer: type[torch.optim.Muon], steps: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    optimizer = optimizer(parameters, **OPTIONS)
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return [p.detach() for p in parameters]


@pytest.mark.parametrize("fast_bf16", [True, False])
def test_updates_are_those_of_torch(fast_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: fast_bf16)
    start = after_steps(Muon, steps=0)
    for before, ours, theirs in zip(start, after_steps(Muon), after_steps(torch.optim.Muon), strict=True):
        # torch computes in bfloat16: three significant digits, through five iterations
        assert (ours - theirs).norm() < 0.02 * (theirs - before).norm()


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    """Not exactly 1: the coefficients trade that for speed (Jordan et al. 2024 say 0.7 to 1.2)."""
    matrices = torch.randn(3, 20, 48, generator=torch.Generator().manual_seed(0))
    coefficients = (3.4445, -4.7750, 2.0315)
    for x in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalise(x, coefficients, 5, 1e-7, torch.float32))
        assert values.min() > 0.6 and values.max() < 1.3


def test_each_matrix_is_orthogonalised_on_its_own() -> None:
    matrices = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    together = orthogonalise(matrices, (2.0, -1.5, 0.5), 30, 1e-7, torch.float64)  # these converge all the way
    for x, y in zip(matrices.double(), together):
        u, _, vh = torch.linalg.svd(x)
        torch.testing.assert_close(y, u @ vh, rtol=1e-6, atol=1e-6)
