"""Masked models of transformers in our evaluation: `hf:PATH` or `hf:NAME` in place of a checkpoint.

Any `AutoModelForMaskedLM` with a fast tokenizer. Predicting a position takes a copy of the sentence with [MASK] there, as for
vanilla; words are its tokenizer's own (`word_ids`); fine-tuning and similarity read its last states. The two classes here have
the methods that `eval/` calls on a model and on a tokenizer.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from data.extras import needs
from data.vocabulary import Vocabulary
from kernels.linear_cross_entropy import TopK
from model import MaskedLM
from model.architectures.base import a_copy_for_each
from model.batch import Batch

PREFIX = "hf:"
SPACES = ("Ġ", "▁")  # how pieces say that a space stands before them


@dataclass(frozen=True)
class ForeignConfig:
    """What evaluation reads of a model's configuration."""

    name: str
    vocab_size: int
    mask_id: int
    d_model: int
    n_layers: int
    max_length: int
    initializer_std: float = 0.02
    positions: str = "learned"


class ForeignTokenizer:
    """A fast tokenizer of transformers, as ours is used. Raises ValueError for one that lacks what a masked model needs."""

    def __init__(self, theirs: Any, name: str) -> None:
        self.theirs, self.name = theirs, name
        if not getattr(theirs, "is_fast", False):
            raise ValueError(f"{name}: its tokenizer is not a fast one, which tells where tokens stand in a text.")
        ids = {
            "[MASK]": theirs.mask_token_id,
            "[PAD]": theirs.pad_token_id,
            "a token at the beginning": theirs.cls_token_id if theirs.cls_token_id is not None else theirs.bos_token_id,
            "a token at the end": theirs.sep_token_id if theirs.sep_token_id is not None else theirs.eos_token_id,
        }
        if missing := [kind for kind, number in ids.items() if number is None]:
            raise ValueError(f"{name}: its tokenizer lacks {', '.join(missing)}; expected a masked language model's.")
        self.mask_id, self.pad_id, self.bos_id, self.eos_id = ids.values()
        self.unk_id = -1 if theirs.unk_token_id is None else theirs.unk_token_id
        self.special_ids = tuple(sorted({*theirs.all_special_ids, *ids.values()} - {self.unk_id}))
        self.vocab_size = len(theirs)
        self.vocabulary = Vocabulary(
            self.vocab_size, self.pad_id, self.bos_id, self.eos_id, self.mask_id, max(0, self.unk_id)
        )

    def encode(self, text: str) -> list[int]:
        return self._encoded([text])["input_ids"][0]

    def encode_batch(self, texts: list[str], threads: int = 1) -> list[list[int]]:
        return self._encoded(texts)["input_ids"] if texts else []

    encode_inside = encode

    def encode_after_space(self, text: str) -> list[int]:
        return self.encode(" " + text)

    def _encoded(self, texts: list[str], **options: Any) -> Any:
        return self.theirs(
            texts, add_special_tokens=False, return_attention_mask=False, truncation=False, verbose=False, **options
        )

    def starts_of(self, texts: list[str]) -> list[np.ndarray]:
        """Of each text's tokens which begin a word: those of another `word_id` than the token before."""
        found = self._encoded(texts)
        starts = []
        for row in range(len(texts)):
            words = found.word_ids(row)
            starts.append(np.array([i == 0 or w is None or w != words[i - 1] for i, w in enumerate(words)], dtype=bool))
        return starts

    def encode_with_offsets(self, text: str) -> list[tuple[int, int, int]]:
        """(id, begin, end) of each token; a piece that says that a space stands before it has this space."""
        found = self._encoded([text], return_offsets_mapping=True)
        triples = []
        for number, (begin, end) in zip(found["input_ids"][0], found["offset_mapping"][0]):
            spaced = self.pieces([number])[0].startswith(SPACES) and begin > 0 and text[begin - 1] == " "
            triples.append((number, begin - spaced, end))
        return triples

    def decode(self, ids: Iterable[int]) -> str:
        return self.theirs.decode([int(i) for i in ids], skip_special_tokens=True)

    def text_of(self, ids: list[int]) -> str:
        """The text of `ids` inside a sentence. Empty for a piece that only continues a word, since it is not a text by
        itself."""
        pieces = self.pieces(ids)
        if pieces and pieces[0].startswith("##"):
            return ""
        text = self.decode(ids).lstrip()
        return " " + text if pieces and pieces[0].startswith(SPACES) else text

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return self.theirs.convert_ids_to_tokens([int(i) for i in ids])

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(self.theirs.backend_tokenizer.to_str().encode()).hexdigest()


class ForeignArchitecture(nn.Module):
    """Its states are logits already: what comes after is in `ForeignHead`, which adds nothing."""

    without_self, passes_each = False, True

    def __init__(self, theirs: Any, mask_id: int) -> None:
        super().__init__()
        self.theirs: Any = theirs
        self.mask_id = mask_id

    @property
    def base(self) -> Any:
        return self.theirs.base_model

    def hidden_states(self, batch: Batch) -> Sequence[Tensor]:
        """The embeddings, and the states after each layer."""
        return self.base(**self._given(batch), output_hidden_states=True).hidden_states

    def encode(self, batch: Batch, *, with_self: bool = True) -> Tensor:
        if not with_self:
            raise ValueError("a masked model has no states without self for a whole sentence; use with_self=True.")
        return self.base(**self._given(batch)).last_hidden_state

    def leave_one_out(self, batch: Batch, positions: Tensor) -> tuple[Tensor, int]:
        """Logits (B, P, V) of `positions`, from a copy of the sentence for each, in which it and its span are masked."""
        found = []
        for copies in a_copy_for_each(batch, positions):
            tokens = copies.batch.tokens.masked_fill(copies.hidden, self.mask_id)
            found.append(self._logits(replace(copies.batch, tokens=tokens), copies.position))
        return torch.cat(found).view(*positions.shape, -1), positions.shape[1]

    def _logits(self, batch: Batch, position: Tensor) -> Tensor:
        """(C, V): of one position of each row. The table is multiplied with these states alone, where it can be told apart."""
        rows, decoder = torch.arange(len(position), device=position.device), self.theirs.get_output_embeddings()
        if not isinstance(decoder, nn.Linear):
            return self.theirs(**self._given(batch)).logits[rows, position]
        handle = decoder.register_forward_pre_hook(lambda module, inputs: (inputs[0][rows, position][:, None],))
        try:
            return self.theirs(**self._given(batch)).logits[:, 0]
        finally:
            handle.remove()

    def _given(self, batch: Batch) -> dict[str, Tensor]:
        mask = torch.ones_like(batch.tokens) if batch.documents is None else (batch.documents >= 0).long()
        return {"input_ids": batch.tokens, "attention_mask": mask}


class ForeignHead(nn.Module):
    """A head for states that are logits already."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_in = nn.Identity()

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def score(self, hidden: Tensor, targets: Tensor, k: int = 1) -> TopK:
        hidden = hidden.float()
        lse = hidden.logsumexp(-1)
        top = hidden.topk(k, dim=-1)
        nll = lse - hidden.gather(1, targets[:, None])[:, 0]
        return TopK(nll, lse, top.indices, top.values - lse[:, None])


class ForeignLM(MaskedLM):
    """A masked model of transformers with the methods of ours that evaluation calls."""

    def __init__(self, theirs: Any, tokenizer: ForeignTokenizer, name: str) -> None:
        nn.Module.__init__(self)
        c = theirs.config
        self.architecture = cast(Any, ForeignArchitecture(theirs, tokenizer.mask_id))
        self.head = cast(Any, ForeignHead())
        self.config: Any = ForeignConfig(
            name=name,
            vocab_size=c.vocab_size,
            mask_id=tokenizer.mask_id,
            d_model=c.hidden_size,
            n_layers=c.num_hidden_layers,
            max_length=longest(theirs, tokenizer),
            initializer_std=getattr(c, "initializer_range", 0.02),
        )

    def layer(self, batch: Batch, number: int, *, with_self: bool = True) -> Tensor:
        architecture: Any = self.architecture
        return architecture.hidden_states(batch)[number]


def longest(theirs: Any, tokenizer: ForeignTokenizer) -> int:
    """The most tokens that it can read: its positions, without those that RoBERTa reserves for padding."""
    count = getattr(theirs.config, "max_position_embeddings", 512)
    for name, module in theirs.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None:
            count = module.num_embeddings - module.padding_idx - 1
    return min(count, tokenizer.theirs.model_max_length)


def open_foreign(name: str) -> tuple[ForeignLM, ForeignTokenizer]:
    """`hf:...`: a folder, or a name on the hub. Raises ValueError if it is not a masked model."""
    needs("transformers", name)
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    where = name.removeprefix(PREFIX)
    logging.disable_progress_bar()
    try:
        tokenizer = ForeignTokenizer(AutoTokenizer.from_pretrained(where, trust_remote_code=True), name)
        theirs = AutoModelForMaskedLM.from_pretrained(where, trust_remote_code=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{name}: not a masked model that transformers reads ({reason})") from error
    if tokenizer.vocab_size > theirs.config.vocab_size:
        raise ValueError(
            f"{name}: the tokenizer has {tokenizer.vocab_size:,} tokens and the model {theirs.config.vocab_size:,}; give the one "
            "that it was trained with."
        )
    return ForeignLM(theirs.eval(), tokenizer, name), tokenizer
