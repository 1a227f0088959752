"""Ids of the special tokens, for code that needs nothing else of a tokenizer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """What batches need to know of a tokenizer; it travels in the header of the shards."""

    size: int
    pad_id: int
    bos_id: int
    eos_id: int
    mask_id: int
    unk_id: int

    @property
    def special_ids(self) -> tuple[int, ...]:
        return (self.pad_id, self.bos_id, self.eos_id, self.mask_id, self.unk_id)
