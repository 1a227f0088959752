"""The processes of one run under torchrun: all train; only rank 0 prepares data, decides, measures and writes.

A step is G micro-batches (`--accumulate`), of which rank r of W takes r, r + W, ...: the same micro-batches as one process
takes, weighted alike, and so the same weights up to the order of a sum. A batch is a function of (seed, number), so no data has
to be divided beforehand. Gradients are added up by DistributedDataParallel.
"""

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")

MEETING = timedelta(minutes=2)  # for all to connect, once rank 0 is ready
PATIENCE = timedelta(hours=24)  # with rank 0 while it prepares or evaluates; a process that dies is noticed at once


@dataclass(frozen=True)
class Ranks:
    """The rank of this process and their number; by default one process, which sends nothing."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> "Ranks":
        """From the environment that torchrun sets. Raises ValueError if a part of it is missing."""
        if "WORLD_SIZE" not in os.environ:
            return cls()
        try:
            return cls(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"WORLD_SIZE is set and RANK does not say which process this is ({error}); start several with torchrun."
            ) from None

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.world == 1

    def check(self, accumulate: int, workers: int, sharded: bool = False, compiled: bool = False) -> None:
        """Raises ValueError for a configuration that these processes cannot divide."""
        if self.alone:
            return
        if sharded and compiled:
            raise ValueError("--shard and --compile have not been made to work together; leave one of them out.")
        if accumulate % self.world:
            raise ValueError(
                f"--accumulate is {accumulate} and there are {self.world} processes, which share the batches of a step; "
                f"give a multiple of {self.world}. A step of --accumulate {self.world} has {self.world} times as many windows."
            )
        if workers != 1:
            raise ValueError(f"--workers is {workers} under torchrun, where all processes train one model; leave it 1.")

    def join(self) -> None:
        """Connect to the others, after what only rank 0 does first."""
        if self.alone or dist.is_initialized():
            return
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", self.rank % torch.cuda.device_count())))
            backend = "cpu:gloo,cuda:nccl"
        store, _, _ = next(rendezvous("env://", self.rank, self.world))
        # What a killed attempt left in torchrun's store would be taken for an address of this one.
        store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        if self.first:
            store.set("prepared", "1")
        else:
            store.wait(["prepared"], PATIENCE)
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.world, timeout=MEETING)
        _set_pg_timeout(PATIENCE)

    def leave(self) -> None:
        """Once all are here: one that went early would take its connections from those that still work. Whoever holds a
        `parallel` module drops it first: PyTorch 2.13 aborts at exit if one is left."""
        if not self.alone and dist.is_initialized():
            dist.barrier()
            gc.collect()
            dist.destroy_process_group()

    def share(self, value: T) -> T:
        """Rank 0's value, on all."""
        if self.alone:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def agree(self, number: float) -> float:
        """Rank 0's number, on all."""
        if self.alone:
            return number
        box = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(box, src=0)
        return float(box)

    def dealt(self, numbers: Sequence[int]) -> list[int]:
        """Each rank's numbers of its own micro-batches -> those of all, in the order of the micro-batches."""
        if self.alone:
            return list(numbers)
        found = torch.empty(self.world, len(numbers), dtype=torch.int64)
        dist.all_gather_single(found, torch.tensor([numbers], dtype=torch.int64))
        return found.T.flatten().tolist()

    def total(self, x: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if not self.alone:
            dist.all_reduce(x)
        return x

    def divided(self, x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        """work(x), where the rows (M, ...) are independent: every rank does some, and all get all."""
        if self.alone or len(x) < self.world:
            return work(x)
        each = -(-len(x) // self.world)
        padded = torch.cat([x, x.new_zeros(each * self.world - len(x), *x.shape[1:])])
        own = work(padded[self.rank * each : (self.rank + 1) * each]).contiguous()
        found = own.new_empty(padded.shape)
        dist.all_gather_single(found, own)
        return found[: len(x)]

    def own(self, count: int) -> range:
        """Which of a step's micro-batches this rank takes."""
        return range(self.rank, count, self.world)

    @staticmethod
    def parallel(model: nn.Module, phases: bool) -> nn.parallel.DistributedDataParallel:
        """Averages gradients over ranks. phases: whether training leaves some weights unused at times."""
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=phases, broadcast_buffers=False)


ALONE = Ranks()
