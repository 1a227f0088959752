import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kernels.dispatch import use_backend
from model import MaskedLM
from model.architectures import REGISTRY
from model.batch import Batch
from model.config import minimum_entropy_width
from model.layers import dropout_by_sample
from model.rotary import rotary_table
from tests.conftest import MASK, VOCAB, random_batch
from tests.model.models import tiny_config, tiny_model
from tests.model.test_no_leak import masked_batch


@pytest.mark.parametrize("layout", ["whole", "padded", "packed"])
@pytest.mark.parametrize(
    "architecture", [name for name in REGISTRY if name not in ("rtd", "electra")]
)  # its loss is of two parts
def test_loss_is_the_mean_cross_entropy_of_predicted_positions(architecture: str, layout: str) -> None:
    model, batch = tiny_model(architecture), masked_batch(random_batch(layout))
    if model.architecture.masking is not None:
        positions = batch.masked
    else:
        positions = torch.ones_like(batch.masked) if batch.documents is None else batch.documents >= 0
        batch = replace(batch, corrupted=None, masked=None)
    logits = model.head.logits(model.architecture.predict(batch))
    expected = F.cross_entropy(logits[positions], batch.tokens[positions])
    torch.testing.assert_close(model.loss(batch), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", REGISTRY)
def test_gradients_agree_with_the_reference(architecture: str) -> None:
    batch = masked_batch(random_batch("packed"))
    gradients = {}
    for backend in ("torch", "reference"):
        model = tiny_model(architecture)
        with use_backend(backend):
            model.loss(batch).backward()
        gradients[backend] = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None for g in gradients["torch"].values())
    for name, gradient in gradients["torch"].items():
        atol = 1e-5 if architecture not in ("rtd", "electra") else 5e-4  # its discriminator's loss weighs 50
        torch.testing.assert_close(gradient, gradients["reference"][name], rtol=1e-3, atol=atol)


@pytest.mark.parametrize("layout", ["whole", "padded", "packed"])
@pytest.mark.parametrize("architecture", ["vanilla", "tta"])
def test_pseudo_log_likelihood_by_hand(architecture: str, layout: str) -> None:
    """log p of each token, its own position masked (vanilla) or unseen (two-stream), one at a time."""
    model, batch = tiny_model(architecture), random_batch(layout)
    scored = model.pseudo_log_likelihood(batch)
    assert scored.passes == (1 if architecture == "tta" else batch.tokens.shape[1])
    for row, position in torch.ones_like(batch.tokens).nonzero().tolist():
        if batch.documents is not None and batch.documents[row, position] < 0:
            assert scored.log_probs[row, position] == 0
            continue
        tokens = batch.tokens.clone()
        tokens[row, position] = MASK  # tta does not see it either way
        hidden = model.architecture.predict(replace(batch, tokens=tokens, corrupted=tokens))[row, position]
        expected = model.head.logits(hidden).log_softmax(-1)[batch.tokens[row, position]]
        torch.testing.assert_close(scored.log_probs[row, position], expected, rtol=1e-4, atol=1e-5)


def test_leave_one_out_returns_the_likeliest_tokens() -> None:
    model, batch = tiny_model("tta"), random_batch("whole")
    positions = torch.tensor([[2, 7, 9], [0, 4, 11]])
    scored = model.leave_one_out(batch, positions, k=4)
    logits = model.head.logits(model.architecture.predict(batch))
    values, tokens = logits.log_softmax(-1).topk(4)
    index = positions[..., None].expand(-1, -1, 4)
    torch.testing.assert_close(scored.log_probabilities, values.gather(1, index), rtol=1e-5, atol=1e-5)
    assert torch.equal(scored.top, tokens.gather(1, index))


@pytest.mark.parametrize("architecture", REGISTRY)
def test_calling_the_model_gives_its_loss(architecture: str) -> None:
    """DDP and FSDP see calls of the module only."""
    model, batch = tiny_model(architecture), masked_batch(random_batch("packed"))
    assert torch.equal(model(batch), model.loss(batch))


def test_scoring_in_inference_mode_leaves_training_possible() -> None:
    rotary_table.cache_clear()
    for architecture in REGISTRY:
        model, batch = tiny_model(architecture), masked_batch(random_batch("packed"))
        with torch.inference_mode():
            model.pseudo_log_likelihood(batch)
        model.train()(batch).backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("architecture", REGISTRY)
def test_dropout_is_drawn_by_sample(architecture: str) -> None:
    """A step of four rows is the mean of two of two rows, dropout included."""
    model = tiny_model(architecture, dropout=0.3).train()
    batch = replace(masked_batch(random_batch("whole", rows=4)), samples=(8, 9, 10, 11))
    halves = [
        replace(batch, **{n: getattr(batch, n)[rows] for n in ("tokens", "corrupted", "masked")}, samples=samples)
        for rows, samples in ((slice(0, 2), (8, 9)), (slice(2, 4), (10, 11)))
    ]

    def loss(b: Batch) -> torch.Tensor:
        with dropout_by_sample(3, b.samples, torch.device("cpu")):
            return model(b)

    torch.testing.assert_close(loss(batch), (loss(halves[0]) + loss(halves[1])) / 2, rtol=1e-5, atol=1e-6)
    assert not torch.equal(loss(batch), loss(replace(batch, samples=(0, 1, 2, 3))))


def test_input_and_output_share_their_table() -> None:
    model = tiny_model("tta")
    assert model.head.table.weight is model.architecture.embedding.table.weight


@torch.no_grad()
@pytest.mark.parametrize("d_embed", [32, 16])
def test_the_direct_head_names_the_token_whose_embedding_it_is_given(d_embed: int) -> None:
    """With all norms as they start, and the way down undoing the way up. BERT's head names hardly any."""
    torch.manual_seed(0)
    model = MaskedLM(tiny_config("tta", d_embed=d_embed)).eval()
    embedding, head = model.architecture.embedding, model.head
    if d_embed == 32:
        assert head.dense is None
    else:
        torch.nn.init.orthogonal_(embedding.widen.weight)
        head.dense.weight.copy_(embedding.widen.weight.T)
    embedding.table.weight.copy_(F.normalize(embedding.table.weight, dim=-1))  # no row wins by its length
    tokens = torch.arange(VOCAB)
    named = torch.cat([head.logits(embedding(part[None]))[0] for part in tokens.split(16)]).argmax(-1)
    assert (named == tokens).float().mean() > 0.95


def test_first_loss_is_that_of_a_uniform_guess() -> None:
    model = tiny_model("tta", initializer_std=0.02)
    with torch.no_grad():
        model.head.bias.zero_()
        model.head.norm_out.weight.fill_(1.0)
    assert model.loss(random_batch("whole", rows=32)).item() == pytest.approx(math.log(VOCAB), abs=0.1)


def test_the_embedding_is_as_wide_as_the_vocabulary_needs() -> None:
    assert [minimum_entropy_width(v) for v in (4096, 8192, 21128)] == [80, 80, 96]  # 8.33 ln V is 69.3, 75.1, 83.0
    assert tiny_model("tta", d_embed="auto").config.d_embed == 32  # no wider than the model
    assert tiny_model("tta", d_model=64, d_embed="auto").config.d_embed == 48  # 8.33 ln 64 = 34.6
