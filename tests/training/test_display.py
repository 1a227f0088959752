"""What a run says about the time that is left."""

from types import SimpleNamespace

from rich.console import Console

from training.display import Display


def contestant(amount: float, fraction: float) -> SimpleNamespace:
    return SimpleNamespace(
        label="tta", seed=0, fraction=fraction, finished=fraction >= 1, budget=SimpleNamespace(amount=amount)
    )


def test_a_quarter_of_the_budget_is_a_quarter_of_the_work() -> None:
    whole, quarter = contestant(1e12, 0.5), contestant(2.5e11, 0.0)
    assert Display([whole, quarter], Console()).overall() == 0.4  # 0.5 of 1.25, not a half of one of two
    assert Display([whole, contestant(2.5e11, 1.0)], Console()).overall() == 0.6
