"""The PyTorch path against the float64 specification: every visibility, layout and dtype."""

import threading

import pytest
import torch
from attention_cases import KINDS, assert_close, call, problem, run

from kernels.attention import layout, tiles, torch_path, workers
from kernels.attention.workers import for_each

LAYOUTS = {
    "whole": None,
    "padded": [[20], [13], [1], []],
    "packed": [[1, 2, 7, 8, 2], [9, 11], [20], [5, 1, 1, 3]],
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_within_the_bounds_of_float64(kind, layout, dtype):
    assert_close(problem(kind, b=4, lengths=LAYOUTS[layout], dtype=dtype, width=24), "torch", compare=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keep", [0, 2**24], ids=["recomputed", "kept"])
def test_many_blocks_and_chunks(kind, layout, keep, monkeypatch):
    """Blocks of 8 rows and chunks of one or two rows of the batch, so that every seam is crossed."""
    monkeypatch.setattr(tiles, "BLOCK", 8)
    monkeypatch.setattr(tiles, "SCORES", 2 * 2 * 8 * 20)
    monkeypatch.setattr(torch_path, "KEEP", keep)
    tiles._whole.cache_clear()
    for dtype in (torch.float32, torch.bfloat16):
        assert_close(problem(kind, b=4, lengths=LAYOUTS[layout], dtype=dtype), "torch")
    tiles._whole.cache_clear()


@pytest.mark.parametrize("n", [1, 2, 127, 128, 129, 300])
@pytest.mark.parametrize("kind", ["full", "exclude_self", "before_strict", "after", "union"])
def test_lengths_around_a_block(kind, n):
    assert_close(problem(kind, b=1, h=1, n=n, width=32), "torch")


@pytest.mark.parametrize("width", [16, 48, 64, 128])
def test_head_widths(width):
    for dtype in (torch.float32, torch.bfloat16):
        assert_close(problem("exclude_self", width=width, dtype=dtype), "torch")


def test_float64_stays_float64():
    p = problem("union", lengths=LAYOUTS["packed"], b=4).to(torch.float64)
    found, wanted = run(p, "torch"), run(p, "reference")
    for name, x in found.items():
        torch.testing.assert_close(x, wanted[name], rtol=1e-12, atol=1e-12)


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", ["exclude_self", "union", "two:before"])
def test_two_threads_give_the_bits_of_one(kind, monkeypatch, request):
    """While there are chunks enough for each thread; the products of fewer are shared out, and round differently."""
    monkeypatch.setattr(tiles, "SCORES", 2 * 20 * 20)  # one row of the batch in a chunk
    problems = [problem(kind, b=5, lengths=lengths) for lengths in (None, [[20], [3, 17], [1], [], [19]])]
    ones = [run(p, "torch") for p in problems]
    request.getfixturevalue("two_threads")
    for p, one in zip(problems, ones):
        for _ in range(10):
            two = run(p, "torch")
            assert all(torch.equal(one[name], two[name]) for name in one)
        with torch.inference_mode():
            assert torch.equal(call(p, "torch")[0], one["out0"])
    assert torch.get_num_threads() == 2


def test_pieces_are_done_once_and_errors_surface(two_threads):
    done = []
    for_each(done.append, [(i,) for i in range(20)])
    assert sorted(done) == list(range(20))
    threads = []
    for_each(lambda _: threads.append(torch.get_num_threads()), [(i,) for i in range(4)])
    assert threads == [1] * 4
    with pytest.raises(ZeroDivisionError):
        for_each(lambda i: 1 / i, [(1,), (0,), (2,)])


def test_inference_first_and_training_after(monkeypatch):
    """Nothing that inference mode leaves in a cache hinders training."""
    monkeypatch.setattr(workers, "_memory", threading.local())
    tiles._whole.cache_clear()
    for kind in ("exclude_self", "rank"):
        for lengths in (None, [[12], [5, 5]]):
            p = problem(kind, n=12, lengths=lengths)
            with torch.inference_mode():
                out = call(p, "torch")[0]
            assert torch.equal(run(p, "torch")["out0"], out)


def test_the_order_of_ranks_without_reading_them_is_the_same() -> None:
    """What a GPU does, here on a CPU: the same order for ranks that are right, an assertion for those that are not."""
    generator = torch.Generator().manual_seed(0)
    rank = torch.stack([torch.randperm(9, generator=generator) for _ in range(3)])
    right, slot = layout.rank_order(rank, None)
    position = torch.arange(9).expand(3, 9)
    empty = torch.full_like(slot, -1)
    inside = torch.zeros_like(rank, dtype=torch.bool)
    assert torch.equal(layout._order_without_waiting(empty.clone(), slot, position, inside), right)
    for wrong in (torch.where(slot == 4, 3, slot), torch.where(slot == 8, 9, slot)):
        with pytest.raises(RuntimeError, match="must be a permutation"):
            layout._order_without_waiting(empty.clone(), wrong, position, wrong >= 9)
