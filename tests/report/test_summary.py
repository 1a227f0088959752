import json
import math
from pathlib import Path

import pytest
from scipy import stats

from data.statistics import Spread, paired_difference
from report.summary import Results, first_reached
from tests.report.conftest import MACHINE, record


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


def test_the_best_vanilla_is_what_others_are_held_against(folder: Path) -> None:
    results = Results.load(folder)
    assert results.baseline == "vanilla"
    assert [row.label for row in results.rows()] == ["tta", "vanilla", "vanilla:masking_rate=0.15"]


def test_how_much_sooner_is_counted_seed_by_seed(folder: Path) -> None:
    row = Results.load(folder).row("tta")
    assert row.sooner == Spread(pytest.approx(0.15), pytest.approx(0.0707, abs=1e-4))  # 10 and 20 of 100
    assert row.nll.mean == pytest.approx(3.1)


def test_a_paired_difference_by_hand(folder: Path) -> None:
    """Both seeds, both documents: all differ by the same but for the seed, so documents agree and seeds alone are uncertain."""
    difference = Results.load(folder).difference("tta", "vanilla")
    assert difference.mean == pytest.approx(-1.9)  # -2.0 and -1.8
    assert difference.deviation == pytest.approx(0.1414, abs=1e-4)
    assert difference.error == pytest.approx(0.1)  # 0.1414 over the root of 2
    assert difference.half == pytest.approx(12.706 * 0.1, rel=1e-3)  # t with one degree of freedom


def test_the_error_of_a_difference_comes_from_the_spread_between_documents(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        if line["contestant"] == "tta" and line["final"]:
            line["final"]["clusters"]["sums"][0] += 4.0  # 0.4 nats at each of its 10 positions
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    difference = Results.load(folder).difference("tta", "vanilla")
    assert difference.mean == pytest.approx(-1.9 + 4 / 40)
    # Sums over both seeds: counts 20 and 60, residuals +-6 around the mean, var = 2 (36 + 36) / 80^2; and that of seeds, 0.1^2.
    documents, seeds = 2 * 72 / 80**2, 0.1**2
    assert difference.error == pytest.approx(math.sqrt(documents + seeds))
    freedom = (documents + seeds) ** 2 / (documents**2 + seeds**2)  # Welch and Satterthwaite, 1 and 1
    assert difference.half == pytest.approx(stats.t.ppf(0.975, freedom) * difference.error)


def test_a_difference_on_other_text_is_refused() -> None:
    clusters = {"documents": [1, 2], "counts": [10, 30], "sums": [1.0, 2.0]}
    with pytest.raises(ValueError, match="measured on different text"):
        paired_difference([(clusters, clusters | {"counts": [10, 31]})])
    assert paired_difference([(clusters, clusters)]).half == 0.0


def test_whole_words_are_compared_as_tokens_are(folder: Path) -> None:
    """The best on dev's words, the difference on test's, with its interval; and told in the verdict."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        if line["final"]:
            bits = line["final"]["nll"] / 2 - (1.5 if "masking" in line["contestant"] else 0)
            clusters = {"documents": [1, 2], "counts": [50, 150], "sums": [50 * bits, 150 * bits]}
            line["words"] = line["dev_words"] = {
                "bits_per_character": bits,
                "standard_error": 0.1,
                "chain": bits,
                "accuracy": 0.5,
            }
            line["words"] |= {"clusters": clusters}
            line["dev_words"] = line["words"]
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    results = Results.load(folder)
    rows = {row.label: row for row in results.rows()}
    assert rows["vanilla:masking_rate=0.15"].words.mean == pytest.approx(1.5)
    assert rows["vanilla"].words_behind.mean == pytest.approx(2.5 - 1.5)
    assert rows["tta"].words_behind.mean == pytest.approx(1.55 - 1.5)
    assert "On whole words it ends 0.050 ± " in results.verdict()
    assert "bits a character above vanilla:masking_rate=0.15." in results.verdict()


def test_throughput_of_a_row(folder: Path) -> None:
    row = Results.load(folder).row("vanilla")
    assert row.tokens_per_second.mean == 100
    assert row.predicted_tokens_per_second.mean == 50
    assert row.matmul_share == pytest.approx(0.5)  # 1e9 FLOP/s over 2e9
    assert row.passes == 16 and row.sooner is None


def test_the_share_of_arithmetic_is_of_the_precision_in_use(folder: Path) -> None:
    text = (folder / "facts.json").read_text()
    (folder / "facts.json").write_text(text.replace("float32", "bfloat16"))
    assert Results.load(folder).row("vanilla").matmul_share == pytest.approx(0.125)  # over 8e9


def test_a_run_on_two_machines_is_held_against_both(folder: Path) -> None:
    """A quarter of the steps at 2e9, the rest at 6e9: 5e9 on average."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        line["sessions"] = [MACHINE, {**MACHINE, "step": 25, "fp32_matmul": 6e9}]
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert Results.load(folder).row("vanilla").matmul_share == pytest.approx(0.2)


def test_the_verdict_says_so_when_two_stream_never_gets_there(folder: Path) -> None:
    text = (folder / "results.jsonl").read_text()
    assert "passed vanilla's final quality after 0.15" in Results.load(folder).verdict()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        if line["contestant"] == "tta":
            line["curve"]["nll"] = 6.0
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "passed" not in Results.load(folder).verdict()


def test_the_equal_share_is_read_between_annealed_ends(frontier: Path) -> None:
    """Seed 0: from 5.5 at log(1/4) to 3.0 at 0, 5.0 lies a fifth of the way: 4^-0.8. Seed 1: 5.5 to 3.2: 0.5 of 2.3."""
    results = Results.load(frontier)
    share = results.equal_share("tta")
    expected = [4**-0.8, 4 ** -(1 - 0.5 / 2.3)]
    assert share.mean == pytest.approx(sum(expected) / 2) and share.deviation == pytest.approx(
        abs(expected[0] - expected[1]) / math.sqrt(2)
    )
    assert results.verdict().startswith("As good as vanilla with the whole budget: tta with 0.33 ± 0.01 of it")
    assert results.row("tta:budget=0.25").sooner is None  # its clock is another


def test_every_baseline_is_told_the_best_first(frontier: Path) -> None:
    near = [record("vanilla:near=3", seed, 100, 4.0, last=True) for seed in (0, 1)]
    with (frontier / "results.jsonl").open("a") as file:
        file.writelines(json.dumps(r) + "\n" for r in near)
    facts = json.loads((frontier / "facts.json").read_text())
    facts["contestants"]["vanilla:near=3"] = {**facts["contestants"]["vanilla"], "family": "vanilla:near=3"}
    (frontier / "facts.json").write_text(json.dumps(facts))
    results = Results.load(frontier)
    assert results.baselines[:2] == ["vanilla:near=3", "vanilla"] and results.baseline == "vanilla:near=3"
    said = results.verdict()
    assert said.startswith("As good as vanilla:near=3 with the whole budget: tta with 0.")
    assert "; as vanilla with the whole budget: tta with 0.33 ± 0.01 of it; each annealed." in said


def test_no_equal_share_outside_the_points(frontier: Path) -> None:
    text = (frontier / "results.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for nll in (2.0, 7.0):  # better than tta ever was; worse than its smallest share
        for line in lines:
            if line["contestant"] == "vanilla" and line["final"]:
                line["final"]["nll"] = nll
        (frontier / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
        assert Results.load(frontier).equal_share("tta", "vanilla") is None


def test_an_unfinished_contestant_is_said_and_not_ranked(folder: Path) -> None:
    lines = (folder / "results.jsonl").read_text().splitlines()
    kept = [line for line in lines if not ('"tta"' in line and '"seed": 1' in line)]
    (folder / "results.jsonl").write_text("\n".join(kept))
    results = Results.load(folder)
    assert [row.state for row in results.rows()] == ["finished", "finished", "unfinished"]
    assert "Not finished: tta." in results.verdict()
    (folder / "results.jsonl").write_text("\n".join(line for line in lines if '"tta"' not in line))
    assert Results.load(folder).rows()[-1].told == "unfinished"  # without any record, too


@pytest.mark.parametrize("damage", ["{", "[1]", '{"contestant": "tta"}', "NaN"])
def test_a_damaged_record_is_named(folder: Path, damage: str) -> None:
    path = folder / "results.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage, *lines[1:]]))
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2: (no record of an evaluation|not JSON)"):
        Results.load(folder)


def test_missing_and_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "facts.json").write_text("[]")
    with pytest.raises(ValueError, match=r"facts\.json holds a list"):
        Results.load(folder)
    (folder / "facts.json").write_text("{")
    with pytest.raises(ValueError, match=r"facts\.json: not JSON"):
        Results.load(folder)
    with pytest.raises(FileNotFoundError, match=r"has no run\.json"):
        Results.load(tmp_path / "nowhere")
