"""Do the tests see a bug? Each mutation is a bug put into the Triton kernels; running them strictly on a few small
problems must fail. A mutation that changes nothing a program can observe is in EQUIVALENT, with the reason, and must
pass: when it starts to fail, it has become a bug worth catching.
"""

import importlib

import pytest
import torch
from attention_cases import BOUNDS, error, exact, problem
from mutants import mutant

from kernels.attention import reference
from kernels.attention.configs import Config
from kernels.attention.layout import layout_of

# Costly: run by `make test-kernels`.
pytestmark = [pytest.mark.usefixtures("strict_interpreter"), pytest.mark.kernels]

FORWARD, BACKWARD, TILES, LAUNCH = "triton_forward.py", "triton_backward.py", "triton_tiles.py", "triton_path.py"
SOURCES = (FORWARD, BACKWARD, TILES, LAUNCH, "configs.py", "layout.py", "spans.py", "visibility.py")

# name -> (file, what stands there, what the bug makes of it)
MUTATIONS = {
    "exclude_self lets a row see itself": (TILES, "(key < first - GAP) | (key > last + GAP)", "key != -1"),
    "beyond_N hides the position alone": (TILES, "(key < first - GAP) | (key > last + GAP)", "(key < first) | (key > last)"),
    "beyond_N hides one side alone": (TILES, "(key < first - GAP) | (key > last + GAP)", "(key < first) | (key > last + GAP)"),
    "content rows of exclude_self do not see themselves": (
        TILES, "tl.where(strict == 1, a, -1 - GAP), tl.where(strict == 1, b, -1 - GAP)", "a, b",
    ),
    "a tile is not masked where only its gap reaches in": (TILES, "(first <= high + GAP)", "(first <= high)"),
    "nor on the other side": (TILES, "(last >= low - GAP)", "(last >= low)"),
    "before_strict sees its own position": (TILES, "a + 1 - strict", "a + 1"),
    "after_strict sees its own position": (TILES, "tl.maximum(lower, b + strict)", "tl.maximum(lower, b)"),
    "a span begins at the position itself": (TILES, "a = tl.load(FIRST + t, mask=t < n, other=0)", "a = t"),
    "a span ends early": (TILES, "b = tl.load(LAST + t, mask=t < n, other=0)", "b = tl.load(LAST + t, mask=t < n) - 1"),
    "the spans of another row of the batch": (FORWARD, "FIRST += b * n", "FIRST += 0 * n"),
    "and of the gradient": (BACKWARD, "LAST += b * n", "LAST += 0 * n"),
    "a tile is not masked where only a span reaches in": (
        TILES, "a, b = tl.load(FIRST + first), tl.load(LAST + last)", "a, b = first, last",
    ),
    "an ordered tile is not masked where only a span reaches in": (TILES, "outside | (last >= low)", "outside"),
    "documents are not closed at their end": (TILES, "upper = tl.load(END + t, mask=t < n, other=0)", "upper = t + n"),
    "keys behind the last one are seen": (TILES, "t * 0 + n", "t * 0 + n + 9"),
    "the diagonal tile is taken for unmasked": (TILES, "(first <= high + GAP) & (last >= low - GAP)", "first > high"),
    "the tail tile is taken for unmasked": (TILES, "(at < a) | (at + BLOCK > b)", "(at < a)"),
    "the head tile is taken for unmasked": (TILES, "(at < a) | (at + BLOCK > b)", "(at + BLOCK > b)"),
    "a loop starts a tile late": (TILES, "return lo // BLOCK * BLOCK", "return (lo + BLOCK - 1) // BLOCK * BLOCK"),
    "a loop ends a tile early": (TILES, "tl.minimum(hi, last + 1)", "tl.minimum(hi, first + 1)"),
    "loads forget other": (TILES, "BLOCK_D, STREAMS), other=0.0)", "BLOCK_D, STREAMS))"),
    "loads forget the end of the sequence": (TILES, "rows = (r // STREAMS < n - first)", "rows = (r // STREAMS < n)"),
    "the padding of the head width is read": (TILES, "tl.arange(0, BLOCK_D) < WIDTH", "tl.arange(0, BLOCK_D) >= 0"),
    "streams are swapped": (TILES, "(r % 2 == 0)[:, None], X0", "(r % 2 == 1)[:, None], X0"),
    "-inf minus -inf": (FORWARD, 'tl.where(new_top == float("-inf"), 0.0, new_top)', "new_top"),
    "the accumulator is not rescaled": (FORWARD, "acc * shrink[:, None]", "acc"),
    "the sum is not rescaled": (FORWARD, "total * shrink + ", "total + "),
    "the scale is applied twice": (FORWARD, "scale2 = scale * LOG2E", "scale2 = scale * scale * LOG2E"),
    "products in TF32": (FORWARD, 'tl.dot(q, tl.trans(k), input_precision="ieee")', "tl.dot(q, tl.trans(k))"),
    "an empty row divides by zero": (FORWARD, "total = tl.where(empty, 1.0, total)", "total = total + 0.0"),
    "the log-sum-exp of an empty row": (FORWARD, 'tl.where(empty, float("-inf"), (top', "tl.where(empty, 0.0, (top"),
    "the log-sum-exp is stored beyond the end": (FORWARD, "mask=(t < n) & (r % STR", "mask=(t <= n) & (r % STR"),
    "the union forgets the future": (FORWARD, "    if UNION:", "    if UNION and n < 0:"),
    "the query stream is taken for content": (FORWARD, "strict = r % 2 if", "strict = r * 0 if"),
    "heads write over one another": (FORWARD, "at_o = b * stride_ob + h * stride_oh", "at_o = b * stride_ob"),
    "dk is not scaled": (BACKWARD, "dk * scale", "dk"),
    "dq is not scaled": (BACKWARD, "dq * scale", "dq"),
    "delta is forgotten": (BACKWARD, "(dp - delta[None, :])", "dp"),
    "delta of the wrong head": (BACKWARD, "(b * heads + h) * n + t, tl.sum", "(b * heads) * n + h + t * heads, tl.sum"),
    "the other mask for keys": (BACKWARD, "AFTER if MODE == BEFORE else", "MODE if MODE == BEFORE else"),
    "dv takes only the last stream": (BACKWARD, "tl.range(STREAMS)", "tl.range(STREAMS - 1, STREAMS)"),
    "all tiles of keys write the first": (BACKWARD, "DV + at_o, DV, dv, first", "DV + at_o, DV, dv, 0"),
    "-inf as log-sum-exp": (BACKWARD, 'lse2 = tl.where(lse == float("-inf"), 0.0, lse * LOG2E)', "lse2 = lse * LOG2E"),
    "the grid is a tile short": (LAUNCH, "grid = (-(-n // owned) * b * h,)", "grid = (max(1, n // owned) * b * h,)"),
    "the strides of k serve v": (LAUNCH, "kv[0].stride()[:3] + kv[1].stride()[:3]", "kv[0].stride()[:3] * 2"),
}  # fmt: skip

EQUIVALENT = {
    # Rows at positions from n on are loaded as 0 and their results are not stored, whatever they attend to.
    "rows behind the end see nothing": (TILES, "t * 0 + n", "tl.where(t < n, n, 0)"),
    # Only speed: the longest tiles of `before` no longer start first.
    "tiles in rising order": (FORWARD, "tile = tiles - 1 - program % tiles", "tile = program % tiles"),
    # Only speed: the masked loop gives the same bits as the unmasked.
    "every tile is masked": (TILES, "    return outside\n", "    return outside | (at >= 0)\n"),
}


def problems():
    """Whole rows and packed ones, one stream and two, a head width that needs padding, more than one tile and head."""
    yield problem("exclude_self", b=1, h=1, n=35, width=48)
    yield problem("union", b=1, h=1, n=35, lengths=[[1, 34]])
    yield problem("two:before", b=1, h=2, n=20, lengths=[[1, 16, 2]])
    yield problem("after_strict", b=2, h=1, n=20)
    yield problem("two:exclude_self", b=1, h=1, n=12)
    yield problem("beyond_2", b=1, h=1, n=70)
    yield problem("spans:beyond_2", b=2, h=1, n=70)
    yield problem("spans:union", b=2, h=1, n=70, seed=2)


def survives(path) -> bool:
    """Whether the Triton path passes every check."""
    path.config = lambda *_: Config(32, 16, 4, 1)
    for p in problems():
        two = p.kind.startswith("two:")
        xs = list(p.inputs.values())
        xs[-1] = xs[-1].transpose(1, 2).contiguous().transpose(1, 2).transpose(0, 1).contiguous().transpose(0, 1)
        qs, kv = (xs[:2], xs[2:]) if two else (xs[:1], xs[1:])
        layout = None if p.documents is None else layout_of(p.documents)
        scale, kind = qs[0].shape[-1] ** -0.5, p.kind.removeprefix("two:")
        try:
            outs, lses = path.forward(qs, kv, kind, layout, scale, spans=p.spans)
            dqs, dkv = path.backward(p.grads, qs, kv, outs, lses, kind, layout, scale, p.spans)
        except Exception:
            return False
        wanted_lses = reference.attention(qs, kv, kind, p.documents, p.rank, scale, p.spans)[1]
        wanted = [*exact(p).values(), *wanted_lses]
        for x, y in zip((*outs, *dqs, *dkv, *lses), wanted, strict=True):
            try:
                if error(x, y) > BOUNDS[torch.float32]:
                    return False
            except AssertionError:  # infinities or NaN where there must be none
                return False
    return True


@pytest.fixture(autouse=True, scope="module")
def the_kernels_as_they_are_survive():
    from strict_interpreter import strict

    with strict():
        path = importlib.import_module("kernels.attention.triton_path")
        shipped = path.config
        try:
            assert survives(path)
        finally:
            path.config = shipped


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_bug_is_caught(name, tmp_path):
    assert not survives(mutant(tmp_path, "attention", SOURCES, name, *MUTATIONS[name]))


@pytest.mark.parametrize("name", EQUIVALENT)
def test_an_equivalent_mutant_is_no_bug(name, tmp_path):
    assert survives(mutant(tmp_path, "attention", SOURCES, name, *EQUIVALENT[name]))
