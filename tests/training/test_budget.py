import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.budget import Budget, Spent, learning_rate_factor


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("90s", "seconds", 90),
        ("5m", "seconds", 300),
        ("1.5h", "seconds", 5400),
        ("2e13flop", "flops", 2e13),
        ("2.5E+13FLOPs", "flops", 2.5e13),
        ("20Mtok", "tokens", 2e7),
        ("800 ktok", "tokens", 8e5),
    ],
)
def test_budgets_are_read(text: str, kind: str, amount: float) -> None:
    assert Budget.parse(text) == Budget(kind, pytest.approx(amount))


@pytest.mark.parametrize("text", ["", "5", "m", "5 minutes", "-3m", "1.2.3s", "2e13", "5mtok", "0s", "1e400s", "0flop"])
def test_other_budgets_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="^The budget .*(write wall-clock as 90s|must be more than 0)"):
        Budget.parse(text)


def test_fraction_is_of_its_own_kind() -> None:
    spent = Spent(seconds=30, flops=4e12, tokens=500)
    fractions = [Budget(kind, amount).fraction(spent) for kind, amount in (("seconds", 60), ("flops", 1e13))]
    assert [*fractions, Budget("tokens", 1000).fraction(spent)] == [0.5, 0.4, 0.5]


def test_schedule_by_hand() -> None:
    factors = [learning_rate_factor(f, warmup=0.1, decay=0.5) for f in (0.0, 0.05, 0.1, 0.3, 0.5, 0.75, 1.0, 1.2)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0])
    assert learning_rate_factor(0.0, warmup=0.0, decay=0.0) == 1.0


@given(st.floats(0, 1.5), st.floats(0, 0.5), st.floats(0, 0.5))
def test_schedule_stays_within_its_bounds(fraction: float, warmup: float, decay: float) -> None:
    assert 0.0 <= learning_rate_factor(fraction, warmup, decay) <= 1.0
