"""A budget is what a comparison holds equal: wall-clock time, arithmetic or tokens. Schedules follow the share that is
spent."""

import re
from dataclasses import dataclass
from typing import Literal

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
TOKENS = {"tok": 1.0, "ktok": 1e3, "Mtok": 1e6, "Gtok": 1e9}


@dataclass(frozen=True)
class Spent:
    """What one model has used so far: seconds of training (evaluation and saving not counted), FLOPs, input tokens, and
    of these the positions that were predicted."""

    seconds: float = 0.0
    flops: float = 0.0
    tokens: int = 0
    predicted: int = 0


@dataclass(frozen=True)
class Budget:
    """What each model may use."""

    kind: Literal["seconds", "flops", "tokens"]
    amount: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """'90s', '5m', '2h', '2e13flop', '20Mtok'. Raises ValueError for anything else."""
        match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]+)\s*", text)
        sentence = (
            f"The budget {text!r} is not understood; write wall-clock as 90s, 5m or 2h, "
            "arithmetic as 2e13flop, or tokens as 20Mtok."
        )
        if not match:
            raise ValueError(sentence)
        try:
            number, unit = float(match[1]), match[2]
        except ValueError:
            raise ValueError(sentence) from None
        if unit in SECONDS:
            budget = cls("seconds", number * SECONDS[unit])
        elif unit.lower() in ("flop", "flops"):
            budget = cls("flops", number)
        elif unit in TOKENS:
            budget = cls("tokens", number * TOKENS[unit])
        else:
            raise ValueError(sentence)
        if not 0 < budget.amount < float("inf"):
            raise ValueError(f"The budget {text!r} is {budget.amount:g}; it must be more than 0 and finite.")
        return budget

    def times(self, share: float) -> "Budget":
        return Budget(self.kind, self.amount * share)

    def fraction(self, spent: Spent) -> float:
        return getattr(spent, self.kind) / self.amount

    def __str__(self) -> str:
        if self.kind == "seconds":
            unit = next(u for u in ("h", "m", "s") if self.amount >= SECONDS[u] or u == "s")
            return f"{self.amount / SECONDS[unit]:g} {unit}"
        return f"{self.amount:.3g} FLOP" if self.kind == "flops" else f"{self.amount:,.0f} tokens"


def learning_rate_factor(fraction: float, warmup: float, decay: float) -> float:
    """Trapezoid over the share of the budget spent: linear warm-up, plateau, linear decay to zero at 1.

    Monotone pieces of a pure function, so that a resumed run and every kind of budget share one schedule
    (Hägele et al. 2024, arXiv 2405.18392, on constant rate with cooldown).
    """
    if fraction >= 1.0:
        return 0.0
    rise = (fraction / warmup) if warmup > 0 else 1.0
    fall = ((1.0 - fraction) / decay) if decay > 0 else 1.0
    return min(1.0, rise, fall)
