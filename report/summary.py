"""From the records of a run to the numbers that the report shows. Pure functions of results.jsonl and facts.json."""

import math
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.statistics import Difference, Spread, paired_difference
from report.records import read_json, read_records


@dataclass(frozen=True)
class Row:
    """A contestant at the end of its budget, or what became of it.

    state: "finished", "unfinished" or "diverged". If it is not finished its numbers are None.
    behind: the paired difference to the best row; words_behind: on whole words, to the row that is best on these on dev.
    sooner: the share of the baseline's budget, on the run's own axis, after which this contestant's *curve*, at its rate then,
    had fallen to the baseline's final value; None for the baseline, and where it never did.
    matmul_share: training FLOP/s over the machine's measured matrix-multiply rate in the precision of the run.
    """

    label: str
    architecture: str
    state: str
    told: str
    seeds: int
    parameters: int
    memory_bytes: int
    predicted_fraction: float
    nll: Spread | None = None
    standard_error: float | None = None
    behind: Difference | None = None
    accuracy: Spread | None = None
    words: Spread | None = None
    words_error: float | None = None
    words_behind: Difference | None = None
    chain: Spread | None = None
    words_accuracy: Spread | None = None
    seconds: float | None = None
    tokens_per_second: Spread | None = None
    predicted_tokens_per_second: Spread | None = None
    matmul_share: float | None = None
    passes: int | None = None
    sooner: Spread | None = None


@dataclass(frozen=True)
class Point:
    """A contestant of a family at a share of the budget: its final NLL by seed."""

    share: float
    nll: dict[int, float]


@dataclass(frozen=True)
class Results:
    """A run's records by contestant label and seed, in order of steps, with what stands beside them."""

    curves: dict[str, dict[int, list[dict[str, Any]]]]
    facts: dict[str, Any]
    config: dict[str, Any]
    folder: Path

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """Raises FileNotFoundError where there is no run and ValueError for a damaged one."""
        config, facts = read_json(folder / "run.json", "seeds"), read_json(folder / "facts.json", "contestants")
        if not isinstance(config["seeds"], list) or not isinstance(facts["contestants"], dict):
            raise ValueError(f"{folder}: run.json and facts.json are not what `pretrain.py` wrote.")
        if not (folder / "results.jsonl").exists():
            raise FileNotFoundError(f"{folder} has no results.jsonl; give a folder in which `pretrain.py` ran.")
        curves: dict[str, dict[int, list[dict[str, Any]]]] = {
            label: {seed: [] for seed in config["seeds"]} for label in facts["contestants"]
        }
        for record in read_records(folder / "results.jsonl"):
            if not isinstance(record["contestant"], str) or not isinstance(record["seed"], int):
                raise ValueError(f"{folder / 'results.jsonl'}: a record without a contestant's name and seed.")
            curves.setdefault(record["contestant"], {}).setdefault(record["seed"], []).append(record)
        return cls(curves, facts, config, folder)

    def state(self, label: str) -> str:
        ends = [curve[-1] if curve else None for curve in self.curves[label].values()]
        if any(end is not None and end.get("diverged") is not None for end in ends):
            return "diverged"
        return "finished" if all(end is not None and end["final"] for end in ends) else "unfinished"

    @cached_property
    def finished(self) -> list[str]:
        return [label for label in self.curves if self.state(label) == "finished"]

    @property
    def seeds(self) -> list[int]:
        return list(self.config["seeds"])

    def share(self, label: str) -> float:
        return self.facts["contestants"][label].get("share", 1.0)

    @property
    def baseline(self) -> str | None:
        """The best of the vanilla contestants with the whole budget, chosen on dev: what two-stream has to beat."""
        return next(iter(self.baselines), None)

    @property
    def baselines(self) -> list[str]:
        """All vanilla contestants with the whole budget, best first."""
        vanilla = [
            label
            for label in self.finished
            if self.facts["contestants"][label]["architecture"] == "vanilla" and self.share(label) == 1
        ]
        return sorted(vanilla, key=lambda label: self.final(label, "nll", part="dev").mean)

    def final(self, label: str, name: str, part: str = "final") -> Spread:
        return Spread.of([curve[-1][part][name] for curve in self.curves[label].values()])

    def final_by_seed(self, label: str) -> dict[int, float]:
        return {seed: curve[-1]["final"]["nll"] for seed, curve in self.curves[label].items()}

    def difference(self, label: str, other: str, part: str = "final") -> Difference:
        """On the same tokens of the test half, or of part="dev"; part="words" or "dev_words": on the same whole words. Over the
        seeds that both have; raises ValueError where there is none."""
        ours, theirs = self.curves[label], self.curves[other]
        ends = [(ours[seed][-1], theirs[seed][-1]) for seed in sorted(ours.keys() & theirs.keys())]
        if not ends:
            raise ValueError(f"{label} and {other} have no seed in common; run both with one.")
        return paired_difference([(ours[part]["clusters"], theirs[part]["clusters"]) for ours, theirs in ends])

    def has_words(self, label: str) -> bool:
        """Whether whole words were measured as they are today, with what an error is made from."""
        return all("clusters" in (curve[-1].get("words") or {}) for curve in self.curves[label].values())

    def kinds(self, label: str) -> dict[str, float]:
        """Leave-one-out NLL of the test half by kind of token, mean over seeds; empty for older records."""
        ends = [curve[-1]["final"].get("kinds") or {} for curve in self.curves[label].values()]
        return {
            name: statistics.fmean(end[name][1] / end[name][0] for end in ends)
            for name in ends[0]
            if all(end.get(name, (0,))[0] for end in ends)
        }

    def rows(self) -> list[Row]:
        """Best first, by the dev half; unfinished contestants come last."""
        done = sorted(self.finished, key=lambda label: self.final(label, "nll", part="dev").mean)
        return [self.row(label) for label in [*done, *(label for label in self.curves if label not in done)]]

    def row(self, label: str) -> Row:
        facts, state = self.facts["contestants"][label], self.state(label)
        common = {
            "label": label,
            "architecture": facts["architecture"],
            "state": state,
            "told": self._told(label, state),
            "seeds": len(self.curves[label]),
            "parameters": facts["parameters"],
            "memory_bytes": facts["memory_bytes"],
            "predicted_fraction": facts["predicted_fraction"],
        }
        if state != "finished":
            return Row(**common)
        ends = [curve[-1] for curve in self.curves[label].values()]
        errors = [end["final"]["standard_error"] for end in ends]
        best = min(self.finished, key=lambda other: self.final(other, "nll", part="dev").mean)
        words = [end["words"]["bits_per_character"] for end in ends if end.get("words")]
        whole: dict[str, Any] = {}
        if self.has_words(label):
            measured = [label for label in self.finished if self.has_words(label)]
            key = (
                "dev_words"
                if all(c[-1].get("dev_words") for x in measured for c in self.curves[x].values())
                else "words"
            )
            first = min(measured, key=lambda other: self.final(other, "bits_per_character", part=key).mean)
            errors_of_words = [end["words"]["standard_error"] for end in ends]
            whole = {
                "words_error": None if None in errors_of_words else statistics.fmean(errors_of_words),
                "words_behind": None if label == first else self.difference(label, first, part="words"),
                "chain": self.final(label, "chain", part="words"),
                "words_accuracy": self.final(label, "accuracy", part="words"),
            }
        speed = Spread.of([end["tokens"] / end["seconds"] for end in ends])
        return Row(
            **common,
            nll=self.final(label, "nll"),
            standard_error=None if None in errors else statistics.fmean(errors),
            behind=None if label == best else self.difference(label, best),
            accuracy=self.final(label, "accuracy"),
            words=Spread.of(words) if len(words) == len(ends) else None,
            **whole,
            seconds=statistics.fmean(end["seconds"] for end in ends),
            tokens_per_second=speed,
            predicted_tokens_per_second=Spread.of([end["predicted_tokens"] / end["seconds"] for end in ends]),
            matmul_share=statistics.fmean(end["flops"] / end["seconds"] / self.matmul_rate(end) for end in ends),
            passes=ends[0]["final"]["passes"],
            sooner=self.sooner(label),
        )

    def _told(self, label: str, state: str) -> str:
        if state == "diverged":
            at = [c[-1]["diverged"] for c in self.curves[label].values() if c and c[-1].get("diverged") is not None]
            return f"diverged at {min(at):.0%} of its budget" + (f" ({len(at)} of {len(self.curves[label])} seeds)")
        return "" if state == "finished" else "unfinished"

    def matmul_rate(self, end: dict[str, Any]) -> float:
        """Of the precision in use, on the machines that trained this contestant, weighted by their steps."""
        name = "bf16_matmul" if "bfloat16" in self.facts["precision"] else "fp32_matmul"
        sessions = end["sessions"]
        stops = [session["step"] for session in sessions[1:]] + [end["step"]]
        weights = [stop - session["step"] for session, stop in zip(sessions, stops)]
        if not sum(weights):
            weights = [1] * len(sessions)
        return sum(w * (s[name] or s["fp32_matmul"]) for w, s in zip(weights, sessions)) / sum(weights)

    def sooner(self, label: str) -> Spread | None:
        """Seed by seed, on the run's own axis: where `label`'s curve reached the baseline's final value, over where the baseline
        did. At a rate that has not come to its end a curve is too high, so the share is too large, if anything."""
        axis = self.facts.get("axis", "seconds")
        if self.baseline is None or label == self.baseline or self.share(label) < 1:
            return None
        shares = []
        for seed, curve in self.curves[label].items():
            end = self.curves[self.baseline][seed][-1]
            reached = first_reached([(r[axis], r["curve"]["nll"]) for r in curve], end["curve"]["nll"])
            if reached is None:
                return None
            shares.append(reached / end[axis])
        return Spread.of(shares)

    def families(self) -> dict[str, list[Point]]:
        """Contestants that differ in their share of the budget alone, where there are several, by rising share."""
        found: dict[str, list[Point]] = {}
        for label in self.finished:
            point = Point(self.share(label), self.final_by_seed(label))
            found.setdefault(self.facts["contestants"][label]["family"], []).append(point)
        return {family: sorted(points, key=lambda p: p.share) for family, points in found.items() if len(points) > 1}

    def equal_share(self, family: str, baseline: str | None = None) -> Spread | None:
        """The share of the budget at which a family is as good as the baseline with all of it, annealed both.

        Seed by seed, linear between points in the logarithm of the share. None where a seed never gets there, or is
        there already at its smallest share.
        """
        baseline = baseline or self.baseline
        if baseline is None or family not in self.families():
            return None
        shares = []
        for seed, curve in self.curves[baseline].items():
            points = [(math.log(point.share), point.nll[seed]) for point in self.families()[family]]
            reached = first_reached(points, curve[-1]["final"]["nll"])
            if reached is None or points[0][1] <= curve[-1]["final"]["nll"]:
                return None
            shares.append(math.exp(reached))
        return Spread.of(shares)

    def verdict(self) -> str:
        """The answer in a sentence or two."""
        rows = [row for row in self.rows() if row.state == "finished"]
        lost = [f"{row.label} {row.told}" for row in self.rows() if row.state == "diverged"]
        open_ = [row.label for row in self.rows() if row.state == "unfinished"]
        tail = f" {'; '.join(lost)}." if lost else ""
        tail += f" Not finished: {', '.join(open_)}." if open_ else ""
        if not rows:
            return f"Nobody has finished.{tail}"
        baseline = self.baseline
        rivals = [row for row in rows if row.architecture != "vanilla" and self.share(row.label) == 1]
        if baseline is None or not rivals:
            assert rows[0].nll is not None
            return f"{rows[0].label} is ahead with a leave-one-out NLL of {rows[0].nll.text()} nats a token.{tail}"
        best, base = rivals[0], self.row(baseline)
        assert best.nll and best.accuracy and base.nll and base.accuracy
        gap = self.difference(best.label, baseline)
        error = f" ± {gap.half:.3f}" if gap.half is not None else ""
        said = (
            f"{best.label} ends {abs(gap.mean):.3f}{error} nats a token {'below' if gap.mean < 0 else 'above'} {baseline} "
            f"({best.nll.text()} against {base.nll.text()}), and its top guess is right for {best.accuracy.mean:.1%} of "
            f"the hidden tokens against {base.accuracy.mean:.1%}."
        )
        said += self._told_of_words(best.label)
        reached = []
        for rival in self.baselines:
            equal = {family: self.equal_share(family, rival) for family in self.families()}
            found = [f"{family} with {share.text('.2f')}" for family, share in equal.items() if share is not None]
            reached += [f"as {rival} with the whole budget: {', '.join(found)} of it"] if found else []
        if reached:
            said = f"As good {'; '.join(reached)}; each annealed. {said}"
        elif best.sooner is not None:
            of_what = {"flops": "arithmetic", "tokens": "tokens"}.get(self.facts.get("axis", "seconds"), "time")
            said += f" Its curve passed {baseline}'s final quality after {best.sooner.text('.2f')} of the {of_what}."
        return said + tail

    def _told_of_words(self, label: str) -> str:
        """Whole words against the vanilla model that is best on them on dev: another one, if need be."""
        rivals = [rival for rival in self.baselines if self.has_words(rival)]
        if not rivals or not self.has_words(label):
            return ""
        best = min(rivals, key=lambda rival: self.final(rival, "bits_per_character", part="dev_words").mean)
        gap = self.difference(label, best, part="words")
        error = f" ± {gap.half:.3f}" if gap.half is not None else ""
        side = "below" if gap.mean < 0 else "above"
        return f" On whole words it ends {abs(gap.mean):.3f}{error} bits a character {side} {best}."


def first_reached(curve: list[tuple[float, float]], target: float) -> float | None:
    """Where a curve of (x, value) first falls to `target`, linear between its points; None if it never does.

    A target that is already met at the first point counts as reached there, since nothing is known before it.
    """
    previous: tuple[float, float] | None = None
    for x, value in curve:
        if value <= target:
            if previous is None or previous[1] == value:
                return x
            return previous[0] + (x - previous[0]) * (previous[1] - target) / (previous[1] - value)
        previous = (x, value)
    return None
