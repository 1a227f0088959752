"""Losses for classes of unequal size, after Su Jianlin's essay on class imbalance (2020) and the papers it compares.

Each is made from the classes' counts in the training rows: `LOSSES[name](counts) -> loss(logits (B, C), truth (B,))`. With
p the softmax of the logits, y the true class, n_c the rows of class c and pi_c = n_c / sum n:

    ce               -log p_y
    focal            -(1 - p_y)^2 log p_y                                        Lin et al. 2017, arXiv 1708.02002, eq. 4
    class_balanced   -w_y log p_y, w_c ~ (1 - b) / (1 - b^n_c), b = 0.999, mean 1   Cui et al. 2019, arXiv 1901.05555, eq. 10
    logit_adjusted   -log softmax(z + log pi)_y                                  Menon et al. 2021, arXiv 2007.07314, eq. 10
    accuracy         1 - p_y                                                     Ghosh et al. 2017, arXiv 1712.09482, section 3
    dice             1 - (2 (1 - p_y) p_y + 1) / ((1 - p_y) p_y + 1 + 1)         Li et al. 2020, arXiv 1911.02855, eq. 10
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(counts: Tensor) -> Loss:
    return F.cross_entropy


def focal(counts: Tensor, gamma: float = 2.0) -> Loss:
    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        nll = F.cross_entropy(logits, truth, reduction="none")
        return ((1 - (-nll).exp()) ** gamma * nll).mean()

    return loss


def class_balanced(counts: Tensor, beta: float = 0.999) -> Loss:
    """A class without rows has the weight of a class with one."""
    weights = (1 - beta) / (1 - beta ** counts.clamp(min=1).double())
    weights = (weights / weights.mean()).float()
    return lambda logits, truth: (weights[truth] * F.cross_entropy(logits, truth, reduction="none")).mean()


def logit_adjusted(counts: Tensor) -> Loss:
    """Training learns what the prior does not say; answers are read from the plain logits."""
    prior = (counts.clamp(min=1) / counts.clamp(min=1).sum()).log()
    return lambda logits, truth: F.cross_entropy(logits + prior, truth)


def dice(counts: Tensor, smooth: float = 1.0) -> Loss:
    """Self-adjusting: (1 - p) p in place of p, so that easy rows weigh little."""

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        p = logits.softmax(-1).gather(1, truth[:, None])[:, 0]
        weighed = (1 - p) * p
        return (1 - (2 * weighed + smooth) / (weighed + 1 + smooth)).mean()

    return loss


def smoothed_accuracy(counts: Tensor, power: float = 1.0) -> Loss:
    """(1 - p_y^power) / power (Zhang and Sabuncu 2018, arXiv 1805.07836, eq. 6). With power = 1 it is one minus the share of
    right answers that is expected if answers are drawn from p: the accuracy, made smooth.

    Its gradient is p_y^power times that of cross-entropy, which is the limit for power -> 0. So cross-entropy is the smooth
    accuracy with the gradient of each row divided by p_y: what accuracy gives up, rows whose p_y is small, as those of small
    classes are at first, cross-entropy does not.
    """

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        nll = F.cross_entropy(logits, truth, reduction="none")
        return (-torch.expm1(-power * nll) / power).mean()

    return loss


LOSSES: dict[str, Callable[[Tensor], Loss]] = {
    "ce": cross_entropy,
    "focal": focal,
    "class_balanced": class_balanced,
    "logit_adjusted": logit_adjusted,
    "accuracy": smoothed_accuracy,
    "dice": dice,
}
