"""From the records of a run to the numbers that the report shows. Pure functions of results.jsonl and facts.json."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AXES = ("seconds", "flops", "tokens", "predicted_tokens")


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, and the sample standard deviation between them (None for a single seed)."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def text(self, form: str = ".3f") -> str:
        return f"{self.mean:{form}}" + (f" ± {self.deviation:{form}}" if self.deviation is not None else "")


@dataclass(frozen=True)
class Row:
    """A contestant at the end of its budget.

    sooner_seconds, sooner_flops: the share of the baseline's own time and FLOPs after which this contestant's curve had
    fallen to the baseline's final value; None for the baseline, and where it never did.
    matmul_share: training FLOP/s over the machine's measured fp32 matrix-multiply rate.
    """

    label: str
    architecture: str
    seeds: int
    nll: Spread
    standard_error: float
    bits_per_character: Spread
    accuracy: Spread
    seconds: float
    tokens_per_second: Spread
    predicted_tokens_per_second: Spread
    predicted_fraction: float
    matmul_share: float
    parameters: int
    memory_bytes: int
    passes: int
    sooner_seconds: Spread | None
    sooner_flops: Spread | None


@dataclass(frozen=True)
class Results:
    """A run's records by contestant label and seed, in order of steps, with what stands beside them."""

    curves: dict[str, dict[int, list[dict[str, Any]]]]
    facts: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """Raises FileNotFoundError where there is no run and ValueError where it has not been finished."""
        for name in ("run.json", "facts.json", "results.jsonl"):
            if not (folder / name).exists():
                raise FileNotFoundError(f"{folder} has no {name}; give a folder in which `pretrain.py` finished a run.")
        curves: dict[str, dict[int, list[dict[str, Any]]]] = {}
        for line in (folder / "results.jsonl").read_text().splitlines():
            record = json.loads(line)
            curves.setdefault(record["contestant"], {}).setdefault(record["seed"], []).append(record)
        for label, seeds in curves.items():
            if any(curve[-1]["final"] is None for curve in seeds.values()):
                raise ValueError(f"{label} has not finished its budget; continue it with --resume {folder}.")
        return cls(curves, *(json.loads((folder / name).read_text()) for name in ("facts.json", "run.json")))

    @property
    def baseline(self) -> str | None:
        """The best of the vanilla contestants: what two-stream has to beat."""
        vanilla = [label for label in self.curves if self.facts["contestants"][label]["architecture"] == "vanilla"]
        return min(vanilla, key=lambda label: self.final(label, "nll").mean, default=None)

    def final(self, label: str, name: str) -> Spread:
        return Spread.of([curve[-1]["final"][name] for curve in self.curves[label].values()])

    def rows(self) -> list[Row]:
        """Best first."""
        rows = [self.row(label) for label in self.curves]
        return sorted(rows, key=lambda row: row.nll.mean)

    def row(self, label: str) -> Row:
        facts, ends = self.facts["contestants"][label], [curve[-1] for curve in self.curves[label].values()]
        speed = Spread.of([end["tokens"] / end["seconds"] for end in ends])
        deviation = None if speed.deviation is None else speed.deviation * facts["predicted_fraction"]
        return Row(
            label=label,
            architecture=facts["architecture"],
            seeds=len(ends),
            nll=self.final(label, "nll"),
            standard_error=statistics.fmean(end["final"]["standard_error"] for end in ends),
            bits_per_character=self.final(label, "bits_per_character"),
            accuracy=self.final(label, "accuracy"),
            seconds=statistics.fmean(end["seconds"] for end in ends),
            tokens_per_second=speed,
            predicted_tokens_per_second=Spread(speed.mean * facts["predicted_fraction"], deviation),
            predicted_fraction=facts["predicted_fraction"],
            matmul_share=speed.mean * facts["flops_per_token"] / self.facts["machine"]["fp32_matmul"],
            parameters=facts["parameters"],
            memory_bytes=facts["memory_bytes"],
            passes=ends[0]["final"]["passes"],
            sooner_seconds=self.sooner(label, "seconds"),
            sooner_flops=self.sooner(label, "flops"),
        )

    def sooner(self, label: str, axis: str) -> Spread | None:
        """Seed by seed: where `label` reached the baseline's final value, over where the baseline did."""
        if self.baseline is None or label == self.baseline:
            return None
        shares = []
        for seed, curve in self.curves[label].items():
            end = self.curves[self.baseline][seed][-1]
            reached = first_reached([(r[axis], r["curve"]["nll"]) for r in curve], end["curve"]["nll"])
            if reached is None:
                return None
            shares.append(reached / end[axis])
        return Spread.of(shares)

    def verdict(self) -> str:
        """The answer in a sentence or two."""
        baseline = self.baseline
        rivals = [row for row in self.rows() if row.architecture != "vanilla"]
        if baseline is None or not rivals:
            best = self.rows()[0]
            return f"{best.label} is ahead with a leave-one-out NLL of {best.nll.text()} nats a token."
        best, base = rivals[0], self.row(baseline)
        gap = base.nll.mean - best.nll.mean
        ahead = f"{best.label} ends {abs(gap):.2f} nats a token {'below' if gap > 0 else 'above'} {baseline}"
        numbers = f"({best.nll.text('.2f')} against {base.nll.text('.2f')})"
        if best.sooner_seconds is None:
            return f"{ahead} {numbers}, and did not reach its final quality within the budget."
        return (
            f"{best.label} reached {baseline}'s final quality after {best.sooner_seconds.text('.2f')} of its time and "
            f"{best.sooner_flops.text('.2f')} of its FLOPs. At the end, {ahead} {numbers}, and its top guess is "
            f"right for {best.accuracy.mean:.1%} of the hidden tokens against {base.accuracy.mean:.1%}."
        )


def first_reached(curve: list[tuple[float, float]], target: float) -> float | None:
    """Where a curve of (x, value) first falls to `target`, linear between its points; None if it never does.

    Before the first point nothing is known, so a target already met there counts as reached at the first point.
    """
    previous: tuple[float, float] | None = None
    for x, value in curve:
        if value <= target:
            if previous is None or previous[1] == value:
                return x
            return previous[0] + (x - previous[0]) * (previous[1] - target) / (previous[1] - value)
        previous = (x, value)
    return None
