"""Fine-tuning, losses and metrics: mathematics by hand, and a task that only a model which reads can solve."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from data.tokenizer import Tokenizer
from eval.finetune.forms import Choice, Form, Span
from eval.finetune.losses import LOSSES, smoothed_accuracy
from eval.finetune.metrics import measure
from eval.finetune.probe import probe
from eval.finetune.rows import Row, buckets
from eval.finetune.tasks import Example, Splits, Task
from eval.finetune.train import Classifier, Recipe, fine_tune, thinned
from model.architectures import REGISTRY
from model.batch import padded
from tests.model.models import FAMILY, tiny_model


def test_metrics_by_hand() -> None:
    truth, predicted = [1, 1, 0, 0, 1], [1, 0, 0, 1, 1]  # tp 2, fp 1, fn 1, tn 1
    found = measure(("accuracy", "f1", "mcc", "macro_f1"), truth, predicted)
    assert found["accuracy"] == pytest.approx(60) and found["f1"] == pytest.approx(200 / 3)
    assert found["mcc"] == pytest.approx(100 * (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2))
    assert found["macro_f1"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    scores = measure(("pearson", "spearman"), [1.0, 2.0, 3.0], [1.0, 4.0, 9.0])
    assert scores["spearman"] == pytest.approx(100) and scores["pearson"] == pytest.approx(98.974, abs=1e-2)
    assert measure(("pearson",), [1.0, 2.0], [3.0, 3.0]) == {"pearson": 0.0}  # a constant has no correlation


def test_losses_by_hand() -> None:
    """Two rows: p of the truth is 0.8 and 0.5; 9 rows of class 0 and 1 of class 1."""
    logits, truth = torch.tensor([[math.log(4.0), 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    p, counts = np.array([0.8, 0.5]), torch.tensor([9, 1])
    weights = np.array([(1 - 0.999) / (1 - 0.999**9), 1.0])
    weights /= weights.mean()
    adjusted = [0.8 * 0.9 / (0.8 * 0.9 + 0.2 * 0.1), 0.5 * 0.1 / (0.5 * 0.1 + 0.5 * 0.9)]
    q = (1 - p) * p
    expected = {
        "ce": -np.log(p).mean(),
        "focal": (-((1 - p) ** 2) * np.log(p)).mean(),
        "class_balanced": (-weights * np.log(p)).mean(),
        "logit_adjusted": -np.log(adjusted).mean(),
        "accuracy": (1 - p).mean(),
        "dice": (1 - (2 * q + 1) / (q + 2)).mean(),
    }
    assert expected.keys() == LOSSES.keys()
    for name, value in expected.items():
        assert float(LOSSES[name](counts)(logits, truth)) == pytest.approx(value, rel=1e-5), name


def test_cross_entropy_is_the_limit_of_the_smooth_accuracy() -> None:
    """And the gradient of each row is p_y^power times as long."""
    torch.manual_seed(0)
    logits, truth, counts = (
        torch.randn(5, 3, dtype=torch.float64, requires_grad=True),
        torch.arange(5) % 3,
        torch.ones(3),
    )
    p = logits.softmax(-1).gather(1, truth[:, None])
    [of_ce] = torch.autograd.grad(LOSSES["ce"](counts)(logits, truth), logits)
    for power in (1.0, 0.5, 1e-9):
        loss = smoothed_accuracy(counts, power)(logits, truth)
        [found] = torch.autograd.grad(loss, logits)
        torch.testing.assert_close(found, of_ce * p.detach() ** power)
    torch.testing.assert_close(loss, LOSSES["ce"](counts)(logits, truth))


def test_classes_are_thinned_by_equal_ratios() -> None:
    task = Task("task", ("a", "b", "c"), ("a",), "label", ("accuracy",))
    rows = [Example((str(n),), label, n) for n, label in enumerate([0] * 100 + [1] * 100 + [2] * 4)]
    kept = thinned(rows, task, 100)
    assert [sum(row.label == k for row in kept) for k in range(3)] == [100, 10, 1]
    assert kept == [*rows[:110], rows[200]] and thinned(rows, task, 1) is rows
    assert [sum(row.label == k for row in thinned(rows, task, 4)) for k in range(3)] == [
        100,
        50,
        4,
    ]  # no more than there are
    with pytest.raises(ValueError, match="has no classes, so imbalance=2 cannot thin them"):
        thinned(rows, Task("score", (), ("a",), "label", ("pearson",), form="score"), 2)
    with pytest.raises(ValueError, match="imbalance is 0.5; it must be 1"):
        Recipe(imbalance=0.5)


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


CLASSES = Task("task", ("0", "1"), ("a",), "label", ("accuracy",))


def test_pairs_are_joined_and_the_longer_text_is_cut(tokenizer: Tokenizer) -> None:
    a, b = "the barids often see.", "the denum"
    [row] = Form(CLASSES, tokenizer, 100).rows([Example((a, b), 1, 0)])
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    assert row.tokens == ([bos, *tokenizer.encode(a), eos, *tokenizer.encode(b), eos],) and row.cut == 0
    [cut] = Form(CLASSES, tokenizer, row.length - 3).rows([Example((a, b), 1, 0)])
    assert cut.length == row.length - 3 and cut.cut == 3
    assert cut.tokens[0] == [bos, *tokenizer.encode(a)[:-3], eos, *tokenizer.encode(b), eos]


def test_buckets_hold_every_row_once_and_little_padding() -> None:
    lengths = [random.Random(i).randint(3, 60) for i in range(500)]
    rows = [Row(([0] * n,), 0) for n in lengths]
    for shuffle in (None, random.Random(0)):
        batches = list(buckets(rows, 16, shuffle))
        assert sorted(i for batch in batches for i in batch) == list(range(500))
        read = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
        assert read < 1.15 * sum(lengths)  # in random batches: 1.8 times
    assert list(buckets(rows, 16, random.Random(0))) != list(buckets(rows, 16, random.Random(1)))


def test_padding_changes_no_answer(tokenizer: Tokenizer) -> None:
    for architecture in REGISTRY:
        for pool in ("mean", "first"):
            model = tiny_model(architecture, vocab_size=tokenizer.vocab_size)
            classifier = Classifier(model, 2, Recipe(pool=pool), tokenizer.special_ids).eval()
            rows = Form(CLASSES, tokenizer, 32).rows(
                [Example(("the bar",), 0, 0), Example(("the barids often see it",), 0, 1)]
            )
            together = classifier(padded([row.tokens[0] for row in rows], tokenizer.pad_id))
            alone = torch.cat([classifier(padded(row.tokens, tokenizer.pad_id)) for row in rows])
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def pairs(count: int, seed: int) -> list[Example]:
    """Is the same noun named in both texts? Not to be told from either text alone."""
    draw, nouns = random.Random(seed), ["barid", "denot", "folum", "gimel"]
    rows = []
    for i in range(count):
        a, b = draw.choice(nouns), draw.choice(nouns)
        b = a if draw.random() < 0.5 else b
        rows.append(Example((f"the {a} often sees", f"the {b} paints"), int(a == b), i))
    return rows


def orders(count: int, seed: int) -> list[Example]:
    """Which of two nouns comes first: nothing that a bag of words could tell."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        first = draw.randint(0, 1)
        nouns = ("the barid", "the denot")[:: 1 if first else -1]
        rows.append(Example((f"{nouns[0]} {draw.choice(['sees', 'paints', 'draws'])} {nouns[1]}",), first, i))
    return rows


@pytest.mark.parametrize(
    ("architecture", "rows", "texts", "pair"),
    [
        *(pytest.param(*one.values, orders, ("a",), "joint", marks=one.marks) for one in FAMILY),
        pytest.param("vanilla", pairs, ("a", "b"), "joint", marks=pytest.mark.slow),
        ("local", pairs, ("a", "b"), "apart"),
    ],
)
def test_a_model_learns_what_no_bag_of_words_could(
    architecture: str, rows, texts, pair: str, tokenizer: Tokenizer
) -> None:
    model = tiny_model(architecture, vocab_size=tokenizer.vocab_size, initializer_std=0.05)
    task = Task("task", ("0", "1"), texts, "label", ("accuracy",))
    recipe = Recipe(epochs=8, batch_size=16, learning_rate=3e-3, dropout=0.0, pair=pair)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    splits = Splits(rows(600, 0), {"dev": rows(120, 1)}, {"test": rows(20, 9)})
    outcome = fine_tune(model, tokenizer, task, splits, recipe, 0)
    assert outcome.metrics["dev"]["accuracy"] > 85
    assert len(outcome.predictions["test"]) == 20
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())  # a copy was trained


def test_the_same_seed_gives_the_same_answers(tokenizer: Tokenizer) -> None:
    model = tiny_model("local", vocab_size=tokenizer.vocab_size, initializer_std=0.05)
    task = Task("task", ("0", "1"), ("a",), "label", ("accuracy",))
    splits = Splits(orders(60, 0), {"dev": orders(30, 1)}, {"test": orders(20, 9)})
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=3e-3, dropout=0.1)
    one, two, other = (fine_tune(model, tokenizer, task, splits, recipe, seed) for seed in (0, 0, 1))
    assert one.metrics == two.metrics and one.predictions == two.predictions
    assert one.metrics != other.metrics or one.predictions != other.predictions


def test_training_stops_when_dev_no_longer_gets_better(tokenizer: Tokenizer) -> None:
    model = tiny_model("tta", vocab_size=tokenizer.vocab_size)
    splits, epochs = Splits(orders(8, 0), {"dev": [Example(("the barid",), 0, 0)]}), []
    recipe = Recipe(epochs=9, patience=2, learning_rate=1e-9)  # nothing is learned: the first epoch is the best

    def progress(share: float, text: str) -> None:
        epochs.append(text) if text.startswith("epoch") else None

    assert fine_tune(model, tokenizer, CLASSES, splits, recipe, 0, progress=progress).best_epoch == 1
    assert len(epochs) == 3


@pytest.mark.parametrize("architecture", REGISTRY)
def test_a_probe_reads_what_the_states_hold_and_changes_nothing(architecture: str, tokenizer: Tokenizer) -> None:
    """Which noun stands in the text can be read from random states; the model stays as it was."""
    model = tiny_model(architecture, vocab_size=tokenizer.vocab_size)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = [
        Example((f"the {('barid', 'denot')[i % 2]} {w}",), i % 2, i)
        for i, w in enumerate(["sees", "paints", "draws"] * 40)
    ]
    task = Task("noun", ("0", "1"), ("a",), "label", ("accuracy",))
    outcome = probe(model, tokenizer, task, Splits(rows[:80], {"dev": rows[80:]}, {"test": rows[:5]}), Recipe(), 0)
    assert outcome.metrics["dev"]["accuracy"] > 95 and outcome.predictions["test"] == [0, 1, 0, 1, 0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_choices_are_scored_each_with_the_text_and_the_softmax_is_over_a_row_s_own(tokenizer: Tokenizer) -> None:
    task = Task("task", (), ("a", "b"), "label", ("accuracy",), form="choice")
    form = Choice(task, tokenizer, 40)
    examples = [Example(("the bar", "who? "), 1, 0, ("den", "fol")), Example(("x", ""), 0, 1, ("a", "b", "gim"))]
    rows = form.rows(examples)
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    assert rows[0].tokens[1] == [bos, *tokenizer.encode("the bar"), eos, *tokenizer.encode("who? fol"), eos]
    outputs = torch.tensor([[1.0], [3.0], [0.0], [5.0], [2.0]])
    assert form.read(outputs, rows) == [1, 1]
    first, second = math.log(1 + math.exp(-2)), math.log(1 + math.exp(5) + math.exp(2))
    assert float(form.loss(outputs, rows)) == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("longest", [16, 24, 200])
def test_span_windows_hold_every_token_and_their_labels_stand_for_the_answer(
    longest: int, tokenizer: Tokenizer
) -> None:
    passage = "the barid often sees the denot. 战国 the folum paints gimel twice, never the kuret."
    answer = "folum paints"
    example = Example(("who paints?", passage), ((answer, passage.index(answer)),), 0)
    rows = Span(Task("t", (), ("q", "c"), "", ("em",), form="span"), tokenizer, longest).rows([example])
    read = sorted({part for row in rows for part in row.offsets[1]})
    assert (
        "".join(dict.fromkeys(passage[b:e] for b, e in read)) != "" and read[0][0] == 0 and read[-1][1] == len(passage)
    )
    assert all(row.length <= longest for row in rows)
    holding = [row for row in rows if row.label != (0, 0)]
    for row in holding:
        first, parts = row.offsets
        begin, end = parts[row.label[0] - first][0], parts[row.label[1] - first][1]
        assert answer in passage[begin:end] and len(passage[begin:end]) <= len(answer) + 2
    assert holding or longest == 16


def test_a_span_is_the_likeliest_pair_of_positions_over_all_windows(tokenizer: Tokenizer) -> None:
    passage = "the barid often sees the denot. the folum paints gimel twice, never the kuret."
    form = Span(Task("t", (), ("q", "c"), "", ("em",), form="span"), tokenizer, 24)
    examples = [Example(("who?", passage), (("folum", passage.index("folum")),), 0)]
    rows = form.rows(examples)
    assert len(rows) > 2
    outputs = torch.zeros(len(rows), max(row.length for row in rows), 2)
    for i, row in enumerate(rows):
        outputs[i, row.label[0], 0] = outputs[i, row.label[1], 1] = 9.0
        outputs[i, row.offsets[0] - 1] = 99.0  # the EOS of the question is no answer
    assert "folum" in form.merge(rows, form.read(outputs, rows), examples)[0]
    assert float(form.loss(outputs, rows)) < 0.1


def test_span_metrics_by_hand() -> None:
    accepted = [(("战国无双3", 0), ("无双", 2))]
    assert measure(("em", "span_f1"), accepted, ["《战国无双3》"]) == {"em": 100.0, "span_f1": pytest.approx(100)}
    # units 战 国 against 战 国 无 双 3: a run of two, precision 1, recall 2/5
    assert measure(("span_f1",), [accepted[0][:1]], ["战国"])["span_f1"] == pytest.approx(100 * 2 * 0.4 / 1.4)
    assert measure(("em", "span_f1"), accepted, [""]) == {"em": 0.0, "span_f1": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["choice", "span"])
def test_choices_and_spans_are_learned(form: str, tokenizer: Tokenizer) -> None:
    """Which noun sees? It stands before the verb: no choice is right by itself."""
    draw, nouns = random.Random(0), ["barid", "denot", "folum"]

    def rows(count: int) -> list[Example]:
        found = []
        for i in range(count):
            one, two = draw.sample(nouns, 2)
            text = f"the {one} sees the {two}"
            label = nouns.index(one) if form == "choice" else ((one, 4),)
            found.append(
                Example(
                    (text, "") if form == "choice" else ("sees?", text), label, i, tuple(nouns) * (form == "choice")
                )
            )
        return found

    metrics = ("accuracy",) if form == "choice" else ("em", "span_f1")
    task = Task("task", (), ("a", "b"), "label", metrics, form=form)
    model = tiny_model("vanilla", vocab_size=tokenizer.vocab_size, initializer_std=0.05)
    recipe = Recipe(epochs=8, batch_size=16, learning_rate=3e-3, dropout=0.0)
    outcome = fine_tune(model, tokenizer, task, Splits(rows(400), {"dev": rows(60)}, {"test": rows(5)}), recipe, 0)
    assert outcome.metrics["dev"][metrics[0]] > 85 and len(outcome.predictions["test"]) == 5
    if form == "choice":
        assert (
            0
            <= probe(model, tokenizer, task, Splits(rows(60), {"dev": rows(20)}), Recipe(), 0).metrics["dev"][
                "accuracy"
            ]
            <= 100
        )
    else:
        with pytest.raises(ValueError, match="asks for spans"):
            probe(model, tokenizer, task, Splits(rows(60), {"dev": rows(20)}), Recipe(), 0)
