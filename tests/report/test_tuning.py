"""Settings by kind, best on dev first, from one run and from several."""

import json
from pathlib import Path

import pytest

from report.records import identity
from report.summary import Results
from report.tuning import main, merged, table
from tests.report.conftest import record


def run(folder: Path, ends: dict[str, tuple[float, float]], seed: int = 0, **config) -> Path:
    """ends: by label, NLL on dev and on test."""
    folder.mkdir()
    alike = {
        "seeds": [seed],
        "data": {},
        "evaluation": {},
        "size": "tiny",
        "sequence_length": 128,
        "budget": "1e12flop",
    }
    facts = {
        label: {
            "architecture": label.partition(":")[0],
            "share": 0.5 if "budget=" in label else 1.0,
            "model": {"options": [["near", 3]] if "near=3" in label else []},
        }
        for label in ends
    }
    records = []
    for label, (dev, test) in ends.items():
        found = record(label, seed, 1.0, test, last=True)
        clusters = {"documents": [0, 1], "counts": [10, 10], "sums": [9 * dev, 11 * dev]}
        records.append(found | {"dev": {"nll": dev, "standard_error": 0.1, "clusters": clusters}})
    (folder / "run.json").write_text(json.dumps(alike | config))
    (folder / "facts.json").write_text(json.dumps({"contestants": facts}))
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def test_each_kind_by_itself_best_on_dev_first(tmp_path: Path, capsys) -> None:
    first = run(tmp_path / "a", {"tta": (2.5, 2.4), "vanilla": (3.5, 3.4), "vanilla:near=3": (3.0, 2.9)})
    second = run(
        tmp_path / "b", {"tta:learning_rate=6e-3": (2.0, 2.6), "tta:budget=0.5": (9.0, 9.0), "tta": (7.0, 7.0)}
    )
    assert main([str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:6] == [
        "| tta:learning_rate=6e-3 | 1 | 2.000 | best | - | - | 2.600 | - | - |",
        "| tta | 1 | 2.500 | +0.500 ± 0.635 | - | - | 2.400 | - | - |",
        "| vanilla | 1 | 3.500 | best | - | - | 3.400 | - | - |",
        "| vanilla:near=3 | 1 | 3.000 | best | - | - | 2.900 | - | - |",
    ]
    assert not any("budget" in line for line in lines)


def test_runs_that_differ_are_not_read_as_one(tmp_path: Path) -> None:
    folders = [run(tmp_path / name, {"tta": (2.0, 2.0)}, size=size) for name, size in (("a", "tiny"), ("b", "small"))]
    with pytest.raises(ValueError, match=f"{folders[0]} and {folders[1]} differ in size: tiny and small"):
        merged([Results.load(folder) for folder in folders])
    assert "2.000" in table(merged([Results.load(folders[0])]))


def test_runs_from_before_a_setting_was_named_or_renamed_are_alike(tmp_path: Path) -> None:
    old = run(tmp_path / "a", {"tta": (2.0, 2.0)}, evaluation={"places": 16}, optimizer={"clip": 1.0})
    now = {"evaluation": {"positions": 16}, "optimizer": {"clip": 1.0, "regulariser": "weight_decay"}}
    new = run(tmp_path / "b", {"tta:learning_rate=6e-3": (3.0, 3.0)}, **now)
    other = run(tmp_path / "c", {"tta": (3.0, 3.0)}, **now | {"optimizer": {"clip": 1.0, "regulariser": "weissi"}})
    assert len(merged([Results.load(folder) for folder in (old, new)]).curves) == 2
    with pytest.raises(ValueError, match="differ in optimizer.regulariser: weight_decay and weissi;"):
        merged([Results.load(folder) for folder in (old, other)])


def test_seeds_of_several_runs_are_put_together(tmp_path: Path) -> None:
    """The difference is of the seeds that both have: 1.0 for seed 0, whatever vanilla reached with seeds 1 and 2."""
    first = run(tmp_path / "a", {"tta": (2.0, 2.5), "tta:learning_rate=6e-3": (3.0, 3.5)})
    more = [run(tmp_path / name, {"tta": (dev, 9.0)}, seed=seed) for seed, name, dev in ((1, "b", 2.1), (2, "c", 2.2))]
    again = run(tmp_path / "d", {"tta": (8.0, 8.0)})  # seed 0 stands in the first run already
    lines = table(merged([Results.load(folder) for folder in (first, *more, again)])).splitlines()
    assert lines[2].startswith("| tta | 3 | 2.100 ± 0.100 | best |")
    assert lines[3].startswith("| tta:learning_rate=6e-3 | 1 | 3.000 | +1.000 ±")


def test_other_batches_are_told_in_the_name(tmp_path: Path) -> None:
    folders = [run(tmp_path / str(size), {"tta": (size, 1.0)}, batch_size=size) for size in (8, 16)]
    lines = table(merged([Results.load(folder) for folder in folders])).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| tta", "| tta, batches of 16"]


def test_one_name_for_two_models_is_refused(tmp_path: Path) -> None:
    folders = [run(tmp_path / name, {"tta": (2.0, 2.0)}) for name in ("a", "b")]
    facts = json.loads((folders[1] / "facts.json").read_text())
    facts["contestants"]["tta"]["model"]["d_model"] = 64
    (folders[1] / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=f"{folders[1]}: tta is another model there than in the runs before it; give"):
        merged([Results.load(folder) for folder in folders])


def test_precision_differs_only_where_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [run(tmp_path / name, {"tta": (2.0, 2.0)}) for name in ("a", "b")]
    facts = json.loads((folders[1] / "facts.json").read_text())
    (folders[1] / "facts.json").write_text(json.dumps(facts | {"precision": "torch.bfloat16"}))
    assert main([str(folder) for folder in folders]) == 2
    assert "differ in precision" in capsys.readouterr().err
    assert main([*(str(folder) for folder in folders), "--any-precision"]) == 0


def test_an_option_that_came_later_and_is_off_makes_no_other_model() -> None:
    def of(*options: list) -> str:
        return identity({"model": {"d_model": 64, "options": list(options)}})

    assert of(["near", 2], ["words", 0.25]) == of(["near", 2], ["words", 0.25], ["rest", 0.0])
    assert of(["words", 0.25]) != of(["words", 0.25], ["rest", 0.25])
    assert of(["near", 2]) == of(["near", 2], ["words", 0.0], ["rest", 0.25])  # rest is of the hidden words


def test_without_a_seed_in_common_there_is_no_difference(tmp_path: Path) -> None:
    first = run(tmp_path / "a", {"tta": (2.0, 2.5)})
    other = run(tmp_path / "b", {"tta:learning_rate=6e-3": (3.0, 3.5)}, seed=1)
    both = merged([Results.load(folder) for folder in (first, other)])
    assert table(both).splitlines()[3].startswith("| tta:learning_rate=6e-3 | 1 | 3.000 | - |")
    with pytest.raises(ValueError, match="have no seed in common; run both with one"):
        both.difference("tta", "tta:learning_rate=6e-3")
