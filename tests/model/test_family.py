"""What is particular to permuted, bicausal, replaced token detection and value tables."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model.architectures.bicausal import mirror
from model.architectures.permuted import ranked
from model.batch import Batch
from model.chance import uniform
from tests.conftest import VOCAB, random_batch
from tests.model.models import tiny_model


def test_orders_are_of_the_sample_and_cover_a_document() -> None:
    batch = replace(random_batch("packed"), samples=(7, 9))
    rank = ranked(uniform(batch), batch)
    for row, documents in enumerate(batch.documents):
        for document in documents.unique().tolist():
            own = rank[row, documents == document]
            assert sorted(own.tolist()) == list(range(len(own)))
    alone = replace(Batch(batch.tokens[1:], batch.documents[1:]), samples=(9,))
    assert torch.equal(ranked(uniform(alone), alone)[0], rank[1])  # whatever else the batch holds
    again = uniform(replace(Batch(torch.zeros(2000, 16, dtype=torch.int64)), samples=tuple(range(2000))))
    assert abs(float(again.mean()) - 0.5) < 0.01 and float(again.std()) == pytest.approx(12**-0.5, abs=0.01)
    assert len(again.unique()) == again.numel()


def test_a_permuted_position_sees_exactly_the_lower_ranks() -> None:
    model, batch = tiny_model("permuted"), random_batch("whole", rows=1)
    rank = ranked(uniform(batch), batch)[0]
    with torch.no_grad():
        before = model.architecture.predict(batch)[0]
        for other in range(batch.tokens.shape[1]):
            tokens = batch.tokens.clone()
            tokens[:, other] = tokens[:, other] % 50 + 6
            changed = (model.architecture.predict(replace(batch, tokens=tokens))[0] != before).any(-1)
            assert torch.equal(changed, rank > rank[other])


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_rows_read_backwards_have_their_documents_backwards(layout: str) -> None:
    batch = random_batch(layout)
    flipped = Batch(batch.tokens.flip(1), batch.documents.flip(1).contiguous())
    found, expected = mirror(batch.layout), flipped.layout
    assert torch.equal(found.start, expected.start) and torch.equal(found.end, expected.end)


def test_towers_own_losses_fall_to_nothing_at_half_of_the_budget() -> None:
    """f_j predicts the next token of its document, b_j the one before: by hand; then the weight falls."""
    batch = random_batch("packed")
    model = tiny_model("bicausal", options=(("causal", 0.5),)).train()
    own = F.cross_entropy(model.head.logits(model.architecture.predict(batch)).flatten(0, 1), batch.tokens.flatten())
    ahead, back = (
        s[-1] for s in model.architecture.directions(model.architecture.embedding(batch.tokens, batch.documents), batch)
    )
    same = batch.documents[:, 1:] == batch.documents[:, :-1]
    guess = model.architecture.guess
    forward = F.cross_entropy(model.head.logits(guess(ahead[:, :-1][same])), batch.tokens[:, 1:][same])
    backward = F.cross_entropy(model.head.logits(guess(back[:, 1:][same])), batch.tokens[:, :-1][same])
    for fraction, weight in ((0.0, 0.5), (0.25, 0.25), (0.5, 0.0), (1.0, 0.0)):
        model.architecture.fraction = fraction
        torch.testing.assert_close(model.loss(batch), own + weight * 0.5 * (forward + backward), rtol=1e-4, atol=1e-5)


def test_replacements_are_drawn_from_the_generator_at_a_share_of_the_positions() -> None:
    model = tiny_model("rtd", options=(("replaced", 0.25),))
    rows = 400
    batch = Batch(torch.full((rows, 12), 9), None, samples=tuple(range(rows)))
    states = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0)).expand(rows, 12, -1)
    drawn = model.architecture.replacements(states, batch, model.head)
    p = model.head.logits(states[0, 0]).softmax(-1)
    changed = (drawn != batch.tokens).sum(1)
    assert changed.max() <= 3  # round(0.25 x 12) positions, of which some draw the true token
    assert changed.sum().item() / (rows * 3) == pytest.approx(1 - p[9].item(), abs=0.04)
    token = int(p.argmax())
    assert (drawn == token).sum().item() / (rows * 3) == pytest.approx(p[token].item(), abs=0.05)
    few = Batch(batch.tokens[5:7], None, samples=(5, 6))
    assert torch.equal(model.architecture.replacements(states[:2], few, model.head), drawn[5:7])
    padded = random_batch("padded")
    kept = padded.documents < 0
    made = model.architecture.replacements(torch.randn(2, 12, 32), padded, model.head)
    assert torch.equal(made[kept], padded.tokens[kept]) and int(made.max()) < VOCAB


def test_the_discriminator_is_judged_on_every_position() -> None:
    batch = random_batch("packed")
    for weight in (0.0, 2.0):
        model = tiny_model("rtd", options=(("weight", weight),))
        states = model.architecture.predict(batch)
        own = F.cross_entropy(model.head.logits(states).flatten(0, 1), batch.tokens.flatten())
        tokens = model.architecture.replacements(states, batch, model.head)
        judged = model.architecture.judge(model.architecture.discriminate(tokens, batch))[..., 0]
        doubt = F.binary_cross_entropy_with_logits(judged, (tokens != batch.tokens).float())
        torch.testing.assert_close(model.loss(batch), own + weight * doubt, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("generator", ["vanilla", "permuted", "rtd"])
def test_a_generator_must_predict_every_position_at_once(generator: str) -> None:
    with pytest.raises(ValueError, match="must predict every position in one pass"):
        tiny_model("rtd", options=(("generator", generator),))


def test_electra_s_loss_by_hand() -> None:
    """Cross-entropy of the generator at the masked positions, and of the discriminator at all, over what the generator drew."""
    model = tiny_model("electra", options=(("generator_width", 0.5), ("weight", 7.0)))
    batch = random_batch("packed", rows=4)
    masked = (batch.tokens % 3 == 0) & (batch.documents >= 0)
    batch = replace(batch, masked=masked, corrupted=batch.tokens.masked_fill(masked, 3), samples=(0, 1, 2, 3))
    a = model.architecture
    states = a.predict(batch, batch.positions)
    own = F.cross_entropy(model.head.logits(states), batch.tokens[masked])
    tokens = a.replaced_tokens(states, batch, model.head)
    assert torch.equal(tokens[~masked], batch.tokens[~masked]) and (tokens[masked] != batch.tokens[masked]).any()
    p = a.judge(a.discriminate(tokens, batch))[..., 0].sigmoid()
    doubt = -torch.where(tokens != batch.tokens, p, 1 - p).log().mean()
    torch.testing.assert_close(model.loss(batch), own + 7.0 * doubt)
    assert a.generator.blocks[0].query.in_features == 16 and torch.equal(
        a.replaced_tokens(states, batch, model.head), tokens
    )
    assert {id(p) for p in a.embedding.parameters()}.isdisjoint(
        id(p) for p in a.generator.parameters()
    )  # shared, counted once


def test_electra_draws_what_its_generator_predicts() -> None:
    torch.manual_seed(0)
    model = tiny_model("electra")
    batch = random_batch("whole", rows=400, length=12)
    masked = torch.ones_like(batch.tokens, dtype=torch.bool)
    batch = replace(batch, masked=masked, corrupted=batch.tokens.masked_fill(masked, 3), samples=tuple(range(400)))
    states = model.architecture.predict(batch, batch.positions)
    tokens = model.architecture.replaced_tokens(states, batch, model.head).flatten()
    p = model.head.logits(states).softmax(-1)
    for token in range(0, p.shape[1], 7):
        expected, found = float(p[:, token].sum().detach()), int((tokens == token).sum())
        assert abs(found - expected) < 5 * max(1.0, expected) ** 0.5
