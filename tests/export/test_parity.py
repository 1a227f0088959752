"""The exported folder computes what our model computes, in transformers and nothing of ours."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data.tokenizer import Tokenizer
from model.batch import Batch
from tests.export.conftest import KINDS, TWO_STREAM

transformers = pytest.importorskip("transformers")
CLOSE = {"rtol": 1e-5, "atol": 2e-5}  # of logits of size 1 to 10


def loaded(folder: Path, kind: str = "MaskedLM"):
    name = f"AutoModelFor{kind}" if kind else "AutoModel"
    return getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval()


def rows(tokenizer: Tokenizer, side: str = "right") -> tuple[Batch, Tensor]:
    """Three rows, two of them padded, and their attention mask."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, tokenizer.vocab_size, (3, 17), generator=generator)
    documents = torch.zeros(3, 17, dtype=torch.int32)
    for row, length in ((0, 12), (2, 1)):
        documents[row, length:] = -1
    if side == "left":
        documents = documents.flip(1)
    return Batch(tokens.masked_fill(documents < 0, tokenizer.pad_id), documents), (documents >= 0).long()


def ours(model, batch: Batch) -> Tensor:
    """What the model predicts of each position, given the tokens as they stand."""
    return model.head.logits(model.architecture.predict(replace(batch, corrupted=batch.tokens)))


@torch.no_grad()
@pytest.mark.parametrize("side", ("right", "left"))
@pytest.mark.parametrize("kind", KINDS)
def test_logits_states_and_scores_are_ours(kind: str, side: str, exported, tokenizer: Tokenizer) -> None:
    if side == "left" and kind == "vanilla-bert":
        pytest.skip("transformers' BERT counts positions from the padding")
    """To rounding in float32, and to ten digits in float64."""
    single, folder = exported(kind)
    batch, mask = rows(tokenizer, side)
    real = mask.bool()
    given = {"input_ids": batch.tokens, "attention_mask": mask}
    for model, theirs, base, digits in (
        (single, loaded(folder), loaded(folder, ""), 5),
        (copy.deepcopy(single).double(), loaded(folder).double(), loaded(folder, "").double(), 10),
    ):
        expected = ours(model, batch)[real]
        assert expected.std() > 0.5
        close = {"rtol": 0.0, "atol": 10.0**-digits * float(expected.abs().max())}
        torch.testing.assert_close(theirs(**given).logits[real], expected, **close)
        states = model.head.norm_in(model.encode(batch))[real]
        torch.testing.assert_close(base(**given).last_hidden_state[real], states, **close)
        if kind != "vanilla-bert" and digits == 5:
            scores = theirs.pseudo_log_likelihood(**given)
            torch.testing.assert_close(scores, model.pseudo_log_likelihood(batch).log_probs, **close)


@torch.no_grad()
@pytest.mark.parametrize("kind", TWO_STREAM)
def test_adjacent_masks_are_a_hidden_stretch(kind: str, exported, tokenizer: Tokenizer) -> None:
    model, folder = exported(kind)
    batch, mask = rows(tokenizer)
    position = torch.arange(17).expand(3, -1)
    inside = (position >= 4) & (position < 7)
    hidden = batch.hiding(torch.where(inside, 4, position), torch.where(inside, 6, position))
    states, _ = model.architecture.leave_one_out(hidden, position[:, 4:7])
    expected = model.head.logits(states)[:2]  # the third row is padding there
    masked = batch.tokens.masked_fill(inside & mask.bool(), tokenizer.mask_id)
    found = loaded(folder)(input_ids=masked, attention_mask=mask).logits[:2, 4:7]
    torch.testing.assert_close(found, expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("kind", TWO_STREAM)
def test_one_mask_changes_nothing_at_its_position(kind: str, exported, tokenizer: Tokenizer) -> None:
    _, folder = exported(kind)
    model, (batch, mask) = loaded(folder), rows(tokenizer)
    plain = model(input_ids=batch.tokens, attention_mask=mask).logits
    for i in (0, 5, 11):
        masked = batch.tokens.index_fill(1, torch.tensor(i), tokenizer.mask_id)
        torch.testing.assert_close(model(input_ids=masked, attention_mask=mask).logits[:2, i], plain[:2, i])


@torch.no_grad()
@pytest.mark.parametrize("see_self", (True, False))
@pytest.mark.parametrize("kind", TWO_STREAM)
def test_a_mask_gives_nothing_to_other_positions(kind: str, see_self: bool, exported, tokenizer: Tokenizer) -> None:
    """The rows' content at [MASK]s may be anything: no state anywhere else changes, and a leak is seen."""
    _, folder = exported(kind)
    model, (batch, mask) = loaded(folder, ""), rows(tokenizer)
    at = torch.zeros_like(batch.tokens, dtype=torch.bool)
    at[:, [3, 4, 9]] = True
    tokens, valid = batch.tokens.masked_fill(at, tokenizer.mask_id), mask.bool()
    content = model.embedding(tokens, valid)
    other = torch.where(at[..., None], torch.randn_like(content), content)
    one = model.query_stream(tokens, content, valid, see_self)[-1]
    two = model.query_stream(tokens, other, valid, see_self)[-1]
    assert torch.equal(one[valid], two[valid])
    ordinary = batch.tokens.clamp_min(5)
    assert not torch.equal(*(model.query_stream(ordinary, c, valid, see_self)[-1] for c in (content, other)))


@pytest.mark.parametrize("kind", ("local", "tta", "vanilla"))
def test_gradients_reach_every_weight_and_saving_keeps_them(
    kind: str, exported, tokenizer: Tokenizer, tmp_path
) -> None:
    _, folder = exported(kind)
    model, (batch, mask) = loaded(folder), rows(tokenizer)
    labels = batch.tokens.masked_fill(mask == 0, -100)
    loss = model(input_ids=batch.tokens, attention_mask=mask, labels=labels).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.decoder.weight is model.model.embedding.table.weight
    model.save_pretrained(tmp_path / "again")
    again = loaded(tmp_path / "again")
    given = {"input_ids": batch.tokens, "attention_mask": mask}
    assert torch.equal(again(**given).logits, model(**given).logits)


def test_a_classifier_keeps_the_pretrained_weights_and_learns(exported, tokenizer: Tokenizer) -> None:
    model, folder = exported("local")
    theirs = loaded(folder, "SequenceClassification")
    expected = model.architecture.embedding.table.weight
    assert torch.equal(theirs.model.embedding.table.weight, expected) and theirs.classifier.weight.std() > 0
    batch, mask = rows(tokenizer)
    given = {"input_ids": batch.tokens, "attention_mask": mask, "labels": torch.tensor([0, 1, 1])}
    optimizer = torch.optim.AdamW(theirs.train().parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        losses.append(theirs(**given).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


CLEAN = """
import json, sys, torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, AutoProcessor, pipeline
folder = sys.argv[1]
assert not any(name in sys.modules for name in ("model", "kernels", "export"))
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True).eval()
batch = tokenizer(["one budget", "a model of two streams"], return_tensors="pt", padding=True)
with torch.no_grad():
    logits = model(**batch).logits
fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=3)
one = fill("the [MASK] of a model")
three = fill("[MASK] of a [MASK] [MASK]")
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True, padding_side="right")
found = processor("one budget", return_offsets_mapping=True)
print(json.dumps({"ids": batch["input_ids"].tolist(), "names": sorted(batch), "logits": logits.sum(-1).tolist(),
                  "one": [o["token"] for o in one], "three": [len(t) for t in three],
                  "offsets": found["offset_mapping"], "hidden": model.config.hidden_size}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("local", pytest.param("vanilla-bert", marks=pytest.mark.slow)))
def test_a_clean_process_elsewhere_reads_the_folder(kind: str, exported, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, folder = exported(kind)
    surroundings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ""}
    surroundings["HF_MODULES_CACHE"] = str(tmp_path / "modules")
    done = subprocess.run(
        [sys.executable, "-c", CLEAN, str(folder)],
        cwd=tmp_path, env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    texts = ["one budget", "a model of two streams"]
    expected = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    lengths = [len(ids) for ids in expected]
    assert [row[:n] for row, n in zip(found["ids"], lengths)] == expected
    assert found["names"] == ["attention_mask", "input_ids"] and found["hidden"] == 32
    assert len(found["one"]) == 3 and found["three"] == [3, 3, 3]
    for ids, sums in zip(expected, found["logits"]):
        logits = ours(model, Batch(torch.tensor([ids])))[0]
        torch.testing.assert_close(torch.tensor(sums[: len(ids)]), logits.sum(-1), rtol=1e-4, atol=1e-3)


def test_minicons_way_of_scoring_is_leave_one_out(exported, tokenizer: Tokenizer) -> None:
    """N masked copies through the exported model, as minicons and the BabyLM pipelines score, give our one-pass numbers."""
    model, folder = exported("local")
    theirs = loaded(folder)
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode("a model of two streams"), tokenizer.eos_id]])
    n = ids.shape[1]
    copies = ids.expand(n, -1).clone()
    copies[torch.arange(n), torch.arange(n)] = tokenizer.mask_id
    with torch.no_grad():
        log_p = theirs(copies).logits[torch.arange(n), torch.arange(n)].log_softmax(-1)
    found = log_p.gather(1, ids[0][:, None])[:, 0]
    torch.testing.assert_close(found, model.pseudo_log_likelihood(Batch(ids)).log_probs[0], **CLOSE)
