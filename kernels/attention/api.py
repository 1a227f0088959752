"""The public operators: check, choose a backend, run. What the visibilities mean stands in `visibility.py`.

Shapes: B batch, H heads, N positions, K head width. Queries, keys and values are (B, H, N, K); strided views such as
`projection_BND.view(B, N, H, K).transpose(1, 2)` are taken as they are. Outputs are stored as (B, N, H, K) and returned
as (B, H, N, K), so that `out.transpose(1, 2).reshape(B, N, H * K)` copies nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import autocast_dtype, choose_backend
from . import reference
from .layout import Layout, layout_of, rank_order
from .operators import attend, in_rank_order
from .spans import Spans
from .visibility import TWO_STREAM, is_visibility, takes_spans, unknown, visible_BNN

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visibility: str | Tensor = "full",
    *,
    documents: Tensor | Layout | None = None,
    rank: Tensor | None = None,
    spans: Spans | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attention of one stream of rows: row i attends to the keys its visibility allows.

    Args:
        q, k, v: (B, H, N, K), one dtype of float32, float16, bfloat16; autocast casts them as it casts for SDPA.
        visibility: full, exclude_self, beyond_N, before(_strict), after(_strict), rank(_strict); or (B, N, N) bool, true
            where row i sees key j. Such a mask of one's own goes through PyTorch's SDPA, to try an idea out.
        documents: (B, N) int32, the document of each position, -1 for padding; the positions of a document are contiguous.
            None: every row of the batch is one whole document. Documents never see each other. A `Layout` made of them
            saves a GPU the wait for its contents.
        rank: (B, N) integers, for rank and rank_strict only: within each document a permutation of 0..n-1.
        spans: for exclude_self and beyond_N, the span that is hidden from each row in place of the position alone; from
            `spans_of`.
        scale: multiplies q . k; K ** -0.5 by default.
        backend: overrides the choice of `kernels.dispatch`.

    Returns:
        (B, H, N, K) in the dtype of q. A row that sees nothing is exactly 0, and so are its gradients.

    Raises:
        ValueError: an argument that is not as above; the message names it.
    """
    if isinstance(visibility, Tensor):
        q, k, v = _autocast(q, k, v)
        _check(q, {"k": k, "v": v}, documents, rank, "a mask", spans)
        return _masked(q, k, v, visibility, documents, scale)
    if not is_visibility(visibility):
        raise ValueError(unknown(visibility))
    q, k, v = _autocast(q, k, v)
    _check(q, {"k": k, "v": v}, documents, rank, visibility, spans)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    return _run(backend, (q,), (k, v), visibility, documents, rank, scale, spans)[0]


def two_stream_attention(
    q_content: Tensor,
    q_query: Tensor,
    k: Tensor,
    v: Tensor,
    visibility: str,
    *,
    documents: Tensor | Layout | None = None,
    rank: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Content and query rows over the same keys: content rows see inclusively, query rows strictly.

    Args:
        q_content, q_query, k, v: (B, H, N, K).
        visibility: exclude_self (content: full), before, after, or rank.
        The others are those of `attention`.

    Returns:
        content_out, query_out.

    Raises:
        ValueError: as `attention`.
    """
    if visibility not in TWO_STREAM:
        raise ValueError(f"visibility was {visibility!r}; for two streams it must be one of {', '.join(TWO_STREAM)}")
    q_content, q_query, k, v = _autocast(q_content, q_query, k, v)
    _check(q_content, {"q_query": q_query, "k": k, "v": v}, documents, rank, visibility, first="q_content")
    scale = k.shape[-1] ** -0.5 if scale is None else float(scale)
    qs = (q_content, q_query)
    content, query = _run(backend, qs, (k, v), visibility, documents, rank, scale)
    return content, query


def union_attention(
    q: Tensor,
    k_past: Tensor,
    v_past: Tensor,
    k_future: Tensor,
    v_future: Tensor,
    *,
    documents: Tensor | Layout | None = None,
    spans: Spans | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """One softmax over two sets of keys: row i sees the past keys j < i and the future keys j > i; with spans those before its
    span and those after it.

    With the same set given twice this is `attention(..., "exclude_self")`.

    Args:
        q, k_past, v_past, k_future, v_future: (B, H, N, K). The others are those of `attention`.

    Returns, raises: as `attention`.
    """
    q, k_past, v_past, k_future, v_future = _autocast(q, k_past, v_past, k_future, v_future)
    others = {"k_past": k_past, "v_past": v_past, "k_future": k_future, "v_future": v_future}
    _check(q, others, documents, None, "union", spans)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    kv = (k_past, v_past, k_future, v_future)
    return _run(backend, (q,), kv, "union", documents, None, scale, spans)[0]


def _run(backend, qs, kv, visibility, documents, rank, scale, spans=None) -> list[Tensor]:
    """On the chosen backend; in compiled code the operator chooses when it runs. Empty inputs give empty results, as with
    SDPA."""
    if not qs[0].numel():
        return [q * 0 for q in qs]
    chosen = (backend or "") if torch.compiler.is_compiling() else choose_backend(qs[0].device, backend)
    if chosen != "reference":
        return _fast(chosen, qs, kv, visibility, documents, rank, scale, spans)
    _check_contents(documents, rank)
    outs = attend(chosen, qs, kv, visibility, documents, scale, rank, spans)
    return [_as_stored(q, out) for q, out in zip(qs, outs)]


def _masked(q, k, v, seen, documents, scale) -> Tensor:
    """Under a mask of the caller's own, (B, N, N) bool, inside the documents."""
    if seen.shape != (q.shape[0], q.shape[2], k.shape[2]) or seen.dtype != torch.bool:
        wanted = (q.shape[0], q.shape[2], k.shape[2])
        raise ValueError(f"the mask had shape {tuple(seen.shape)} and dtype {seen.dtype}; it must be {wanted} bool")
    if documents is not None:
        seen = seen & visible_BNN("full", reference.ids_of(q, documents))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None], scale=scale)
    return out.masked_fill(~seen.any(-1)[:, None, :, None], 0.0)


def _fast(backend, qs, kv, visibility, documents, rank, scale, spans) -> list[Tensor]:
    """On the torch or Triton backend. Rank is `before` once every document stands in the order of its ranks."""
    if not visibility.startswith("rank"):
        return attend(backend, qs, kv, visibility, documents, scale, spans=spans)
    order, slot = in_rank_order(rank, documents)
    qs, kv = [_Reorder.apply(q, order, slot) for q in qs], [_Reorder.apply(x, order, slot) for x in kv]
    outs = attend(backend, qs, kv, visibility.replace("rank", "before"), documents, scale)
    return [_Reorder.apply(out, slot, order) for out in outs]


class _Reorder(torch.autograd.Function):
    """Positions of (B, H, N, K) in another order; the gradient takes the inverse order, with no scatter-add."""

    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(order, inverse)
        return _take(x, order)

    @staticmethod
    def backward(ctx, grad):
        _, inverse = ctx.saved_tensors
        return _take(grad, inverse), None, None


def _take(x: Tensor, order: Tensor) -> Tensor:
    b, h, n, width = x.shape
    row = order + n * torch.arange(b, device=x.device)[:, None]
    rows = x.transpose(1, 2).reshape(b * n, h * width)  # a view, if x is one of a projection
    return rows.index_select(0, row.flatten()).view(b, n, h, width).transpose(1, 2)


def _as_stored(q: Tensor, out: Tensor) -> Tensor:
    return out.to(q.dtype).transpose(1, 2).contiguous().transpose(1, 2)


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    dtype = autocast_dtype(tensors[0].device)
    if dtype is None:
        return tensors
    return tuple(x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors)


def _check(q, others, documents, rank, visibility, spans=None, first="q") -> None:
    """Shapes, dtypes and devices; nothing that reads contents."""
    if q.dim() != 4:
        raise ValueError(f"{first} had shape {tuple(q.shape)}; it must be (B, H, N, K)")
    if q.dtype not in DTYPES:
        raise ValueError(f"{first} had dtype {q.dtype}; it must be float32, float16 or bfloat16")
    for name, x in others.items():
        for what, found, wanted in (("shape", x.shape, q.shape), ("dtype", x.dtype, q.dtype)):
            if found != wanted:
                found, wanted = (tuple(found), tuple(wanted)) if what == "shape" else (found, wanted)
                raise ValueError(f"{name} had {what} {found}; it must have that of {first}, {wanted}")
        if x.device != q.device:
            raise ValueError(f"{name} was on {x.device}; it must be on the device of {first}, {q.device}")
    if rank is None and visibility.startswith("rank"):
        raise ValueError(f"rank was None; visibility {visibility!r} needs a (B, N) tensor of ranks")
    if rank is not None and not visibility.startswith("rank"):
        raise ValueError(f"rank was given, but visibility {visibility!r} does not read it; it must be None")
    if spans is not None and not takes_spans(visibility):
        raise ValueError(f"spans were given, but visibility {visibility!r} does not read them; they must be None")
    for name, ids in (("documents", documents), ("rank", rank), ("spans", spans)):
        if ids is None:
            continue
        if ids.shape != (q.shape[0], q.shape[2]):
            raise ValueError(f"{name} had shape {tuple(ids.shape)}; it must be (B, N) = {(q.shape[0], q.shape[2])}")
        if isinstance(ids, Tensor) and ids.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"{name} had dtype {ids.dtype}; it must be int32 or int64")
        if ids.device != q.device:
            raise ValueError(f"{name} was on {ids.device}; it must be on the device of {first}, {q.device}")


def _check_contents(documents: Tensor | Layout | None, rank: Tensor | None) -> None:
    if documents is not None:
        layout_of(documents)
    if rank is not None:
        rank_order(rank, documents)
