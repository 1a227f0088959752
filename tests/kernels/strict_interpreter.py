"""Triton's CPU interpreter, made as unforgiving as a GPU.

The stock interpreter accepts what a GPU does not and computes what a GPU does not. Inside `strict()`

- bfloat16 arithmetic is right: operands are widened, results rounded to nearest even (stock: bits as integers);
- a masked load without `other` gives NaN, or the largest integer, in the lanes that are off (stock: 0);
- every lane of every load and store must lie inside a tensor that was passed to the kernel;
- programs run in a shuffled order;
- no address is stored twice by one store, stored by two programs, or stored by one and loaded by another;
- float32 products without input_precision="ieee" are rounded to TF32; a product over fewer than 16 terms is refused;
- device_assert asserts; atomics are refused, because results must not depend on the order of programs.

It patches internals of one Triton version, and refuses any other: read the new `triton/runtime/interpreter.py`, adapt,
run test_strict_interpreter.py, and change TRITON.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import triton
import triton.language as tl
from triton.runtime import interpreter

TRITON = "3.7.1"

Builder, Handle = interpreter.InterpreterBuilder, interpreter.TensorHandle


# What Triton shipped, so that a strict block inside another replaces it instead of wrapping it.
STOCK = {
    name: getattr(Builder, name)
    for name in (
        "cast_impl",
        "create_fp_to_fp",
        "binary_op",
        "unary_op",
        "create_masked_load",
        "create_masked_store",
        "set_grid_idx",
    )
}
STOCK_REDUCE, STOCK_ARGUMENTS = interpreter.ReduceOps.apply_impl, interpreter.GridExecutor._init_args_hst


class KernelFault(AssertionError):
    """What a GPU would have answered with a wrong number, a race, or an illegal address."""


@contextmanager
def strict(seed: int = 0) -> Iterator[None]:
    """Run the kernels launched inside strictly; `seed` shuffles their programs."""
    if triton.__version__ != TRITON:
        raise RuntimeError(f"strict_interpreter.py was written for Triton {TRITON}, this is {triton.__version__}")
    if not triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET=1 must be set before Triton is imported")
    patches = _arithmetic() | _memory(_Memory(), np.random.default_rng(seed))
    originals = {(owner, name): owner.__dict__[name] for owner, name in patches}
    options = interpreter.interpreter_builder.options
    try:
        interpreter.interpreter_builder.options = dataclasses.replace(options, debug=True)
        for (owner, name), patch in patches.items():
            setattr(owner, name, patch)
        yield
    finally:
        interpreter.interpreter_builder.options = options
        for (owner, name), original in originals.items():
            setattr(owner, name, original)


def _is_bf16(handle) -> bool:
    return handle.dtype.scalar == tl.bfloat16


def _widen(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _narrow(values: np.ndarray) -> np.ndarray:
    """float32 to the bits of bfloat16, to nearest even."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _tf32(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


def _arithmetic() -> dict:
    def cast(self, src, dst_type):
        source, target = src.dtype.scalar, dst_type.scalar
        if source == target:
            return src
        if source == tl.bfloat16:
            src = Handle(_widen(src.data), tl.float32)
            return src if target == tl.float32 else STOCK["cast_impl"](self, src, dst_type)
        if target == tl.bfloat16:
            return Handle(_narrow(src.data.astype(np.float32)), tl.bfloat16)
        return STOCK["cast_impl"](self, src, dst_type)

    def fp_to_fp(self, src, dst_type, rounding_mode):
        if tl.bfloat16 in (src.dtype.scalar, dst_type.scalar):
            return cast(self, src, dst_type)
        return STOCK["create_fp_to_fp"](self, src, dst_type, rounding_mode)

    def binary(self, lhs, rhs, op):
        if not (_is_bf16(lhs) and _is_bf16(rhs)):
            return STOCK["binary_op"](self, lhs, rhs, op)
        out = op(_widen(lhs.data), _widen(rhs.data))
        return Handle(out, tl.int1) if out.dtype == np.bool_ else Handle(_narrow(out), tl.bfloat16)

    def unary(self, arg, op):
        if _is_bf16(arg):
            return Handle(_narrow(op(_widen(arg.data))), tl.bfloat16)
        return STOCK["unary_op"](self, arg, op)

    def dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        if a.data.shape[-1] < 16:
            raise KernelFault(f"tl.dot over {a.data.shape[-1]} terms; matrix units need at least 16")
        left, right = (_widen(x.data) if _is_bf16(x) else x.data for x in (a, b))
        if left.dtype == np.float32 and not _is_bf16(a) and input_precision != interpreter._ir.INPUT_PRECISION.IEEE:
            left, right = _tf32(left), _tf32(right)
        return Handle(np.matmul(left, right, dtype=d.data.dtype) + d.data, d.dtype.scalar)

    def reduce(self, input_param):
        for x in input_param if isinstance(input_param, tuple) else (input_param,):
            if _is_bf16(x.handle):
                raise KernelFault("a reduction in bfloat16: widen to float32 first")
        return STOCK_REDUCE(self, input_param)

    return {
        (Builder, "cast_impl"): cast,
        (Builder, "create_fp_to_fp"): fp_to_fp,
        (Builder, "binary_op"): binary,
        (Builder, "unary_op"): unary,
        (Builder, "create_dot"): dot,
        (interpreter.ReduceOps, "apply_impl"): reduce,
    }


class _Memory:
    """Who stored to and who loaded from each element of the tensors of one launch."""

    def __init__(self):
        self.tensors = []

    def start(self, tensors) -> None:
        self.tensors = []
        for x in tensors:
            reach = sum((size - 1) * step for size, step in zip(x.shape, x.stride())) + 1 if x.numel() else 0
            known = (x.data_ptr(), x.element_size(), reach)
            if known not in [t[:3] for t in self.tensors]:
                self.tensors.append((*known, np.full(reach, -1), np.full(reach, -1)))

    def visit(self, pointers: np.ndarray, width: int, program: int, storing: bool) -> None:
        pointers = pointers.astype(np.uint64).ravel()
        if storing and np.unique(pointers).size != pointers.size:
            raise KernelFault("one store writes the same address more than once")
        found = np.zeros(pointers.shape, bool)
        for base, size, reach, stored, loaded in self.tensors:
            inside = (pointers >= base) & (pointers + np.uint64(width) <= base + reach * size)
            found |= inside
            if size != width:
                continue
            at = ((pointers[inside] - np.uint64(base)) // np.uint64(size)).astype(np.int64)
            if ((stored[at] >= 0) & (stored[at] != program)).any():
                raise KernelFault(
                    "an address that one program stores is " + ("stored" if storing else "loaded") + " by another"
                )
            if storing and ((loaded[at] >= 0) & (loaded[at] != program)).any():
                raise KernelFault("an address that one program loads is stored by another")
            if storing:
                stored[at] = program
            else:
                loaded[at] = program
        if not found.all():
            what = "store" if storing else "load"
            raise KernelFault(f"{what} out of bounds: {(~found).sum()} of {found.size} lanes")


def _memory(memory: _Memory, random: np.random.Generator) -> dict:
    order = {}

    def visit(self, pointers, mask, storing):
        shape = np.broadcast_shapes(pointers.data.shape, mask.data.shape)
        lanes = np.broadcast_to(mask.data, shape)
        width = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        memory.visit(np.broadcast_to(pointers.data, shape)[lanes], width, order["now"], storing)

    def load(self, pointers, mask, other, *options):
        visit(self, pointers, mask, storing=False)
        result = STOCK["create_masked_load"](self, pointers, mask, other, *options)
        lanes = np.broadcast_to(mask.data, result.data.shape)
        if other is None and not lanes.all():
            result.data = np.where(lanes, result.data, _poison(result)).astype(result.data.dtype)
        return result

    def store(self, pointers, value, mask, *options):
        visit(self, pointers, mask, storing=True)
        return STOCK["create_masked_store"](self, pointers, value, mask, *options)

    def index(self, x, y, z):
        nx, ny, nz = self.grid_dim
        if (x, y, z) == (0, 0, 0):
            order["programs"] = random.permutation(nx * ny * nz)
        order["now"] = now = int(order["programs"][(x * ny + y) * nz + z])
        return STOCK["set_grid_idx"](self, now // (ny * nz), now // nz % ny, now % nz)

    def arguments(self, args, kwargs):
        hosted, hosted_kwargs = STOCK_ARGUMENTS(self, args, kwargs)
        memory.start([x for x in (*hosted, *hosted_kwargs.values()) if hasattr(x, "data_ptr")])
        return hosted, hosted_kwargs

    def refuse(self, *_):
        raise KernelFault("an atomic operation: its result depends on the order of programs")

    return {
        (Builder, "create_masked_load"): load,
        (Builder, "create_masked_store"): store,
        (Builder, "set_grid_idx"): index,
        (Builder, "create_atomic_rmw"): refuse,
        (Builder, "create_atomic_cas"): refuse,
        (interpreter.GridExecutor, "_init_args_hst"): arguments,
    }


def _poison(handle):
    if _is_bf16(handle):
        return np.uint16(0x7FC0)
    if handle.data.dtype == np.bool_:
        return np.True_
    return np.nan if handle.dtype.scalar.is_floating() else np.iinfo(handle.data.dtype).max
