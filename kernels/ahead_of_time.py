"""Compile every shipped Triton configuration for GPUs that are not here, and hold the result to a budget.

    python -m kernels.ahead_of_time                      compile all, print the table, compare with the budget
    python -m kernels.ahead_of_time --only two_stream    those whose name contains this
    python -m kernels.ahead_of_time --write              make the present numbers the budget; commit the difference

Triton's compiler needs no driver: it gives machine code for sm_80 (A100), sm_90a (H100) and gfx942 (MI300). That code
tells early what a GPU would tell late: registers a thread, spills, shared memory, and whether the matrix units and the
asynchronous copies are used at all. It runs in a process of its own, without TRITON_INTERPRET.

A case is a dictionary from `kernels.<operator>.configs.aot_cases()`:
    name                 unique within the operator
    group                the kernel; a case is comparable with others of its group
    fn                   the @triton.jit function
    types, constexprs    together every argument: {argument: "*bf16" | "i32" | ...}, {argument: value}
    divisible_by_16      integer arguments known to be multiples of 16 (pointers always are)
    num_warps, num_stages, arch (80 or 90), dtype, head_width (attention)
    expects              {"mma": the matrix units are used, "async": copies to shared memory are asynchronous}
"""

import functools
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

BUDGET = Path(__file__).parents[1] / "tests" / "kernels" / "ahead_of_time_budget.json"
OPERATORS = ("attention", "linear_cross_entropy", "one_sided")

# Shared memory that one thread block may use: CUDA C++ Programming Guide, compute capabilities; CDNA 3 ISA, LDS.
SHARED_LIMIT = {80: 163 << 10, 90: 227 << 10, "gfx942": 64 << 10}
MATRIX_INSTRUCTION = {80: "HMMA", 90: "HGMMA", "gfx942": "MFMA"}

# Registers may drift by this much with an innocent edit; nothing else may grow at all.
REGISTER_DRIFT = 4

# The two-stream forward keeps one more row statistic than the single-stream one, and must stay close to it.
TWO_STREAM_REGISTERS = 1.15


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of one case. `registers` are those of one thread."""

    registers: int
    shared_bytes: int
    spills: int  # instructions that store to or load from local memory
    matrix: int  # HMMA, HGMMA or MFMA instructions
    async_copies: int
    atomics: int
    num_warps: int


def cases(operators: Iterable[str] = OPERATORS) -> Iterator[dict]:
    """All cases, with their key; each sm_80 case also for gfx942, whose budget says which of them compile."""
    for operator in operators:
        for case in importlib.import_module(f"kernels.{operator}.configs").aot_cases():
            name = re.sub(r"-sm\d+$", "", case["name"])
            yield case | {"operator": operator, "key": f"sm_{case['arch']} {operator} {name}"}
            if case["arch"] == 80:
                yield case | {"operator": operator, "key": f"gfx942 {operator} {name}", "arch": "gfx942"}


def fast_subset(chosen: Iterable[dict]) -> list[dict]:
    """One bf16 case of every kernel on each NVIDIA chip, and what the two-stream comparison needs."""
    seen, subset = set(), []
    for case in chosen:
        if case["dtype"] != "bf16" or case["arch"] == "gfx942":
            continue
        kind = (case["operator"], case["group"], case["arch"])
        compared = case["group"] == "forward" and "forward-exclude_self-bf16-64" in case["key"]
        if kind not in seen or compared:
            subset.append(case)
        seen.add(kind)
    return subset


def compile_case(case: dict) -> Compiled:
    """Compile for the case's chip and read the machine code.

    Raises:
        RuntimeError: TRITON_INTERPRET is set, which replaces the compiler.
        ValueError: a tile made for NVIDIA's shared memory that gfx942 cannot hold.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET was 1; ahead-of-time compilation must run in a process without it")
    import triton
    from triton.backends.compiler import GPUTarget

    amd = case["arch"] == "gfx942"
    target = GPUTarget("hip", "gfx942", 64) if amd else GPUTarget("cuda", case["arch"], 32)
    options = {"num_warps": case["num_warps"], "num_stages": case["num_stages"]}
    kernel = triton.compile(_source(case), target=target, options=options)
    if amd and kernel.metadata.shared > SHARED_LIMIT["gfx942"]:
        raise ValueError(f"{kernel.metadata.shared} bytes of LDS, the chip has {SHARED_LIMIT['gfx942']}")
    return _read_amd(kernel) if amd else _read_nvidia(kernel)


def _source(case: dict):
    """The case as Triton's compiler takes it."""
    from triton.compiler import ASTSource

    signature, attributes = {}, {}
    for index, name in enumerate(case["fn"].arg_names):
        if name in case["constexprs"]:
            signature[name] = "constexpr"
            continue
        signature[name] = case["types"][name]
        if signature[name].startswith("*") or name in case["divisible_by_16"]:
            attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=case["fn"], signature=signature, constexprs=case["constexprs"], attrs=attributes)


def _read_nvidia(kernel) -> Compiled:
    """Registers from the resource table, the rest by counting instructions of the disassembly."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        resources, sass = (
            subprocess.run(
                [knobs.nvidia.cuobjdump.path, option, file.name], capture_output=True, text=True, check=True
            ).stdout
            for option in ("--dump-resource-usage", "-sass")
        )
    return Compiled(
        registers=_number(r"\bREG:(\d+)", resources),
        shared_bytes=kernel.metadata.shared,
        spills=_count(r"STL|LDL", sass),
        matrix=_count("HGMMA", sass) or _count("HMMA", sass)
        if kernel.metadata.target.arch == 80
        else _count("HGMMA", sass),
        async_copies=_count("LDGSTS|UTMALDG|UBLKCP", sass),
        atomics=_count("ATOM|ATOMG|ATOMS|RED|REDG", sass),
        num_warps=kernel.metadata.num_warps,
    )


def _number(pattern: str, text: str) -> int:
    """The first group of the first match. Raises ValueError where there is none."""
    if (found := re.search(pattern, text)) is None:
        raise ValueError(f"the compiler's output has no {pattern}; was Triton or its assembler changed?")
    return int(found[1])


def _read_amd(kernel) -> Compiled:
    """The assembler's own metadata; CDNA 3 has no copies to LDS that Triton would call asynchronous."""
    assembly = kernel.asm["amdgcn"]

    def field(name: str) -> int:
        return _number(rf"\.{name}:\s+(\d+)", assembly)

    return Compiled(
        registers=field("vgpr_count"),
        shared_bytes=kernel.metadata.shared,
        spills=field("vgpr_spill_count"),
        matrix=len(re.findall(r"\bv_mfma_", assembly)),
        async_copies=0,
        atomics=len(re.findall(r"\b(?:global|flat|ds)_atomic", assembly)),
        num_warps=kernel.metadata.num_warps,
    )


def _count(mnemonics: str, sass: str) -> int:
    return len(re.findall(rf"\b(?:{mnemonics})\b", sass))


def violations(case: dict, found: Compiled | None, budget: dict | None) -> list[str]:
    """What is wrong with one case, each in a sentence with both numbers; `found` is None where it does not compile."""
    if found is None and case["arch"] == "gfx942" and budget is None:
        return []  # known not to compile for this chip
    if found is None:
        return ["does not compile"]
    wrong = []
    if budget is None:
        wrong.append("is not in the budget")
    else:
        for name, allowed in budget.items():
            slack = REGISTER_DRIFT if name == "registers" else 0
            measured = getattr(found, name)
            if name in ("registers", "shared_bytes", "spills") and measured > allowed + slack:
                wrong.append(f"{name} {measured}, budget {allowed}: {measured - allowed:+d}")
    limit = SHARED_LIMIT[case["arch"]]
    if found.shared_bytes > limit:
        wrong.append(f"shared memory {found.shared_bytes}, the chip has {limit}: {found.shared_bytes - limit:+d}")
    if case["arch"] == "gfx942":
        return wrong
    if found.spills and case.get("head_width", 64) == 64:
        wrong.append(f"spills {found.spills}, must be 0 at head width 64 and in linear cross-entropy")
    if found.atomics:
        wrong.append(f"atomics {found.atomics}, must be 0: results are deterministic")
    if case["expects"]["mma"] and not found.matrix:
        wrong.append(f"no {MATRIX_INSTRUCTION[case['arch']]}: the matrix units are idle")
    if case["expects"]["async"] and not found.async_copies:
        wrong.append("no asynchronous copies to shared memory")
    return wrong


def two_stream_violations(found: dict[str, Compiled | None]) -> list[str]:
    """The two-stream forward against the single-stream one of the same visibility, dtype and width."""
    wrong = []
    for key, two in found.items():
        one = found.get(key.replace("two_stream-", ""))
        if " forward-two_stream-" not in key or key.startswith("gfx") or one is None or two is None:
            continue
        ratio = two.registers / one.registers
        if ratio > TWO_STREAM_REGISTERS:
            wrong.append(
                f"{key}: {two.registers} registers, {ratio:.2f}x the single stream's {one.registers}; "
                f"at most {TWO_STREAM_REGISTERS}x"
            )
    return wrong


def read_budget() -> dict[str, dict | None]:
    """{key: {number: budget}}; None marks a case that is known not to compile."""
    return json.loads(BUDGET.read_text()) if BUDGET.exists() else {}


def check(found: dict[str, Compiled | None]) -> list[str]:
    """Every violation among these cases, in words."""
    budget, by_key = read_budget(), {case["key"]: case for case in cases()}
    wrong = []
    for key, compiled in found.items():
        wrong += [f"{key}: {sentence}" for sentence in violations(by_key[key], compiled, budget.get(key))]
    return wrong + two_stream_violations(found)


@functools.cache
def _cases_by_key() -> dict[str, dict]:
    return {case["key"]: case for case in cases()}


def _compile_key(key: str) -> tuple[str, Compiled | None]:
    """In a worker: functions do not travel between processes, names do."""
    case = _cases_by_key()[key]
    try:
        return key, compile_case(case)
    except Exception as error:
        print(f"{key}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
        return key, None


def compile_all(chosen: Iterable[dict], jobs: int = 1) -> dict[str, Compiled | None]:
    """Compile these cases, `jobs` at a time."""
    keys = [case["key"] for case in chosen]
    if jobs <= 1:
        return dict(map(_compile_key, keys))
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return dict(pool.map(_compile_key, keys))


def main(only: str = "", fast: bool = False, write: bool = False, jobs: int = 2, json_file: Path | None = None) -> None:
    """Compile the shipped Triton configurations without a GPU and compare with the committed budget.

    Args:
        only: part of the names wanted, such as "sm_90" or "two_stream".
        fast: one case of every kernel.
        write: make the present numbers the budget.
        jobs: compilers at a time.
        json_file: write the numbers here too.
    """
    from rich.console import Console
    from rich.table import Table

    chosen = [case for case in cases() if only in case["key"]]
    chosen = fast_subset(chosen) if fast else chosen
    found = compile_all(chosen, jobs)
    numbers = {key: asdict(compiled) if compiled else None for key, compiled in found.items()}
    if json_file:
        json_file.write_text(json.dumps(numbers, indent=1))
    if write:
        kept = {} if not only and not fast else read_budget()
        lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted((kept | numbers).items()))
        BUDGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    table = Table("case", *Compiled.__dataclass_fields__)
    for key, values in numbers.items():
        table.add_row(key, *(map(str, values.values()) if values else ["does not compile"]))
    Console(width=160).print(table)
    wrong = check(found)
    for sentence in wrong:
        print("BUDGET BROKEN", sentence)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    import tyro

    # The module must be importable by its name in the workers, and not be a second copy of itself here.
    from kernels import ahead_of_time

    tyro.cli(ahead_of_time.main)
