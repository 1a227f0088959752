"""Few-shot: patterns, words of several tokens, the tasks' files; what is learned from a few rows."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.tokenizer import Tokenizer
from eval.fewshot.cloze import Question, all_scores, fill, label_scores
from eval.fewshot.methods import FewShotRecipe, prior_of, run_method, surest
from eval.fewshot.tasks import FEWCLUE, TASKS, FewShotData, FewShotTask, read
from kernels.attention import spans_of
from model.architectures import REGISTRY
from model.batch import padded
from tests.model.models import tiny_model


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


QUESTION = Question({"a": "the barid sees", "b": "the denot"}, ("slowly", "barid denot"), 1)


def test_a_pattern_is_filled_and_the_longest_field_is_cut(tokenizer: Tokenizer) -> None:
    cloze = fill(QUESTION, "{a} {slot}, {b}", tokenizer, 64)
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    assert cloze.before == [bos, *tokenizer.encode("the barid sees")]
    assert cloze.words[0] == tuple(tokenizer.encode("slowly"))  # the space before the slot is the word's
    assert tokenizer.decode(cloze.after) == ", the denot" and cloze.after[-1] == eos
    longest = len(cloze.before) + len(cloze.after) + max(map(len, cloze.words))
    shorter = fill(QUESTION, "{a} {slot}, {b}", tokenizer, longest - 2)
    assert shorter.before == cloze.before[:-2] and shorter.after == cloze.after
    inside = fill(QUESTION, "({slot}) {a}", tokenizer, 64)
    assert inside.words[0] == tuple(tokenizer.encode_inside("slowly"))
    assert not tokenizer.pieces(inside.words[0])[0].startswith("▁")
    with pytest.raises(ValueError, match="has 0 slots"):
        fill(QUESTION, "{a}", tokenizer, 64)
    with pytest.raises(ValueError, match="asks for {c}; there are a, b"):
        fill(QUESTION, "{c} {slot}", tokenizer, 64)


@pytest.mark.parametrize("architecture", REGISTRY)
def test_a_label_s_score_is_its_word_s_mean_without_the_slot(architecture: str, tokenizer: Tokenizer) -> None:
    """Each token of the word from all but the slot; batching and padding change nothing; gradients flow."""
    model = tiny_model(architecture, vocab_size=tokenizer.vocab_size).eval()
    clozes = [fill(QUESTION, "{a} {slot}.", tokenizer, 64), fill(QUESTION, "{slot} {a}, {b} {a}", tokenizer, 64)]
    found = label_scores(model, tokenizer, clozes)
    for cloze, scores in zip(clozes, found):
        for word, score in zip(cloze.words, scores):
            k, first = len(word), len(cloze.before)
            batch = padded([[*cloze.before, *[tokenizer.mask_id] * k, *cloze.after]], tokenizer.pad_id)
            n = batch.tokens.shape[1]
            begin, end = torch.arange(n), torch.arange(n)
            begin[first : first + k], end[first : first + k] = first, first + k - 1
            positions = torch.arange(first, first + k)[None]
            batch = replace(batch, spans=spans_of(begin[None], end[None]))
            log_p = model.head.logits(model.architecture.leave_one_out(batch, positions)[0]).log_softmax(-1)[0]
            expected = sum(float(log_p[i, t].detach()) for i, t in enumerate(word)) / k
            assert float(score.detach()) == pytest.approx(expected, abs=1e-4)
    found.sum().backward()
    assert model.head.table.weight.grad.abs().sum() > 0
    torch.testing.assert_close(all_scores(model, tokenizer, clozes), found.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["tta", "vanilla"])
def test_pet_learns_from_a_few_rows(architecture: str, tokenizer: Tokenizer) -> None:
    """Which noun sees? Its number decides the word."""
    draw = random.Random(0)

    def questions(count: int) -> list[Question]:
        labels = [draw.randint(0, 1) for _ in range(count)]
        return [Question({"s": f"the {('barid', 'denots')[y]} sees the folum"}, ("twice", "often"), y) for y in labels]

    task = FewShotTask("t", ("{s} {slot}", "{slot}, {s}"), {}, lambda row: row)
    data = FewShotData(
        questions(16), questions(16), questions(40), [Question(q.fields, q.words, None) for q in questions(30)]
    )
    model = tiny_model(architecture, vocab_size=tokenizer.vocab_size, initializer_std=0.05)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = FewShotRecipe(epochs=25, learning_rate=3e-3, pseudo=1)
    found = {m: run_method(m, model, tokenizer, task, data, recipe, 0, None) for m in ("zero", "linear", "pet", "ipet")}
    assert found["pet"] > 90 and found["ipet"] > 90 and found["linear"] > 90 and 0 <= found["zero"] <= 100
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_surest_rows_are_taken_for_every_label() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.99, 0.01], [0.45, 0.55]])
    assert sorted(surest(probabilities, 2)) == [2, 3]
    scores = torch.tensor([[1.0, 5.0], [3.0, 5.0]]).log_softmax(-1)
    scores = scores - prior_of(scores)
    assert scores.argmax(-1).tolist() == [1, 0]  # the second word is likely everywhere: that is taken off


def test_fewclue_s_files(tmp_path: Path) -> None:
    folder = tmp_path / "eprstmt"
    folder.mkdir()
    row = {"id": 1, "sentence": "很差", "label": "Negative"}
    for name in ("train_0", "dev_0", "test_public", "train_1"):
        (folder / f"{name}.json").write_text(json.dumps(row | {"sentence": f"很差{name}"}))
    data = read(FEWCLUE["eprstmt"], tmp_path, 0)
    assert data.train == [Question({"sentence": "很差train_0"}, ("好", "差"), 1)]
    assert data.unlabelled == [Question({"sentence": "很差train_1"}, ("好", "差"), None)]
    with pytest.raises(FileNotFoundError, match=r"eprstmt: .* has no dev_1\.json"):
        read(FEWCLUE["eprstmt"], tmp_path, 1)
    (folder / "dev_0.json").write_text(json.dumps(row | {"label": "Maybe"}))
    with pytest.raises(ValueError, match=r"dev_0\.json, line 1: the label 'Maybe' is none of Positive, Negative"):
        read(FEWCLUE["eprstmt"], tmp_path, 0)


def test_labels_that_the_rows_describe_and_choices_of_a_row(tmp_path: Path) -> None:
    for task, row in (
        ("iflytek", {"label": 8, "label_des": "公共交通", "sentence": "地铁"}),
        ("chid", {"id": 2, "candidates": ["一心一意", "三心二意"], "content": "甲#idiom#乙", "answer": 1}),
        ("csldcp", {"content": "论文", "label": "地质学/地质资源"}),
    ):
        (tmp_path / task).mkdir()
        for name in ("train_0", "dev_0", "test_public"):
            (tmp_path / task / f"{name}.json").write_text(json.dumps(row))
    assert read(FEWCLUE["iflytek"], tmp_path, 0).test[0].words == ("公共交通",)
    assert read(FEWCLUE["csldcp"], tmp_path, 0).test[0] == Question({"content": "论文"}, ("地质学",), 0)
    assert read(FEWCLUE["chid"], tmp_path, 0).test[0] == Question(
        {"before": "甲", "after": "乙"}, ("一心一意", "三心二意"), 1
    )


def test_every_pattern_names_fields_that_its_task_has() -> None:
    rows = {
        "csl": {"abst": "a", "keyword": ["k"]},
        "cluewsc": {"text": "t", "target": {"span1_text": "n", "span2_text": "p"}},
        "chid": {"content": "a#idiom#b", "candidates": []},
    }
    plain = dict.fromkeys(("sentence", "sentence1", "sentence2", "content"), "x")
    for task in TASKS.values():
        fields = task.fields(rows.get(task.name, plain))
        for pattern in task.patterns:
            assert pattern.count("{slot}") == 1
            pattern.format(slot="", **fields)
