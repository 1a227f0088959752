"""What one training step of a model must hold: weights, gradients, optimiser states, and saved activations."""

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from model import MaskedLM
from training.contestant import Contestant
from training.sharding import is_sharded


def training_memory_bytes(contestant: Contestant) -> int:
    """Bytes, counted: parameters and gradients, optimiser states, and every distinct storage saved for the backward.

    Counted rather than read from the process, because contestants share it. Workspace inside operators is not seen.
    """
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    # Of a sharded one a whole twin: this rank looks alone.
    model = (
        MaskedLM(contestant.model.config).to(contestant.device) if is_sharded(contestant.model) else contestant.model
    )
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with contestant.precision(), saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(contestant.batches.at(0, contestant.model.architecture.masking_at(0.0)).to(contestant.device))
    activations = sum(saved.values())
    del loss
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return 2 * weights + contestant.optimizers.state_bytes() + activations
