"""Every compile-time choice of the attention kernels, in one place."""

from collections.abc import Iterator


def aot_cases() -> Iterator[dict]:
    """What an ahead-of-time compiler needs for every kernel configuration that ships.

    Yields dictionaries
        name             str, unique: "forward-exclude_self-bf16-64"
        fn               the @triton.jit function
        types            {argument: "*bf16" | "*fp32" | "*i32" | "i32" | "i64" | "fp32"}; with constexprs it covers
                         every argument of fn
        constexprs       {argument: value}
        divisible_by_16  [argument, ...]: the integers known to be multiples of 16 (pointers always are)
        num_warps, num_stages   int
        arch             80 or 90: the chip this configuration is for
        dtype            "bf16" | "fp16" | "fp32"
        head_width       int
        group            str: configurations to be compared with each other, e.g. "forward"
        expects          {"mma": bool, "async": bool}: matrix instructions, asynchronous copies

    Imports Triton, so call it in a process without TRITON_INTERPRET.
    """
    yield from ()
