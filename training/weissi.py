"""Weight decay that no shift of scale between two matrices can evade (after WEISSI: Liu et al. 2020, arXiv 2008.02965).

In a block some pairs of matrices act as a product alone: the queries and the keys of a head, its values and its part of `out`,
and for each hidden unit of GEGLU its row in the linear half of `enter` and its column in `leave`. Of such a pair (A, B) the
function stays the same when A becomes c A and B becomes B / c. The penalty of L2, (|A|^2 + |B|^2) / 2, does not: it can fall
without any change of the model. What depends on the two norms and stays the same for every c depends on |A| |B| alone, and

    min over c of (|c A|^2 + |B / c|^2) / 2  =  |A| |B|

is what L2 comes to when c is chosen best. The formula is derived from this condition here, not copied from the paper.

Its gradients are (|B| / |A|) A and (|A| / |B|) B. They are applied as weight decay is, apart from the loss and its optimiser: A
is multiplied by 1 - rate * decay * |B| / |A|. Where the two norms are equal that is ordinary decay. Norms are those of weights;
biases are not decayed. What stands in no pair has ordinary decay.

Decoupled weight decay multiplies A B by (1 - rate * decay)^2 whatever c is, so it does not suffer from the shift as L2 in the
loss does. So little can be expected of this penalty; `make weissi` measures it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from model.architectures.base import Architecture
from model.layers import Block, Blocks


@dataclass(frozen=True)
class Pair:
    """Two matrices in `groups` parts that belong together: rows of `first` (G R, A), and rows of `second`, or its columns.

    begin: the row of `first` from which on it is meant.
    """

    first: Tensor
    second: Tensor
    groups: int
    columns: bool
    begin: int = 0

    def parts(self) -> tuple[Tensor, Tensor]:
        """Both as (G, R, A), views into the parameters."""
        first = self.first.detach()[self.begin :].unflatten(0, (self.groups, -1))
        second = self.second.detach()
        return first, (second.mT if self.columns else second).unflatten(0, (self.groups, -1))

    def norms(self) -> tuple[Tensor, Tensor]:
        """(G,) each."""
        first, second = (part.flatten(1).norm(dim=1) for part in self.parts())
        return first, second


def pairs_of(model: nn.Module) -> list[Pair]:
    """Of every block of a model."""
    found = []
    fed = {
        id(block)
        for m in model.modules()
        if isinstance(m, Architecture) and m.keys_have_two_sources
        for block in cast(Blocks, m.blocks)
    }
    for block in model.modules():
        if isinstance(block, Block):
            if id(block) not in fed:
                found.append(Pair(block.query.weight, block.key.weight, block.n_heads, columns=False))
                found.append(Pair(block.value.weight, block.out.weight, block.n_heads, columns=True))
            if (feed := block.feed_forward).gated:
                units = feed.leave.in_features
                found.append(Pair(feed.enter.weight, feed.leave.weight, units, columns=True, begin=units))
    return found


def penalty(model: nn.Module) -> Tensor:
    """The sum of |A| |B| over all pairs."""
    return torch.stack([torch.dot(*pair.norms()) for pair in pairs_of(model)]).sum()


class Weissi:
    """The decay of a model's matrices, `decayed` among which are all that ordinary decay would shrink."""

    def __init__(self, model: nn.Module, decayed: Iterable[nn.Parameter], decay: float) -> None:
        self.pairs, self.decay = pairs_of(model), decay
        paired = {id(p) for pair in self.pairs for p in (pair.first, pair.second)}
        self.others = [p.detach() for p in decayed if id(p) not in paired]
        self.others += [pair.first.detach()[: pair.begin] for pair in self.pairs if pair.begin]  # the gate's rows

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        amount = learning_rate * self.decay
        if not amount:
            return
        if self.others:
            torch._foreach_mul_(self.others, 1 - amount)
        for pair in self.pairs:
            first, second = pair.norms()
            for part, own, other in zip(pair.parts(), (first, second), (second, first)):
                ratio = other / own.clamp(min=torch.finfo(own.dtype).tiny)
                part.mul_((1 - amount * ratio).clamp(min=0)[:, None, None])
