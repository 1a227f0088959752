"""Weights, gradients and optimiser states in shards (`--shard`): FSDP2 over the model as one group.

Blocks cannot be sharded one by one, since architectures use them by their methods, and hooks act on calls alone. So weights are
whole while a pass runs, and in shards at rest; gradients and optimiser states always are. What needs whole tensors, Muon,
checkpoints and evaluation, gathers them.
"""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model import MaskedLM

# torch.distributed's tensors and FSDP take a second to load: only a run that shards loads them.


def shard(model: MaskedLM, world: int) -> None:
    """Shard a model in place. Every rank must have the same weights before. Gradients are summed over ranks, since gloo cannot
    average."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(model.parameters()).device.type
    sharded: Any = fully_shard(model, mesh=init_device_mesh(device, (world,)))
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)


def in_shards(x: Any) -> bool:
    """Whether x is a DTensor. There is none where nothing has loaded them."""
    distributed = sys.modules.get("torch.distributed.tensor")
    return distributed is not None and isinstance(x, distributed.DTensor)


def is_sharded(model: nn.Module) -> bool:
    return any(in_shards(p) for p in model.parameters())


def whole(x: Any) -> Any:
    """A sharded tensor made whole, on every rank; anything else unchanged."""
    return x.full_tensor() if in_shards(x) else x


def like(x: Tensor, of: Any) -> Tensor:
    """A whole tensor x, sharded like `of`."""
    if not in_shards(of) or in_shards(x) or x.shape != of.shape:
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.to(of.device), of.device_mesh, of.placements, src_data_rank=None)


@torch.no_grad()
def gathered(model: MaskedLM) -> MaskedLM:
    """The whole model: itself, or a copy on every rank if it is sharded."""
    if not is_sharded(model):
        return model
    first = next(model.parameters())
    copy = MaskedLM(model.config).to(first.device, first.dtype)
    for ours, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        ours.copy_(whole(theirs))
    copy.architecture.fraction = model.architecture.fraction
    return copy.train(model.training)


@torch.no_grad()
def copied(parameters: Iterable[Tensor], source: Iterable[Tensor]) -> None:
    """Weights that are whole into parameters that may be in shards."""
    for ours, theirs in zip(parameters, source, strict=True):
        ours.copy_(like(theirs, ours))


def gathered_state(state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's whole state_dict."""
    own = {number: {name: whole(x) for name, x in entry.items()} for number, entry in state["state"].items()}
    return {**state, "state": own}


def scattered_state(state: dict[str, Any], parameters: list[Tensor]) -> dict[str, Any]:
    """The inverse: a whole state_dict, sharded for the optimiser of these parameters, in its order."""
    own = {
        number: {name: like(x, parameters[number]) if torch.is_tensor(x) else x for name, x in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": own}
