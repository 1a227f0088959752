"""Every mistake is one ValueError that names the argument, what it was and what it must be."""

import pytest
import torch

from kernels.attention import attention, spans_of, two_stream_attention, union_attention
from kernels.dispatch import choose_backend, use_backend


def qkv(b=2, h=2, n=8, width=16, dtype=torch.float32):
    return [torch.randn(b, h, n, width, dtype=dtype) for _ in range(3)]


def ids(*rows):
    return torch.tensor(rows, dtype=torch.int32)


def refuses(message, *args, operator=attention, **options):
    with pytest.raises(ValueError, match=message):
        operator(*args, **options)


def test_visibility():
    refuses("visibility was 'causal'; it must be one of full, exclude_self", *qkv(), "causal")
    refuses(
        "visibility was 'full'; for two streams it must be", *qkv(), qkv()[0], "full", operator=two_stream_attention
    )


def test_shapes():
    q, k, v = qkv()
    refuses(r"q had shape \(2, 8, 16\); it must be \(B, H, N, K\)", q[:, 0], k, v)
    refuses(r"k had shape \(2, 2, 7, 16\); it must have that of q, \(2, 2, 8, 16\)", q, k[:, :, 1:], v)
    refuses("v_future had shape", q, k, v, k, v[:1], operator=union_attention)
    refuses("q_query had shape", q, q[:, :1], k, v, "before", operator=two_stream_attention)
    refuses(r"documents had shape \(2, 7\); it must be \(B, N\) = \(2, 8\)", q, k, v, documents=ids([0] * 7, [0] * 7))


def test_dtypes():
    q, k, v = qkv()
    refuses("k had dtype torch.float16; it must have that of q, torch.float32", q, k.half(), v)
    refuses("q had dtype torch.int64", q.long(), k.long(), v.long())
    refuses("documents had dtype torch.float32; it must be int32 or int64", q, k, v, documents=torch.zeros(2, 8))


def test_devices():
    q, k, v = qkv()
    refuses("v was on meta; it must be on the device of q, cpu", q, k, v.to("meta"))
    refuses("documents was on meta", q, k, v, documents=torch.zeros(2, 8, dtype=torch.int32, device="meta"))


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
def test_documents(backend):
    q, k, v = qkv(b=1)
    options = {"backend": backend}
    refuses(
        "documents had the id 0 at separate positions of row 0",
        q,
        k,
        v,
        documents=ids([0, 0, 1, 1, 0, 0, 2, 2]),
        **options,
    )
    refuses(
        "documents had the id 3 at separate positions", q, k, v, documents=ids([3, 3, -1, 3, 3, 3, 3, 3]), **options
    )
    refuses("documents held the id -2; ids must be 0 or more", q, k, v, documents=ids([0] * 7 + [-2]), **options)


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
def test_ranks(backend):
    q, k, v = qkv(b=1)
    documents = ids([0, 0, 0, 0, 0, 1, 1, -1])

    def refuse(message, rank, documents=documents):
        refuses(message, q, k, v, "rank", documents=documents, rank=rank, backend=backend)

    refuse("rank was None", None)
    refuse("rank was .* in row 0 .* must be a permutation", ids([0, 1, 2, 3, 3, 0, 1, 0]))
    refuse("permutation", ids([0, 1, 2, 3, 5, 0, 1, 0]))
    refuse("permutation", ids([0, 1, 2, 3, -1, 0, 1, 0]))
    refuse("permutation", ids([1, 2, 3, 4, 5, 6, 7, 8]), documents=None)
    refuses("rank was given, but visibility 'before' does not read it", q, k, v, "before", rank=ids(range(8)))
    attention(q, k, v, "rank", documents=documents, rank=ids([0, 1, 2, 3, 4, 1, 0, 77]), backend=backend)


def test_documents_written_in_place_are_checked_again():
    q, k, v = qkv(b=1)
    documents = ids([0, 0, 0, 0, 1, 1, 1, 1])
    before = attention(q, k, v, documents=documents)
    documents[0, 4:] = 0
    assert not torch.equal(before, attention(q, k, v, documents=documents))
    assert torch.equal(attention(q, k, v), attention(q, k, v, documents=documents))
    documents[0, 2] = 5
    refuses("separate positions", q, k, v, documents=documents)


def test_ranks_written_in_place_are_checked_again():
    q, k, v = qkv(b=1)
    documents, rank = ids([0] * 8), ids(list(range(8)))
    before = attention(q, k, v, "rank", documents=documents, rank=rank)
    rank.copy_(rank.flip(1))
    assert not torch.equal(before, attention(q, k, v, "rank", documents=documents, rank=rank))
    documents[0, 4:] = 1
    refuses("permutation", q, k, v, "rank", documents=documents, rank=rank)


def test_inference_tensors_are_compared_by_content():
    with torch.inference_mode():
        q, k, v = qkv(b=1)
        documents = ids([0, 0, 0, 0, 1, 1, 1, 1])
        before = attention(q, k, v, documents=documents)
        documents[0, 4:] = 0
        assert not torch.equal(before, attention(q, k, v, documents=documents))


def test_what_triton_cannot_take():
    wide = torch.randn(1, 2, 8, 17)
    refuses(r"q had strides .*; for Triton the last must be 1", *[wide[..., :16]] * 3, backend="triton")
    refuses("q had head width 24; for Triton", *qkv(width=24), backend="triton")
    refuses("q had head width 144", *qkv(width=144), backend="triton")
    refuses("q had dtype float64; for Triton", *qkv(dtype=torch.float64), backend="triton")
    q, k, v = qkv()
    refuses("v had strides", q, k, v.transpose(2, 3).contiguous().transpose(2, 3), backend="triton")


def test_backends(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv("KERNELS", raising=False)
    assert (choose_backend(cpu), choose_backend(cuda)) == ("torch", "triton")
    monkeypatch.setenv("KERNELS", "reference")
    assert choose_backend(cuda) == "reference"
    with use_backend("torch"):
        assert choose_backend(cuda) == "torch" and choose_backend(cuda, "triton") == "triton"
        with use_backend("reference"):
            assert choose_backend(cpu) == "reference"
        assert choose_backend(cpu) == "torch"
    assert choose_backend(cpu) == "reference"
    monkeypatch.setenv("KERNELS", "cuda")
    with pytest.raises(ValueError, match="the environment variable KERNELS was 'cuda'; it must be one of reference"):
        choose_backend(cpu)
    with pytest.raises(ValueError, match="backend was 'fast'"):
        choose_backend(cpu, "fast")
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="backend 'triton' was asked for tensors on cpu, but it runs on CUDA only"):
        choose_backend(cpu, "triton")


def test_spans_that_cannot_be():
    q, k, v = (torch.randn(1, 1, 4, 16) for _ in range(3))
    position = torch.arange(4)[None]
    good = spans_of(position, position)
    for first, last, said in (
        (position, position[:, :3], "both must be"),
        (position + 1, position + 1, "must hold its position"),
        (position, position * 0 + 9, "lie within 0..3"),
        (torch.tensor([[0, 1, 0, 3]]), torch.tensor([[3, 3, 3, 3]]), "first fell from 1 to 0 at position 2"),
        (torch.tensor([[0, 0, 0, 0]]), torch.tensor([[3, 2, 2, 3]]), "last fell from 3 to 2 at position 1"),
    ):
        with pytest.raises(ValueError, match=said):
            spans_of(first, last)
    with pytest.raises(ValueError, match="visibility 'full' does not read them"):
        attention(q, k, v, "full", spans=good)
    with pytest.raises(ValueError, match=r"spans had shape \(1, 4\)"):
        attention(q[:, :, :2], k[:, :, :2], v[:, :, :2], "exclude_self", spans=good)


@pytest.mark.parametrize("shape", [(0, 2, 4, 16), (1, 0, 4, 16), (1, 2, 0, 16), (1, 2, 4, 0)])
def test_sizes_of_0_give_nothing(shape):
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    for visibility in ("full", "exclude_self", "before", "beyond_2"):
        out = attention(q, k, v, visibility, scale=1.0)
        assert out.shape == shape
        out.sum().backward()
    content, query = two_stream_attention(q, q, k, v, "before", scale=1.0)
    assert content.shape == query.shape == shape
