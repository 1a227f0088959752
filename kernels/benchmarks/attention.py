"""The attention operators against naive, SDPA with the same mask, SDPA without one (the floor), Flex and varlen."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention import Spans, attention, spans_of, two_stream_attention, union_attention
from ..attention import reference as specification
from ..attention.visibility import TWO_STREAM, visible_BNN, visible_NN
from .contest import Contest, Contestant, Inputs

FLOOR = "SDPA without a mask (floor)"
MASKED = "SDPA with the mask"

# (B, H, N, K); the first is the one the project's targets are stated for.
SHAPES = [(8, 8, 512, 64), (8, 8, 128, 64), (2, 8, 1024, 64), (8, 16, 512, 32), (8, 4, 512, 128)]
GPU_SHAPES = [(32, 12, 512, 64), (8, 12, 2048, 64), (2, 12, 8192, 64), (16, 6, 1024, 128)]
SPANNED = "beyond_2+spans"  # words of three positions, of every third the whole hidden
SINGLE = ("full", "exclude_self", "beyond_2", SPANNED, "before", "before_strict", "after", "rank_strict")


def contests(device: torch.device, quick: bool) -> Iterator[Contest]:
    """One stream under each visibility, two streams, the union; all over length and head width."""
    cuda = device.type == "cuda"
    shapes = GPU_SHAPES if cuda else SHAPES
    dtype = torch.bfloat16 if cuda else torch.float32
    for shape in shapes[: 1 if quick else None]:
        first = shape == shapes[0]
        for visibility in SINGLE if first and not quick else ("exclude_self", "before"):
            yield _contest("attention", visibility, shape, dtype, quick)
        for visibility in ("exclude_self", "before", "rank") if first and not quick else ("exclude_self",):
            yield _contest("two_stream_attention", visibility, shape, dtype, quick)
        yield _contest("union_attention", "before+after", shape, dtype, quick)
        if first and not cuda and not quick:  # what training uses where the processor multiplies it
            for visibility in ("full", "exclude_self", "beyond_2", SPANNED):
                yield _contest("attention", visibility, shape, torch.bfloat16, quick)


def _contest(
    operator: str, visibility: str, shape: tuple[int, int, int, int], dtype: torch.dtype, quick: bool
) -> Contest:
    batch, heads, positions, width = shape
    streams = 2 if operator == "two_stream_attention" else 1
    sets = 2 if operator == "union_attention" else 1
    pairs = sum(int(_mask(v, positions, None).sum()) for v in _seen(operator, visibility))
    flops = 4.0 * width * batch * heads * pairs
    make = {"attention": _one_stream, "two_stream_attention": _two_streams, "union_attention": _union}[operator]
    names = ("q", "k", "v") + ("q2",) * (streams == 2) + ("k2", "v2") * (sets == 2)
    contestants, reference = make(visibility)
    if quick:
        contestants = [c for c in contestants if "compiled" not in c.name]
    return Contest(
        operator=operator,
        variant=visibility,
        shape={"B": batch, "H": heads, "N": positions, "K": width},
        check_shape={"B": 2, "H": 2, "N": 48, "K": width},
        dtype=dtype,
        make_inputs=lambda s, d, device: _inputs(s, d, device, names),
        reference=reference,
        contestants=contestants,
        flops=flops,
        backward_flops=2.5 * flops,
        baseline=MASKED,
        differentiated=names,
        bytes_moved=torch.finfo(dtype).bits / 8 * batch * heads * positions * width * (2 * streams + 2 * sets),
    )


def _inputs(shape: dict[str, int], dtype: torch.dtype, device: torch.device, names: tuple[str, ...]) -> Inputs:
    """(B, H, N, K) views of (B, N, H, K), as a projection leaves them; a fixed random order of prediction."""
    generator = torch.Generator().manual_seed(0)
    b, h, n, k = shape.values()
    inputs = {
        name: torch.randn(b, n, h, k, generator=generator).to(device, dtype).transpose(1, 2).requires_grad_()
        for name in names
    }
    inputs["rank"] = torch.stack([torch.randperm(n, generator=generator) for _ in range(b)]).to(device)
    return inputs


def _seen(operator: str, visibility: str) -> tuple[str, ...]:
    """The visibilities of the rows, one for each stream or key set."""
    if operator == "union_attention":
        return ("before_strict", "after_strict")
    return TWO_STREAM[visibility] if operator == "two_stream_attention" else (visibility,)


def _mask(visibility: str, positions: int, rank_BN: Tensor | None) -> Tensor:
    """(N, N), or (B, 1, N, N) for a rank; without ranks, a count of pairs may use the order of positions."""
    if visibility == SPANNED:
        return visible_BNN("beyond_2", torch.zeros(1, positions, dtype=torch.int32), None, _spans(1, positions))[0]
    if not visibility.startswith("rank"):
        return visible_NN(visibility, positions)
    if rank_BN is None:
        return visible_NN(visibility.replace("rank", "before"), positions)
    later, earlier = rank_BN[:, None, :, None], rank_BN[:, None, None, :]
    return earlier < later if visibility == "rank_strict" else earlier <= later


def _spans(rows: int, positions: int) -> Spans:
    position = torch.arange(positions)
    hidden = position // 3 % 3 == 0
    first, last = position // 3 * 3, (position // 3 * 3 + 2).clamp_max(positions - 1)
    return spans_of(*(torch.where(hidden, end, position).repeat(rows, 1) for end in (first, last)))


def _one_stream(visibility: str) -> tuple[list[Contestant], Callable[[Inputs], Tensor]]:
    def rank(x):
        return x["rank"] if visibility.startswith("rank") else None

    name = visibility.removesuffix("+spans")

    def spans(x):
        b, _, n, _ = x["q"].shape
        return _spans(b, n).to(x["q"].device) if visibility == SPANNED else None

    def ours(x):
        own = spans(x)
        return lambda: attention(x["q"], x["k"], x["v"], name, rank=rank(x), spans=own)

    def reference(x):
        scale = x["q"].shape[-1] ** -0.5
        return specification.attention((x["q"],), (x["k"], x["v"]), name, None, rank(x), scale, spans(x))[0][0]

    return _alternatives(ours, lambda x: [(x["q"], x["k"], x["v"], visibility)], visibility == "full"), reference


def _two_streams(visibility: str) -> tuple[list[Contestant], Callable[[Inputs], Tensor]]:
    def rank(x):
        return x["rank"] if visibility == "rank" else None

    def ours(x):
        return lambda: torch.cat(two_stream_attention(x["q"], x["q2"], x["k"], x["v"], visibility, rank=rank(x)), 2)

    def parts(x):
        return [(q, x["k"], x["v"], seen) for q, seen in zip((x["q"], x["q2"]), TWO_STREAM[visibility])]

    def reference(x):
        scale = x["q"].shape[-1] ** -0.5
        return torch.cat(
            [specification.attention((q,), (k, v), seen, None, rank(x), scale)[0][0] for q, k, v, seen in parts(x)], 2
        )

    return _alternatives(ours, parts, False), reference


def _union(visibility: str) -> tuple[list[Contestant], Callable[[Inputs], Tensor]]:
    def ours(x):
        return lambda: union_attention(x["q"], x["k"], x["v"], x["k2"], x["v2"])

    def parts(x):
        return [(x["q"], torch.cat([x["k"], x["k2"]], 2), torch.cat([x["v"], x["v2"]], 2), "union")]

    def reference(x):
        scale = x["q"].shape[-1] ** -0.5
        return specification.attention((x["q"],), (x["k"], x["v"], x["k2"], x["v2"]), "union", None, None, scale)[0][0]

    return _alternatives(ours, parts, False), reference


def _alternatives(ours, parts, packed: bool) -> list[Contestant]:
    """Ours and the others; `parts(x)` lists the (q, k, v, visibility) calls whose outputs are joined."""

    def masks(x):
        n, device = x["q"].shape[2], x["q"].device
        found = []
        for *_, seen in parts(x):
            union = [_mask(s, n, None) for s in ("before_strict", "after_strict")]
            found.append((torch.cat(union, 1) if seen == "union" else _mask(seen, n, x["rank"])).to(device))
        return found

    def each(x, call):
        """Concatenations of keys happen inside, because a user pays for them too."""
        return torch.cat([call(i, q, k, v) for i, (q, k, v, _) in enumerate(parts(x))], 2)

    def naive(x):
        mask, scale = masks(x), x["q"].shape[-1] ** -0.5

        def call(i, q, k, v):
            scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~mask[i], float("-inf"))
            return scores.softmax(-1).nan_to_num() @ v

        return lambda: each(x, call)

    def masked(x):
        mask = masks(x)
        return lambda: each(x, lambda i, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask[i]))

    def unmasked(x):
        return lambda: each(x, lambda i, q, k, v: F.scaled_dot_product_attention(q, k, v))

    def unmasked_reference(x):
        return each(x, lambda i, q, k, v: (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v)

    def flex(x):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        run = torch.compile(flex_attention, dynamic=False)
        blocks = []
        for mask in masks(x):
            rows, keys = mask.shape[-2:]
            batch = mask.shape[0] if mask.ndim == 4 else None
            table = mask.reshape(-1, rows, keys)
            blocks.append(
                create_block_mask(
                    lambda b, h, i, j, t=table, many=batch is not None: t[b if many else 0, i, j],
                    batch,
                    None,
                    rows,
                    keys,
                    device=x["q"].device,
                )
            )
        return lambda: each(x, lambda i, q, k, v: run(q, k, v, block_mask=blocks[i]))

    def varlen(x):
        from torch.nn.attention.varlen import varlen_attn

        b, h, n, k = x["q"].shape
        bounds = torch.arange(0, (b + 1) * n, n, dtype=torch.int32, device=x["q"].device)

        def packed_view(name):
            return x[name].transpose(1, 2).reshape(b * n, h, k)

        return lambda: (
            varlen_attn(packed_view("q"), packed_view("k"), packed_view("v"), bounds, bounds, n, n)
            .view(b, n, h, k)
            .transpose(1, 2)
        )

    others = [
        Contestant("naive", naive),
        Contestant(MASKED, masked),
        Contestant(FLOOR, unmasked, reference=unmasked_reference),
        Contestant("FlexAttention, compiled", flex, differentiable=torch.cuda.is_available()),
    ]
    if packed and torch.cuda.is_available():
        others.append(Contestant("varlen_attn", varlen))
    return [Contestant("ours", ours, ours=True), *others]
