"""What one training step of a model must hold: weights, gradients, optimiser states, and saved activations."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from model import MaskedLM
from model.batch import Batch
from training.contestant import Contestant
from training.sharding import is_sharded


def training_memory_bytes(contestant: Contestant) -> int:
    """Bytes, counted: parameters and gradients, optimiser states, and every distinct storage saved for the backward.

    Counted rather than read from the process, because contestants share it. Workspace inside operators is not seen.
    """
    model = contestant.model
    if is_sharded(model):  # a copy that is not sharded: this rank measures alone
        model = MaskedLM(model.config).to(contestant.device)
    batch = contestant.batches.at(0, model.architecture.masking_at(0.0)).to(contestant.device)
    with contestant.precision():
        activations = activation_bytes(model, batch)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return 2 * weights + contestant.optimizers.state_bytes() + activations


def activation_bytes(model: MaskedLM, batch: Batch) -> int:
    """Every distinct storage that the backward pass of `batch` keeps, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(batch)
    found = sum(kept.values())
    del loss  # which held them, so that no other took the address of one
    return found


def some_batch(model: MaskedLM, rows: int, length: int) -> Batch:
    """Random tokens; hidden words, and as many masked positions in each row, as the model is trained with."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, model.config.vocab_size, (rows, length), generator=draw)
    batch, masking = Batch(tokens, samples=tuple(range(rows))), model.architecture.masking
    if model.architecture.hiding:  # words of two tokens, all of them hidden
        first = (torch.arange(length) // 2 * 2).expand(rows, -1)
        batch = batch.hiding(first, (first + 1).clamp_max(length - 1))
    if masking is None:
        return batch
    masked = torch.zeros(rows, length, dtype=torch.bool)
    masked[:, : max(1, round(masking.rate * length))] = True
    return replace(batch, corrupted=tokens.masked_fill(masked, model.config.mask_id), masked=masked)
