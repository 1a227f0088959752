"""The Triton kernels in the strict interpreter: against float64, in every branch, and with bugs put in on purpose."""

import importlib.util
from pathlib import Path

import pytest
import torch
from problems import BOUND, error, errors, make_problem
from strict_interpreter import strict
from triton.runtime.errors import InterpreterError

from kernels.linear_cross_entropy import configs, linear_cross_entropy, linear_nll, triton_kernels, triton_path
from kernels.linear_cross_entropy.configs import LseTile, RowTile

TILES = {"row": RowTile(32, False, 1), "lse": LseTile(16, 32, 16, 1, 1)}


@pytest.fixture(autouse=True)
def unforgiving(request):
    """Strict for every test but the one that chooses its own orders of programs."""
    if request.function is test_every_order_of_programs_gives_the_same_bits:
        yield
        return
    with strict(seed=1):
        yield


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles that a small problem crosses in every direction: rows in pieces, width in steps."""
    monkeypatch.setattr(triton_path, "row_tile", lambda vocabulary: TILES["row"])
    monkeypatch.setattr(triton_path, "lse_tile", lambda dtype, width: TILES["lse"])


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("vocabulary", [7, 101, 128])
def test_value_and_gradient(reduction, vocabulary):
    p = make_problem(40, 24, vocabulary)
    report = errors(
        p,
        reduction=reduction,
        chunk_bytes=13 * vocabulary * 4,
        backend="triton",
    )
    assert max(report.values()) <= BOUND[torch.float32], report


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_narrow_training(dtype):
    """Library products and the kernel both round to the narrow dtype: as far from float64 as the PyTorch path."""
    p = make_problem(40, 32, 200, dtype=dtype, scale=0.2)
    triton, torch_path = (errors(p, backend=b) for b in ("triton", "torch"))
    for name, found in triton.items():
        assert found <= min(BOUND[dtype], 1.2 * torch_path[name] + 1e-5), (name, triton, torch_path)


@pytest.mark.parametrize("vocabulary", [20, 32, 33, 101])
def test_rows_longer_than_a_tile(small_tiles, vocabulary):
    p = make_problem(20, 24, vocabulary)
    report = errors(p, backend="triton")
    assert max(report.values()) <= BOUND[torch.float32], report


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("splits", [1, 2, 3, 100])
@pytest.mark.parametrize("width", [16, 40])
def test_log_sum_exp(small_tiles, dtype, splits, width):
    """Logits in registers are exact products of what the inputs hold: fp32 bounds in every dtype, for every split."""
    p = make_problem(37, width, 101, dtype=dtype, ignored=0.0)
    hidden, weight, bias = (x.detach() for x in p.parameters)
    highest, excess, target_logit = triton_path.log_sum_exp(hidden, weight, bias, p.targets, splits)
    logits = hidden.double() @ weight.double().T + bias.double()
    assert error(highest + excess, logits.logsumexp(-1)) <= 5e-6
    assert error(target_logit, logits.gather(1, p.targets[:, None])[:, 0]) <= 5e-6


def test_log_sum_exp_with_shipped_tiles():
    for width in (24, 300):
        p = make_problem(70, width, 200, scale=0.2, bias=False)
        for found, expected in zip(
            *(linear_nll(p.hidden, p.weight, p.targets, backend=b) for b in ("triton", "torch"))
        ):
            torch.testing.assert_close(found, expected, rtol=5e-6, atol=5e-6)


def test_strided_arguments(small_tiles):
    """Kernels take the last dimension as contiguous; callers need not know."""
    p = make_problem(20, 24, 50)
    hidden, weight = p.hidden.detach().T.contiguous().T, p.weight.detach().T.contiguous().T
    assert hidden.stride(1) != 1 and weight.stride(1) != 1
    for found, expected in zip(
        linear_nll(hidden, weight, p.targets, backend="triton"), linear_nll(hidden, weight, p.targets, backend="torch")
    ):
        torch.testing.assert_close(found, expected, rtol=5e-6, atol=5e-6)


def test_tiles_full_of_forbidden_tokens(small_tiles):
    """A whole tile at -inf, first or last, leaves the softmax over the others."""
    for forbidden in (slice(0, 40), slice(60, 101)):
        p = make_problem(20, 24, 101, ignored=0.0)
        p.targets.fill_(50)
        with torch.no_grad():
            p.bias[forbidden] = float("-inf")
        report = errors(p, backend="triton")
        assert max(report.values()) <= BOUND[torch.float32], report
        nll, _ = linear_nll(p.hidden, p.weight, p.targets, p.bias, backend="triton")
        expected, _ = linear_nll(p.hidden, p.weight, p.targets, p.bias, backend="torch")
        torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)


def test_every_order_of_programs_gives_the_same_bits(small_tiles):
    p = make_problem(40, 24, 101)
    runs = []
    for seed in range(3):
        with strict(seed):
            lse = triton_path.log_sum_exp(p.hidden.detach(), p.weight.detach(), None, p.targets.clamp(min=0), 3)
            loss = linear_cross_entropy(p.hidden, p.weight, p.targets, p.bias, backend="triton")
            runs.append([*lse, loss, *torch.autograd.grad(loss, p.parameters)])
    for again in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again, runs[0]))


def test_double_precision_is_refused():
    p = make_problem(dtype=torch.float64)
    for call in (linear_nll, lambda *a, **k: errors(p, **k)):
        with pytest.raises(ValueError, match=r"hidden had dtype torch.float64; the Triton backend takes float32"):
            call(p.hidden, p.weight, p.targets, p.bias, backend="triton")


def test_tile_tables():
    """Every vocabulary is covered by its tile, within the 1,024 threads of a block and 64 logits a thread."""
    for vocabulary in (1, 127, 128, 129, 4096, 16384, 30522, 32768, 32769, 128256):
        tile = configs.row_tile(vocabulary)
        assert tile.whole_row == (tile.block_v >= vocabulary)
        assert tile.num_warps * 32 <= 1024 and tile.block_v <= 64 * 32 * tile.num_warps
    for width in (1, 16, 17, 128, 256, 257, 1024):
        tile = configs.lse_tile("bf16", width)
        assert tile.block_e >= 16 and (tile.block_e >= width or width > 256)


MUTATIONS = {
    "load of a row without its mask": ("logits_ptr + v, mask=v < V, other=float(\"-inf\")", "logits_ptr + v"),
    "masked logits count as 0": ("other=float(\"-inf\")).to(tl.float32)", "other=0.0).to(tl.float32)"),
    "the maximum is not carried": ("lane_highest = higher", "lane_highest = z"),
    "the old sum is not rescaled": ("lane_total * tl.exp2((lane_highest - pivot) * LOG2E)", "lane_total"),
    "no pivot for empty tiles": ('tl.where(pivot == float("-inf"), 0.0, pivot)', "pivot"),
    "base 2 taken for base e": ("tl.store(excess_ptr + row, tl.log2(total) * LN2)", "tl.store(excess_ptr + row, tl.log2(total))"),
    "the sum is not divided by": ("* (1 / total)", "* 1"),
    "the target keeps its probability": ("dlogits - 1", "dlogits"),
    "a split runs into the next": ("tl.minimum(V, first + v_per_split)", "V"),
    "columns past the end count": ("inside = v < V", "inside = v < V + 1"),
    "the target is found one off": ("v[None, :] == targets[:, None]", "v[None, :] == targets[:, None] + 1"),
    "bias of the wrong columns": ("bias_ptr + v", "bias_ptr + v - first"),
    "splits overwrite each other": ("split.to(tl.int64) * T + t", "t"),
    "rows past the end are stored": ("highest_ptr + position, highest, mask=rows", "highest_ptr + position, highest"),
    "the width's tail is not masked": ("mask=rows[:, None] & (columns < E)[None, :]", "mask=rows[:, None]"),
}  # fmt: skip


def run_everything(module, monkeypatch) -> None:
    """Both kernels of `module` in every branch, as the tests above check them."""
    monkeypatch.setattr(triton_path, "gradient_rows", module.gradient_rows)
    monkeypatch.setattr(triton_path, "partial_lse", module.partial_lse)
    p = make_problem(21, 24, 101, ignored=0.0)
    with torch.no_grad():
        p.bias[:40] = float("-inf")
    p.targets.clamp_(min=40)
    assert max(errors(p, backend="triton").values()) <= BOUND[torch.float32]
    p = make_problem(21, 24, 101)
    assert max(errors(p, backend="triton").values()) <= BOUND[torch.float32]
    monkeypatch.setitem(TILES, "lse", LseTile(16, 16, 16, 1, 1))
    hidden, weight, bias = (x.detach() for x in p.parameters)
    targets = p.targets.clamp(min=0)
    for forbidden in (False, True):
        if forbidden:
            bias[:20] = float("-inf")
            targets.clamp_(min=20)
        logits = hidden.double() @ weight.double().T + bias.double()
        highest, excess, target_logit = triton_path.log_sum_exp(hidden, weight, bias, targets, 3)
        assert error(highest + excess, logits.logsumexp(-1)) <= 5e-6
        assert error(target_logit, logits.gather(1, targets[:, None])[:, 0]) <= 5e-6


@pytest.mark.kernels
@pytest.mark.parametrize("name", [None, *MUTATIONS])
def test_a_bug_put_in_is_found(name, small_tiles, monkeypatch, tmp_path):
    source = Path(triton_kernels.__file__).read_text()
    if name is not None:
        right, wrong = MUTATIONS[name]
        assert right in source, "the kernels changed: renew this mutation"
        source = source.replace(right, wrong)
    file = tmp_path / "mutant.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("mutant", file)
    mutant = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutant)
    if name is None:
        run_everything(mutant, monkeypatch)
    else:
        with pytest.raises((AssertionError, RuntimeWarning, InterpreterError)):
            run_everything(mutant, monkeypatch)
