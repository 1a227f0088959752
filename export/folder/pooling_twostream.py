"""What sentence-transformers reads: a text is the mean of its tokens' states, special tokens left out."""

import torch
from sentence_transformers.models import Module
from torch import Tensor


class MeanOfTokens(Module):
    """special_ids: tokens that do not count. A text that has no others is the mean of all its tokens."""

    config_keys = ["special_ids", "width"]  # noqa: RUF012, as the library wants it

    def __init__(self, special_ids: list[int], width: int):
        super().__init__()
        self.special_ids, self.width = list(special_ids), width

    def forward(self, features: dict[str, Tensor], **kwargs) -> dict[str, Tensor]:
        states, tokens = features["token_embeddings"], features["input_ids"]
        real = features["attention_mask"].bool()
        special = torch.isin(tokens, torch.tensor(self.special_ids, device=tokens.device))
        words = real & ~special
        weights = torch.where(words.any(1, keepdim=True), words, real).to(states.dtype)[..., None]
        features["sentence_embedding"] = (states * weights).sum(1) / weights.sum(1)
        return features

    def get_sentence_embedding_dimension(self) -> int:
        return self.width

    get_embedding_dimension = get_sentence_embedding_dimension

    def save(self, output_path: str, *args, **kwargs) -> None:
        self.save_config(output_path)
