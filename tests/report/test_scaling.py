"""Scaling: points of one kind, fits that find what made them, shares by hand; the page from several runs."""

import json
import math
from pathlib import Path

import pytest

from report.scaling import Point, all_points, equal_shares, fit, frontier, kind_of, share, write_report
from report.summary import Results
from tests.report.conftest import record
from training.entry import Entry

BUDGETS = (1e12, 4e12, 1.5e13, 6e13)


def test_a_kind_is_a_label_without_its_shape() -> None:
    """As facts.json says, and as it is read from the labels of older ones."""
    for label, kind in (
        ("local:d_model=64,n_layers=8,n_heads=2,budget=0.25", "local"),
        ("vanilla:near=3,d_model=64,n_layers=8,n_heads=2,budget=1", "vanilla:near=3"),
        ("local:d_model=64,taps=2", "local:taps=2"),
        ("tta", "tta"),
    ):
        assert kind_of({}, label) == kind and Entry.parse(label).kind == kind
    assert Entry.parse("vanilla:narrow=1,d_ff=64,name=my own,init=(a,b)").kind == "vanilla:narrow=1"
    assert kind_of({"kind": "vanilla:narrow=1"}, "my own") == "vanilla:narrow=1"


def law(scale: float, exponent: float, flops: float) -> float:
    return 1.4 + scale * (flops / 1e13) ** -exponent


def test_the_fit_finds_what_made_the_points() -> None:
    truth = {"local": (1.0, 0.20), "vanilla": (1.9, 0.26)}
    frontiers = {k: [Point(c, 1, {0: law(*v, c)}) for c in BUDGETS] for k, v in truth.items()}
    found = fit(frontiers)
    for kind, (scale, exponent) in truth.items():
        assert found[kind].floor == pytest.approx(1.4, abs=0.02)
        assert found[kind].scale == pytest.approx(scale, abs=0.03)
        assert found[kind].exponent == pytest.approx(exponent, abs=0.01) and found[kind].exponent_deviation < 0.01
    noisy = {
        k: [Point(c, 1, {s: law(*v, c) + 0.05 * (s - 1) for s in (0, 1, 2)}) for c in BUDGETS] for k, v in truth.items()
    }
    assert fit(noisy)["local"].exponent_deviation > 0.003
    with pytest.raises(ValueError, match="4 points are too few for 2 curves"):
        fit({k: points[:2] for k, points in frontiers.items()})


def test_shares_by_hand() -> None:
    ours = [Point(1e12, 1, {0: 5.0, 1: 5.0}), Point(4e12, 1, {0: 4.0, 1: 3.0})]
    theirs = Point(8e12, 1, {0: 4.5, 1: 4.0})
    half = math.exp((math.log(1e12) + math.log(4e12)) / 2) / 8e12  # both are half-way, in the logarithm
    assert share(ours, theirs).mean == pytest.approx(half) and half == pytest.approx(0.25)
    assert share(ours, Point(8e12, 1, {0: 3.9})) is None  # never reached
    assert share(ours, Point(8e12, 1, {0: 5.1})) is None  # there already: how much less would do is not known


def write_run(folder: Path, seeds: list[int], shift: float = 0.0, budgets: tuple[float, ...] = BUDGETS) -> None:
    folder.mkdir()
    records, contestants = [], {}
    for kind, scale, exponent in (("local:", 1.0, 0.2), ("vanilla:", 1.9, 0.26)):
        for width in (64, 128):
            for budget in budgets:
                label = f"{kind}d_model={width},budget={budget / 6e13:.4f}"
                best = width == (64 if budget < 1e13 else 128)
                contestants[label] = {
                    "parameters": width * 1000,
                    "architecture": kind[:-1],
                    "family": label,
                    "share": 1.0,
                    "model": {"d_model": width, "n_layers": 2, "n_heads": 2, "d_ff": 2 * width},
                }
                for seed in seeds:
                    nll = law(scale, exponent, budget) + (0.0 if best else 0.2) + shift
                    records.append(record(label, seed, budget / 1e9, nll, last=True))
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    (folder / "facts.json").write_text(json.dumps({"contestants": contestants, "precision": "torch.float32"}))
    (folder / "run.json").write_text(json.dumps({"seeds": seeds}))


def test_sizes_of_equally_many_parameters_stay_apart(tmp_path: Path) -> None:
    """Heads make no parameters: other ones than usual are a kind of their own, not a shape."""
    write_run(tmp_path / "a", [0])
    write_run(tmp_path / "b", [0], shift=0.5)
    write_run(tmp_path / "c", [1], shift=0.5)
    for name, heads in (("b", 1), ("c", 2)):
        facts = json.loads((tmp_path / name / "facts.json").read_text())
        for each in facts["contestants"].values():
            each["model"]["n_heads"] = heads
        (tmp_path / name / "facts.json").write_text(json.dumps(facts))
    kinds = all_points([Results.load(tmp_path / name) for name in "abc"])
    assert len(kinds["local"]) == len(kinds["local with 1 heads"]) == 8
    two, one = (
        next(p.nll for p in kinds[kind] if p.flops == pytest.approx(6e13) and p.shape == "128 x 2, d_ff 256")
        for kind in ("local", "local with 1 heads")
    )
    assert two == pytest.approx({0: law(1.0, 0.2, 6e13), 1: law(1.0, 0.2, 6e13) + 0.5})
    assert one == pytest.approx({0: law(1.0, 0.2, 6e13) + 0.5})


def test_a_seed_that_was_run_twice_counts_once(tmp_path: Path) -> None:
    """The later run's numbers stand, on dev as on test."""
    write_run(tmp_path / "a", [0, 1])
    write_run(tmp_path / "b", [0], shift=0.5)
    for point in all_points([Results.load(tmp_path / name) for name in "ab"])["local"]:
        assert point.dev == pytest.approx(point.mean) and point.nll[0] == pytest.approx(point.nll[1] + 0.5)


def test_several_runs_are_one_page(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [0])
    write_run(tmp_path / "b", [1, 2], shift=0.01)
    kinds = all_points([Results.load(tmp_path / name) for name in "ab"])
    assert kinds.keys() == {"local", "vanilla"} and len(kinds["local"]) == 8
    best = frontier(kinds["local"])
    assert [p.parameters for p in best] == [64_000, 64_000, 128_000, 128_000]
    assert [p.flops for p in best] == pytest.approx(BUDGETS) and set(best[0].nll) == {0, 1, 2}
    text = write_report([tmp_path / "a", tmp_path / "b"])
    assert "| local | vanilla | 6.0e+13 |" in text and (tmp_path / "a" / "scaling.png").stat().st_size > 10_000
    assert (tmp_path / "a" / "scaling.md").read_text() == text
    assert "No curves" not in text
    assert text.count("0.13 M | **") == text.count("0.06 M | **") == 4  # two budgets of two kinds each
    assert text.count("0.13 M |") == text.count("0.06 M |") == 8
    write_run(tmp_path / "few", [0], budgets=(1e12, 6e13))
    text = write_report([tmp_path / "few"])
    assert (
        "No curves are fitted: 4 points are too few for 2 curves" in text
        and "| local | vanilla | 6.0e+13 | 2 | 0." in text
    )
    (tmp_path / "b" / "facts.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no facts\.json"):
        write_report([tmp_path / "b"])


def test_shares_compare_the_shapes_that_both_tried(tmp_path: Path) -> None:
    """Ours tried a narrow shape too, in which it is far better: it does not count."""

    def point(flops: float, nll: float, shape: str) -> Point:
        return Point(flops, 1, {0: nll}, shape, nll)

    ours = [point(1e12, 5.0, "wide"), point(4e12, 4.0, "wide"), point(1e12, 3.0, "narrow"), point(4e12, 2.0, "narrow")]
    [(best, found)] = equal_shares(ours, [point(4e12, 4.5, "wide"), point(4e12, 4.4, "deep")])
    assert best.nll == {0: 4.5} and found.mean == pytest.approx(0.5)
    assert equal_shares(ours, [point(4e12, 4.5, "deep")]) == []


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("facts", "identity", {"prepared": "other"}),
        ("facts", "precision", "torch.bfloat16"),
        ("config", "batch_size", 16),
        ("config", "sequence_length", 512),
        ("config", "evaluation", {"tokens": 1}),
    ],
)
def test_runs_of_different_things_are_refused(tmp_path: Path, where: str, name: str, value: object) -> None:
    write_run(tmp_path / "a", [0])
    write_run(tmp_path / "b", [1])
    path = tmp_path / "b" / ("facts.json" if where == "facts" else "run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=f"/a and .*/b differ in {name}"):
        write_report([tmp_path / "a", tmp_path / "b"])
