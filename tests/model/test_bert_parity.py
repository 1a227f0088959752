"""Our vanilla in the `bert` preset is BERT: the same logits as transformers' BertForMaskedLM with the same weights."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from model import MaskedLM
from model.batch import Batch
from tests.conftest import VOCAB, random_batch
from tests.model.models import tiny_model

ENDS = {"query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value"}
ENDS |= {"out": "attention.output.dense", "norm_attention": "attention.output.LayerNorm"}
ENDS |= {"feed_forward.enter": "intermediate.dense", "feed_forward.leave": "output.dense"}
ENDS |= {"norm_feed_forward": "output.LayerNorm"}


@pytest.fixture(scope="module")
def pair() -> tuple[MaskedLM, BertForMaskedLM]:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    theirs = BertForMaskedLM(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn_like(p))
    ours = tiny_model("vanilla", "bert", norm_epsilon=config.layer_norm_eps)
    embeddings, head = theirs.bert.embeddings, theirs.cls.predictions
    state = {
        "architecture.embedding.table.weight": embeddings.word_embeddings.weight,
        # Token type 0 is added everywhere, so it belongs to the positions.
        "architecture.embedding.positions.weight": embeddings.position_embeddings.weight
        + embeddings.token_type_embeddings.weight[0],
        "head.table.weight": embeddings.word_embeddings.weight,
        "head.bias": head.bias,
    }
    pairs = {"architecture.embedding.norm": embeddings.LayerNorm, "head.dense": head.transform.dense}
    pairs["head.norm_out"] = head.transform.LayerNorm
    for i, layer in enumerate(theirs.bert.encoder.layer):
        pairs |= {f"architecture.blocks.{i}.{a}": layer.get_submodule(b) for a, b in ENDS.items()}
    for name, module in pairs.items():
        state |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
    ours.load_state_dict(state)  # strict: every weight of ours has its counterpart
    return ours, theirs


def logits(model: MaskedLM, batch: Batch) -> torch.Tensor:
    return model.head.logits(model.encode(batch))


@torch.no_grad()
def test_logits_equal_those_of_transformers(pair: tuple[MaskedLM, BertForMaskedLM]) -> None:
    ours, theirs = pair
    batch = random_batch("whole", rows=3, length=20)
    expected = theirs(input_ids=batch.tokens).logits
    assert expected.std() > 0.5  # a model that says something
    torch.testing.assert_close(logits(ours, batch), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_logits_equal_under_padding(pair: tuple[MaskedLM, BertForMaskedLM]) -> None:
    ours, theirs = pair
    batch = random_batch("padded", rows=2, length=20)
    real = batch.documents >= 0
    expected = theirs(input_ids=batch.tokens, attention_mask=real.long()).logits
    torch.testing.assert_close(logits(ours, batch)[real], expected[real], rtol=1e-5, atol=1e-5)
