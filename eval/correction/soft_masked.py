"""Soft-masked correction (Zhang et al., ACL 2020, arXiv 2005.07421), of any checkpoint.

    detector    p_i = sigmoid(w [forward_i, backward_i]) of a bidirectional GRU over the embeddings e_i: is token i wrong?
    soft mask   e'_i = p_i e_[MASK] + (1 - p_i) e_i takes the place of the embedding
    corrector   softmax(head(h_i + e_i)) with h_i the model's states over e': the right token
    loss        l (mean of -log p(right token)) + (1 - l) (mean binary cross-entropy of the detector), l = 0.8

Without the soft mask (`soft=False`) it is the model fine-tuned to say the right token: the paper's own baseline.
"""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.options import check_types
from data.tokenizer import Tokenizer
from eval.epochs import best_epoch
from model import MaskedLM
from model.batch import Batch, padded
from training.machine import precision


@dataclass(frozen=True)
class CorrectorRecipe:
    """How a corrector is trained."""

    epochs: int = 3
    """Passes over the training sentences; the result is that of the best epoch on dev."""
    batch_size: int = 32
    """Sentences in a batch."""
    learning_rate: float = 1e-3
    """The peak learning rate, for AdamW."""
    weight: float = 0.8
    """Weight of the corrector's loss; the detector's has the rest."""
    width: int = 64
    """Width of the detector's GRU, in each direction."""

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.epochs, self.batch_size, self.learning_rate, self.width) <= 0 or not 0 < self.weight <= 1:
            raise ValueError("epochs, batch_size, learning_rate and width must be more than 0, and weight in (0, 1].")


class SoftMasked(nn.Module):
    """A model with a detector in front. soft=False: the detector is trained and changes nothing."""

    def __init__(self, model: MaskedLM, width: int, soft: bool) -> None:
        super().__init__()
        self.model, self.soft = model, soft
        self.detector = nn.GRU(model.config.d_embed, width, bidirectional=True, batch_first=True)
        self.wrong = nn.Linear(2 * width, 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The detector's logits (B, N), and states (B, N, D) for the head."""
        embedding = self.model.architecture.embedding
        e = embedding.table(batch.tokens)
        logits = self.wrong(self._read(e, batch))[..., 0]
        residual = embedding(batch.tokens, batch.documents)
        if not self.soft:
            return logits, self.model.encode(batch) + residual
        p = logits.sigmoid()[..., None].to(e.dtype)
        mask = embedding.table.weight[self.model.config.mask_id]
        with in_place_of(embedding.table, batch.tokens, p * mask + (1 - p) * e):
            return logits, self.model.encode(batch) + residual

    def _read(self, e: Tensor, batch: Batch) -> Tensor:
        """(B, N, E) -> (B, N, 2 W). Backwards a row is read from its own end: padding is nothing to either direction."""
        if batch.documents is None:
            return self.detector(e)[0]
        lengths = (batch.documents >= 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(e, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.detector(packed)[0], batch_first=True, total_length=e.shape[1])[0]


@contextmanager
def in_place_of(table: nn.Embedding, tokens: Tensor, rows: Tensor) -> Iterator[None]:
    """Inside, looking up exactly this tensor of tokens gives `rows`; the [MASK]s at which queries start are looked up as
    usual."""
    handle = table.register_forward_hook(lambda module, given, found: rows if given[0] is tokens else found)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class Pair:
    """Tokens of a wrong text and of the right one, as many, BOS and EOS around both."""

    wrong: list[int]
    right: list[int]


def encoded(wrong: Sequence[str], right: Sequence[str], tokenizer: Tokenizer, longest: int) -> tuple[list[Pair], int]:
    """Pairs to train on, and the number of pairs that cannot be used: their token counts differ, or are too large."""
    found = []
    for a, b in zip(tokenizer.encode_batch(list(wrong)), tokenizer.encode_batch(list(right)), strict=True):
        if len(a) == len(b) <= longest - 2:
            bos, eos = tokenizer.bos_id, tokenizer.eos_id
            found.append(Pair([bos, *a, eos], [bos, *b, eos]))
    return found, len(wrong) - len(found)


def trained(
    model: MaskedLM,
    pairs: Sequence[Pair],
    recipe: CorrectorRecipe,
    soft: bool,
    seed: int,
    pad_id: int,
    judge: Callable[[SoftMasked], float],
    *,
    autocast: torch.dtype | None = None,
    progress: Callable[[float, str], None] = lambda share, text: None,
) -> SoftMasked:
    """The corrector of the epoch that `judge` finds best. Raises Diverged."""
    torch.manual_seed(seed)
    chooser, device = random.Random(seed), next(model.parameters()).device
    corrector = SoftMasked(copy.deepcopy(model), recipe.width, soft).to(device)
    optimizer = torch.optim.AdamW(corrector.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].wrong))
    groups = [order[i : i + recipe.batch_size] for i in range(0, len(order), recipe.batch_size)]

    def loss(group: list[int]) -> Tensor:
        batch = padded([pairs[i].wrong for i in group], pad_id).to(device)
        right = padded([pairs[i].right for i in group], pad_id).tokens.to(device)
        with precision(device, autocast):
            return loss_of(corrector, batch, right, recipe.weight)

    best_epoch(
        corrector,
        optimizer,
        lambda: chooser.sample(groups, len(groups)),
        loss,
        lambda: judge(corrector),
        epochs=recipe.epochs,
        steps=recipe.epochs * len(groups),
        learning_rate=recipe.learning_rate,
        progress=progress,
    )
    return corrector.eval()


def loss_of(corrector: SoftMasked, batch: Batch, right: Tensor, weight: float) -> Tensor:
    """right: (B, N) the right tokens. Padding counts for nothing."""
    logits, states = corrector(batch)
    real = torch.ones_like(right, dtype=torch.bool) if batch.documents is None else batch.documents >= 0
    detection = F.binary_cross_entropy_with_logits(logits.float()[real], (batch.tokens != right)[real].float())
    return weight * corrector.model.head.loss(states[real], right[real]) + (1 - weight) * detection


@torch.no_grad()
def proposed(corrector: SoftMasked, texts: Sequence[str], tokenizer: Tokenizer, batch_size: int = 64) -> list[str]:
    """Each text with the tokens that the corrector prefers. Puts it in eval mode.

    A token is replaced only by one that stands for as many characters, so that a text keeps its length; a text that is too long
    for the model is left as it is.
    """
    corrector.eval()
    device, found = next(corrector.parameters()).device, list(texts)
    offsets = [tokenizer.encode_with_offsets(text) for text in texts]
    fits = [i for i in range(len(texts)) if len(offsets[i]) + 2 <= corrector.model.config.max_length]
    order = sorted(fits, key=lambda i: len(offsets[i]))
    for begin in range(0, len(order), batch_size):
        group = order[begin : begin + batch_size]
        rows = [[tokenizer.bos_id, *(t for t, _, _ in offsets[i]), tokenizer.eos_id] for i in group]
        batch = padded(rows, tokenizer.pad_id).to(device)
        _, states = corrector(batch)
        best = (
            corrector.model.head.score(states.flatten(0, 1), batch.tokens.flatten(), 1)
            .indices.view(batch.tokens.shape)
            .tolist()
        )
        for i, row in zip(group, best):
            text = found[i]
            for (token, a, b), new in reversed(list(zip(offsets[i], row[1:]))):
                if new == token or new in tokenizer.special_ids or a == b:
                    continue
                spelt = tokenizer.text_of([new])
                spelt = spelt.removeprefix(" ") if not text[a:b].startswith(" ") else spelt
                if len(spelt) == b - a and "\ufffd" not in spelt:
                    text = text[:a] + spelt + text[b:]
            found[i] = text
    return found
