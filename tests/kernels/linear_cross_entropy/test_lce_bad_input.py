"""Every mistake a caller can make is a ValueError that names the argument, what it was and what it must be."""

import pytest
import torch
from problems import make_problem

from kernels.linear_cross_entropy import linear_cross_entropy


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden": torch.zeros(2, 3, 24)}, r"hidden had shape \(2, 3, 24\); it must be \(T, E\)"),
        ({"weight": torch.zeros(101)}, r"weight had shape \(101,\); it must be \(V, E\)"),
        ({"weight": torch.zeros(101, 25)}, r"weight had 25 columns; it must have 24 columns, the width of hidden"),
        ({"weight": torch.zeros(0, 24)}, r"weight had shape \(0, 24\); neither V nor E may be 0"),
        ({"targets": torch.zeros(37, 1, dtype=torch.int64)}, r"targets had shape \(37, 1\); it must be \(T,\)"),
        ({"targets": torch.zeros(36, dtype=torch.int64)}, r"targets had 36 entries; it must have 37 entries"),
        ({"targets": torch.zeros(37, dtype=torch.int32)}, r"targets had dtype torch.int32; it must be torch.int64"),
        ({"targets": torch.full((37,), 101)}, r"targets\[0\] was 101; it must be a token id from 0 to 100"),
        ({"targets": torch.full((37,), -1)}, r"targets\[0\] was -1; it must be .* or ignore_index=-100"),
        ({"bias": torch.zeros(100)}, r"bias had 100 entries; it must have 101 entries"),
        ({"bias": torch.zeros(101).double()}, r"bias had dtype torch.float64; it must be torch.float32"),
        ({"weight": torch.zeros(101, 24).bfloat16()}, r"weight had dtype torch.bfloat16; it must be torch.float32"),
        ({"hidden": torch.zeros(37, 24, dtype=torch.int64)}, r"hidden had dtype torch.int64; it must be floating"),
        ({"weight": torch.zeros(101, 24, device="meta")}, r"weight was on meta; it must be on cpu"),
        ({"reduction": "avg"}, r"reduction was 'avg'; it must be 'mean', 'sum' or 'none'"),
        ({"chunk_bytes": 0}, r"chunk_bytes was 0; it must be at least 1"),
        ({"backend": "cuda"}, r"'cuda'.* must be one of reference, torch, triton"),
    ],
)
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_refused(change, message, backend):
    p = make_problem()
    arguments = {"hidden": p.hidden, "weight": p.weight, "targets": p.targets, "bias": p.bias, "backend": backend}
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**arguments | change)


def test_an_error_in_compiled_code_is_the_same_error():
    p = make_problem()
    p.targets[5] = 101
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"targets\[5\] was 101"):
        compiled(p.hidden, p.weight, p.targets, p.bias, backend="torch")
