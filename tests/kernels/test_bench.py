"""The benchmark command: no number for a wrong operator, right arithmetic, files that can be read back."""

import csv
import dataclasses
import json

import pytest
import torch

from kernels import bench, roofline
from kernels.benchmarks import attention, linear_cross_entropy, measure, one_sided, report
from kernels.benchmarks.contest import Contestant
from kernels.roofline import A100, H100, Work, bound, occupancy

CPU = torch.device("cpu")


def small_contest():
    """Training at the size of the check, without compiled contestants."""
    return linear_cross_entropy._contest("training", (64, 32, 500), torch.float32, quick=True)


@pytest.mark.parametrize("module", [linear_cross_entropy, attention, one_sided])
def test_every_contestant_passes_its_check(module):
    """In every contest: ours and each alternative compute the same, in value and gradient."""
    for contest in module.contests(CPU, quick=True):
        for contestant in contest.contestants:
            result = measure.check(contest, contestant, CPU)
            assert not result.refused, f"{contest.name}: {contestant.name}: {result.refused}"


def test_the_full_list_of_attention_is_right_too():
    """Every visibility that the long run adds (Flex is compiled, so not here)."""
    for contest in attention.contests(CPU, quick=False):
        if contest.shape["N"] == 512 and contest.shape["K"] == 64:
            for contestant in contest.contestants:
                if "compiled" not in contestant.name:
                    assert not measure.check(contest, contestant, CPU).refused, (contest.name, contestant.name)


BROKEN = {
    "value": lambda x: lambda: 1.001 * linear_cross_entropy._plain(x),
    "gradient": lambda x: lambda: linear_cross_entropy._plain(x | {"hidden": x["hidden"].detach() + 0 * x["hidden"]}),
    "not a number": lambda x: lambda: linear_cross_entropy._plain(x) * float("nan"),
    "shape": lambda x: lambda: linear_cross_entropy._plain(x)[None],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_no_number_for_a_broken_operator(kind, tmp_path, monkeypatch, capsys):
    contest = small_contest()
    broken = Contestant("broken", BROKEN[kind], ours=True)
    contest = dataclasses.replace(contest, contestants=[broken, *contest.contestants[1:]])
    monkeypatch.setattr(linear_cross_entropy, "contests", lambda device, quick: [contest])
    with pytest.raises(SystemExit) as status:
        bench.main(operators=("linear_cross_entropy",), rounds=2, out=tmp_path)
    assert status.value.code == 1
    assert "no number for" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "bench.csv").open()))
    wrong = [row for row in rows if row["contestant"] == "broken"]
    assert len(wrong) == 1 and wrong[0]["refused"].startswith("WRONG") and not wrong[0]["median_ms"]
    assert any(float(row["median_ms"]) > 0 for row in rows if row["contestant"] != "broken")


def test_a_contestant_that_cannot_run_here_is_not_an_error(tmp_path, monkeypatch):
    def unavailable(x):
        raise RuntimeError("needs a GPU")

    contest = small_contest()
    contest = dataclasses.replace(contest, contestants=[*contest.contestants, Contestant("absent", unavailable)])
    monkeypatch.setattr(linear_cross_entropy, "contests", lambda device, quick: [contest])
    with pytest.raises(SystemExit) as status:
        bench.main(operators=("linear_cross_entropy",), rounds=2, out=tmp_path)
    assert status.value.code == 0
    assert "RuntimeError: needs a GPU" in (tmp_path / "bench.csv").read_text()


def test_results_can_be_read_back(tmp_path, monkeypatch):
    contest = small_contest()
    monkeypatch.setattr(linear_cross_entropy, "contests", lambda device, quick: [contest])
    with pytest.raises(SystemExit) as status:
        bench.main(operators=("linear_cross_entropy",), rounds=3, out=tmp_path)
    assert status.value.code == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {"git", "device", "threads", "torch"} <= found["machine"].keys()
    assert found["roofline (calculated)"]
    for row in found["results"]:
        assert row["rounds"] == 3 and row["q20_ms"] <= row["median_ms"] <= row["q80_ms"]
        # 2 T E V for the logits, twice that for the two gradients.
        product = 2 * 64 * 32 * 500
        flops = {"forward": product, "backward": 2 * product, "both": 3 * product}[row["phase"]]
        assert row["gflop_per_s"] == pytest.approx(flops / row["median_ms"] / 1e6)
    assert (tmp_path / "linear_cross_entropy.png").stat().st_size > 5000


def test_quantiles():
    assert report.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert report.quantile([1.0, 2.0], 0.25) == 1.25
    assert report.quantile([4.0], 0.8) == 4.0


def test_peak_memory_sees_what_is_freed_again():
    mib = measure.peak_memory(lambda: torch.ones(40 << 18).sum(), CPU)
    if mib is None:
        pytest.skip("this system does not tell")
    assert 39 <= mib <= 60


def test_pairs_are_counted():
    """Forward arithmetic is 4 K for each pair that is seen."""
    contests = {(c.operator, c.variant): c for c in attention.contests(CPU, quick=False) if c.shape["N"] == 512}
    full = contests["attention", "full"].flops
    assert full == 4 * 64 * 8 * 8 * 512 * 512
    assert contests["attention", "exclude_self"].flops == full * 511 / 512
    assert contests["attention", "before"].flops == full * 513 / 1024
    assert contests["two_stream_attention", "exclude_self"].flops == full * 1023 / 512
    assert contests["union_attention", "before+after"].flops == full * 511 / 512


def test_bound_is_the_slowest_unit():
    work = Work("x", "x", {}, "forward", flops=312e9, useful_flops=312e9, exponentials=0.0, bytes=2.039e6, kernel="")
    assert bound(work, A100) == pytest.approx(
        {"matrix_ms": 1.0, "exp_ms": 0.0, "memory_ms": 0.001, "bound_ms": 1.0, "no_overlap_ms": 1.001}
    )
    # 16 exponentials a clock on 132 multiprocessors at 1.755 GHz.
    many = dataclasses.replace(work, exponentials=16 * 132 * 1.755e9)
    assert bound(many, H100)["bound_ms"] == pytest.approx(1000.0)


def test_exponentials_bind_attention_on_the_faster_chip():
    """Head width 64: 256 flops to an exponential, more than A100's ratio of units, less than H100's."""
    work = roofline.attention_work("full", 8, 12, 2048, 64, "forward")
    on_a100, on_h100 = bound(work, A100), bound(work, H100)
    assert on_a100["matrix_ms"] > 0.6 * on_a100["exp_ms"] and on_h100["exp_ms"] > on_h100["matrix_ms"]


@pytest.mark.parametrize(
    "registers, shared, warps, blocks, limit",
    [
        (128, 0, 8, 2, "registers"),
        (129, 0, 8, 1, "registers"),
        (32, 81 << 10, 4, 2, "shared memory"),
        (16, 0, 8, 8, "warps"),
        (16, 0, 1, 32, "blocks"),
    ],
)
def test_occupancy(registers, shared, warps, blocks, limit):
    compiled = {"registers": registers, "shared_bytes": shared, "num_warps": warps}
    found = occupancy(compiled, A100)
    assert (found["blocks"], found["limited_by"]) == (blocks, limit)
    assert found["occupancy"] == blocks * warps / 64


def test_every_row_of_the_roofline_has_its_occupancy():
    """The names of works and ahead-of-time cases agree."""
    for row in roofline.table():
        assert "occupancy" in row, f"{row['operator']} {row['variant']} {row['shape']} {row['phase']} on {row['chip']}"
        assert row["bound_ms"] <= row["no_overlap_ms"]
