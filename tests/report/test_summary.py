import json
from pathlib import Path

import pytest
from eval.summary import Results, Spread, first_reached


def test_first_reached_by_hand() -> None:
    curve = [(10.0, 7.0), (20.0, 6.0), (30.0, 6.5), (40.0, 4.0)]
    assert first_reached(curve, 6.5) == 15.0
    assert first_reached(curve, 5.0) == pytest.approx(36.0)
    assert first_reached(curve, 7.5) == 10.0  # before the first point nothing is known
    assert first_reached(curve, 3.9) is None


def test_spread_by_hand() -> None:
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.0)
    assert Spread.of([4.0]).text(".1f") == "4.0"
    assert Spread.of([1.0, 3.0]).text(".1f") == "2.0 ± 1.4"


def record(contestant: str, seed: int, seconds: float, nll: float, last: bool = False) -> dict:
    score = {"nll": nll, "standard_error": 0.1, "bits_per_character": nll / 2, "accuracy": 0.2, "passes": 1}
    spent = {"seconds": seconds, "flops": seconds * 1e9, "tokens": seconds * 100, "predicted_tokens": seconds * 50}
    final = {**score, "passes": 16 if "vanilla" in contestant else 1} if last else None
    return {"contestant": contestant, "architecture": contestant.partition(":")[0], "seed": seed, "step": seconds} | {
        **spent,
        "curve": score,
        "final": final,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = [
        record("tta", 0, 10, 5.0),
        record("tta", 0, 100, 3.0, last=True),
        record("tta", 1, 20, 5.0),
        record("tta", 1, 100, 3.2, last=True),
        record("vanilla", 0, 50, 6.0),
        record("vanilla", 0, 100, 5.0, last=True),
        record("vanilla", 1, 50, 6.0),
        record("vanilla", 1, 100, 5.0, last=True),
        record("vanilla:masking_rate=0.15", 0, 100, 6.0, last=True),
        record("vanilla:masking_rate=0.15", 1, 100, 6.0, last=True),
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    facts = {"parameters": 1000, "flops_per_token": 1e7, "predicted_fraction": 0.5, "memory_bytes": 2**20}
    contestants = {r["contestant"]: {**facts, "architecture": r["architecture"]} for r in records}
    machine = {"fp32_matmul": 2e9}
    (tmp_path / "facts.json").write_text(json.dumps({"contestants": contestants, "machine": machine}))
    (tmp_path / "run.json").write_text("{}")
    return tmp_path


def test_the_best_vanilla_is_what_others_are_held_against(folder: Path) -> None:
    results = Results.load(folder)
    assert results.baseline == "vanilla"
    assert [row.label for row in results.rows()] == ["tta", "vanilla", "vanilla:masking_rate=0.15"]


def test_how_much_sooner_is_counted_seed_by_seed(folder: Path) -> None:
    row = Results.load(folder).row("tta")
    assert row.sooner_seconds == Spread(pytest.approx(0.15), pytest.approx(0.0707, abs=1e-4))  # 10 and 20 of 100
    assert row.sooner_flops == row.sooner_seconds
    assert row.nll.mean == pytest.approx(3.1)


def test_throughput_of_a_row(folder: Path) -> None:
    row = Results.load(folder).row("vanilla")
    assert row.tokens_per_second.mean == 100
    assert row.predicted_tokens_per_second.mean == 50
    assert row.matmul_share == pytest.approx(0.5)  # 100 tokens/s x 1e7 FLOPs over 2e9
    assert row.passes == 16 and row.sooner_seconds is None


def test_the_verdict_says_so_when_two_stream_never_gets_there(folder: Path) -> None:
    text = (folder / "results.jsonl").read_text()
    assert "reached vanilla's final quality after 0.15" in Results.load(folder).verdict()
    (folder / "results.jsonl").write_text(text.replace('"nll": 5.0', '"nll": 2.0'))
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        if line["contestant"] == "tta":
            line["curve"]["nll"] = 3.0
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    verdict = Results.load(folder).verdict()
    assert "did not reach its final quality" in verdict and "above vanilla" in verdict


def test_an_unfinished_run_is_said(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "results.jsonl").read_text().splitlines()
    (folder / "results.jsonl").write_text("\n".join(line for line in lines if '"seconds": 100' not in line))
    with pytest.raises(ValueError, match="has not finished its budget; continue it with --resume"):
        Results.load(folder)
    with pytest.raises(FileNotFoundError, match=r"has no run\.json"):
        Results.load(tmp_path / "nowhere")
