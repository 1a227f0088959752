"""Several runs in one table: values, differences, shares of a budget."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from report import shares
from report.shares import collected, figure, main, share, tables


def record(label: str, seed: int, flops: float, nll: float, words: float) -> dict:
    def score(mean: float) -> dict:
        return {"documents": [1, 2], "counts": [10, 30], "sums": [10 * (mean - 0.3), 30 * (mean + 0.1)]}

    own = {
        "bits_per_character": words,
        "chain": words + 0.1,
        "clusters": score(words),
        "chain_clusters": score(words + 0.1),
    }
    final = {"nll": nll, "standard_error": 0.1, "accuracy": 0.2, "passes": 1, "clusters": score(nll)}
    spent = {"step": 1, "flops": flops * 1.001, "tokens": 1_000_000, "diverged": None}
    spent["architecture"] = label.partition(":")[0].partition(",")[0]
    return {"contestant": label, "seed": seed, "curve": final, "dev": final, "final": final, "words": own} | spent


def run(folder: Path, records: list[dict], **model: object) -> Path:
    folder.mkdir()
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    contestants = {}
    for r in records:
        family = r["contestant"].partition(",budget")[0]
        made = {"architecture": family, "d_model": 8, **model}
        contestants[r["contestant"]] = {"family": family, "share": 1.0, "model": made, "optimizer": {"name": "muon"}}
    (folder / "facts.json").write_text(json.dumps({"contestants": contestants, "identity": {"prepared": "a"}}))
    seeds = sorted({r["seed"] for r in records})
    (folder / "run.json").write_text(json.dumps({"seeds": seeds, "batch_size": 8}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    ours = [record("local", s, 4e13, 2.0 + 0.1 * s, 1.0) for s in (0, 1)]
    small = [record("local,budget=0.25", s, 1e13, 4.0 + 0.1 * s, 1.2) for s in (0, 1)]
    theirs = [record("vanilla", s, 4e13, 3.0 + 0.1 * s, 1.3) for s in (0, 1)]
    return [run(tmp_path / "a", ours + theirs), run(tmp_path / "b", small, softcap=0.0)]


def test_one_contestant_of_two_runs_is_put_together_and_compared(runs: list[Path], capsys) -> None:
    assert shares.main([str(folder) for folder in runs]) == 0
    said = capsys.readouterr().out
    assert "| local | 1.0e+13 | 2 | 4.050 ± 0.071 | 1.200 ± 0.000" in said
    assert "| local - vanilla | 4.0e+13 | 2 | -1.000 ± 0.000 | -0.300 ± 0.000" in said
    # Half-way between 4.0 and 2.0, in the logarithm of 1e13 to 4e13, and so half of 4e13.
    assert "| vanilla | 4.0e+13 | 0.50 ± 0.00 | under 0.25 | under 0.25 |" in said
    lines = figure(collected(runs)[0]).axes[0].get_legend_handles_labels()
    assert lines[1] == ["local", "vanilla"] and list(lines[0][0].lines[0].get_xdata()) == [1e13, 4e13]


def test_what_is_not_reached_is_a_dash_and_what_is_passed_at_once_a_bound() -> None:
    ours = {1e13: {0: record("a", 0, 1e13, 4.0, 1.0)}, 4e13: {0: record("a", 0, 4e13, 3.5, 1.0)}}
    for target, expected in ((3.0, "-"), (3.75, "0.50"), (5.0, "under 0.25"), (4.0, "under 0.25")):
        theirs = {0: record("b", 0, 4e13, target, 1.0)}
        assert share(ours, theirs, 4e13, "leave-one-out, nats a token") == expected
    # One seed is passed at once and the other is not: a bound that holds for both.
    both = {budget: {0: seeds[0], 1: record("a", 1, budget, 4.25, 1.0)} for budget, seeds in ours.items()}
    both[4e13][1] = record("a", 1, 4e13, 3.75, 1.0)
    theirs = {0: record("b", 0, 4e13, 4.1, 1.0), 1: record("b", 1, 4e13, 4.0, 1.0)}
    assert share(both, theirs, 4e13, "leave-one-out, nats a token") == "under 0.50"


def test_seeds_that_are_not_finished_are_left_out_and_named(runs: list[Path]) -> None:
    lines = (runs[0] / "results.jsonl").read_text().splitlines()
    lines = [
        line.replace('"final": {', '"was": {') if '"seed": 1' in line and "vanilla" in line else line for line in lines
    ]
    text = "\n".join(json.dumps({"final": None} | json.loads(line)) for line in lines)
    (runs[0] / "results.jsonl").write_text(text + "\n")
    found, notes = collected(runs)
    assert list(found["vanilla"][4e13]) == [0] and list(found["local"][4e13]) == [0, 1]
    assert notes == [f"vanilla, seed 1, is not finished in {runs[0]} and left out."]


def test_precisions_are_read_together_if_that_is_asked_for(runs: list[Path], capsys) -> None:
    for folder, precision in zip(runs, ("torch.bfloat16", "torch.float32")):
        facts = json.loads((folder / "facts.json").read_text())
        (folder / "facts.json").write_text(json.dumps(facts | {"precision": precision}))
    assert shares.main([str(folder) for folder in runs]) == 2
    assert f"{runs[0]} and {runs[1]} differ in precision: torch.bfloat16 and torch.float32;" in capsys.readouterr().err
    assert shares.main([*map(str, runs), "--any-precision", "--against", "vanilla"]) == 0
    said = capsys.readouterr().out
    assert "| local | 1.0e+13 | 2 |" in said and f"Precision differs: {runs[0]} bfloat16, {runs[1]} float32." in said


def test_runs_that_are_not_alike_are_refused_and_the_first_of_two_counts(
    runs: list[Path], tmp_path: Path, capsys
) -> None:
    found, notes = collected([runs[0], runs[0]])
    assert (
        found == collected(runs[:1])[0]
        and notes[0] == f"local, seed 0, stands in {runs[0]} too; the earlier run counts."
    )
    other = run(tmp_path / "c", [record("local", 2, 4e13, 2.0, 1.0)], d_ff=16)
    with pytest.raises(ValueError, match="local is another model there"):
        collected([runs[0], other])
    (runs[1] / "facts.json").write_text(
        (runs[1] / "facts.json").read_text().replace('"prepared": "a"', '"prepared": "b"')
    )
    assert shares.main([str(folder) for folder in runs]) == 2
    assert f"{runs[0]} and {runs[1]} differ in their text (identity.prepared): a and b;" in capsys.readouterr().err
    with pytest.raises(ValueError, match="No contestant is bert; there are local, vanilla"):
        tables(collected(runs[:1])[0], ["bert"])
    assert shares.main([]) == 2
    assert "Name one or more folders of runs" in capsys.readouterr().err


def test_the_picture_draws_those_that_are_asked_for(runs: list[Path], tmp_path: Path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(shares, "figure", lambda found: drawn.append(list(found)) or Figure())
    folders, picture = [str(folder) for folder in runs], str(tmp_path / "a.png")
    more = run(tmp_path / "c", [record("tta", 0, 4e13, 2.5, 1.1)])
    for asked in ([], ["--against", "tta"]):
        assert main([*folders, str(more), "--picture", picture, *asked]) == 0
    assert drawn == [["local", "vanilla", "tta"], ["local", "tta"]]
