"""Every shipped Triton configuration, compiled for GPUs that are not here, against the committed budget.

Compilation happens in child processes: Triton's interpreter, which the other kernel tests use, replaces its compiler.
After a deliberate change, `python -m kernels.ahead_of_time --write` renews the budget; the difference is for review.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import ahead_of_time
from kernels.ahead_of_time import Compiled, two_stream_violations, violations

ROOT = Path(__file__).parents[2]
CASE = {"key": "sm_80 attention x", "arch": 80, "head_width": 64, "expects": {"mma": True, "async": True}}
FOUND = Compiled(registers=200, shared_bytes=50_000, spills=0, matrix=64, async_copies=8, atomics=0, num_warps=8)
ALLOWED = {"registers": 200, "shared_bytes": 50_000, "spills": 0, "matrix": 64, "async_copies": 8, "atomics": 0}


def run_python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800
    )


@pytest.mark.kernels
def test_one_case_of_every_kernel_is_within_budget(tmp_path):
    result = run_python("-m", "kernels.ahead_of_time", "--fast", "--jobs", "1", "--json-file", str(tmp_path / "found"))
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "found").read_text())
    for chip in ("sm_80", "sm_90"):
        for kernel in (
            "forward-",
            "forward-two_stream-",
            "forward-union-",
            "backward_kv-",
            "gradient_rows",
            "partial_lse",
            "one_sided convolve",
            "one_sided weight_gradient",
        ):
            assert any(key.startswith(chip) and kernel in key for key in found), f"no {kernel} for {chip} was compiled"


@pytest.mark.kernels
def test_every_case_is_within_budget():
    result = run_python("-m", "kernels.ahead_of_time")
    assert result.returncode == 0, "\n".join(line for line in result.stdout.splitlines() if "BROKEN" in line)


def test_the_budget_names_the_shipped_cases_and_no_others():
    """In a child as well, because listing the cases imports the kernels."""
    result = run_python(
        "-c", "import json; from kernels.ahead_of_time import cases; print(json.dumps([c['key'] for c in cases()]))"
    )
    keys = json.loads(result.stdout)
    assert len(keys) == len(set(keys))
    assert set(keys) == set(ahead_of_time.read_budget()), "run python -m kernels.ahead_of_time --write"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"registers": 205}, "registers 205, budget 200: +5"),
        ({"shared_bytes": 50_001}, "shared_bytes 50001, budget 50000: +1"),
        ({"spills": 3}, "spills 3, budget 0: +3"),
        ({"shared_bytes": 170_000}, "shared memory 170000, the chip has 166912: +3088"),
        ({"spills": 1}, "spills 1, must be 0 at head width 64"),
        ({"atomics": 1}, "atomics 1, must be 0"),
        ({"matrix": 0}, "no HMMA"),
        ({"async_copies": 0}, "no asynchronous copies"),
    ],
)
def test_each_number_can_break_the_budget(change, sentence):
    wrong = violations(CASE, Compiled(**{**FOUND.__dict__, **change}), ALLOWED)
    assert any(sentence in w for w in wrong), wrong


def test_fewer_is_welcome_and_a_little_drift_is_no_breach():
    assert violations(CASE, FOUND, ALLOWED) == []
    assert violations(CASE, Compiled(204, 40_000, 0, 70, 4, 0, 8), ALLOWED) == []


def test_not_compiling_is_a_breach_where_the_budget_knows_better():
    assert violations(CASE, None, ALLOWED) == ["does not compile"]
    assert violations(CASE, None, None) == ["does not compile"]
    assert violations(CASE | {"arch": "gfx942"}, None, None) == []
    assert violations(CASE | {"arch": "gfx942"}, None, ALLOWED) == ["does not compile"]
    assert violations(CASE, FOUND, None) == ["is not in the budget"]


def test_two_streams_may_cost_15_percent_more_registers():
    one, two = "sm_80 attention forward-exclude_self-bf16-64", "sm_80 attention forward-two_stream-exclude_self-bf16-64"

    def with_registers(count):
        return two_stream_violations({one: FOUND, two: Compiled(**{**FOUND.__dict__, "registers": count})})

    assert with_registers(230) == []
    assert "231 registers, 1.16x the single stream's 200" in with_registers(231)[0]


@pytest.mark.kernels
def test_a_kernel_made_greedy_breaks_its_budget():
    """The whole chain once: a shipped kernel with a tile four times as large on half the warps must be refused."""
    result = run_python(
        "-c",
        "from kernels.ahead_of_time import *\n"
        "case = next(c for c in cases() if c['key'] == 'sm_80 linear_cross_entropy partial_lse-bf16-e128')\n"
        "constexprs = case['constexprs'] | {'BLOCK_V': 256}\n"
        "found = compile_case(case | {'constexprs': constexprs, 'num_warps': 4})\n"
        "print(violations(case, found, read_budget()[case['key']]))",
    )
    assert "shared_bytes 165888, budget 66560" in result.stdout, result.stdout + result.stderr
    assert "must be 0 at head width 64 and in linear cross-entropy" in result.stdout


def test_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET was 1"):
        ahead_of_time.compile_case(CASE)
