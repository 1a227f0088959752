"""Independent pieces of one call, each on a thread that computes alone, in memory of its own.

Many small operations, each on all cores, meet at a barrier each: when another process wants the cores too, every
barrier waits for the scheduler. Pieces of the batch on threads of their own meet once.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from math import prod
from threading import Barrier, local
from typing import Any

import torch
from torch import Tensor

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # (process, threads): a forked process has no threads yet
_memory = local()


def for_each(work: Callable, pieces: Iterable[tuple]) -> None:
    """work(*piece) for every piece; on one thread, or too few pieces, here and one after the other.

    Share s is pieces s, s + threads, ... in order. A piece is computed by one thread, so it has the same bits on any
    number of them.
    """
    pieces, threads = list(pieces), torch.get_num_threads()
    if threads == 1 or len(pieces) < threads:
        for piece in pieces:
            work(*piece)
        return
    inference = torch.is_inference_mode_enabled()

    def share(s: int) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            for piece in pieces[s::threads]:
                work(*piece)

    waiting = [_pool(threads).submit(share, s) for s in range(threads)]
    for done in wait(waiting).done:
        done.result()


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised memory that this thread uses again and again: fresh pages would cost as much as the arithmetic."""
    memory: dict[Any, Tensor] = _memory.__dict__
    count, key = prod(shape), (name, dtype, device)
    if key not in memory or memory[key].numel() < count:
        with torch.inference_mode(False):  # what is made in inference mode cannot be written outside
            memory[key] = torch.empty(count, dtype=dtype, device=device)
    return memory[key][:count].view(shape)


def _pool(threads: int) -> ThreadPoolExecutor:
    key = os.getpid(), threads
    if key not in _pools:
        together = Barrier(threads)

        def begin() -> None:
            torch.get_num_threads()  # the first call on a thread takes the number set last on any: let it be this one
            torch.set_num_threads(1)
            together.wait()  # an idle worker would keep the next one from being started

        _pools[key] = ThreadPoolExecutor(threads, "attention", initializer=begin)
        for started in [_pools[key].submit(torch.get_num_threads) for _ in range(threads)]:
            started.result()
        torch.set_num_threads(threads)
    return _pools[key]
