"""Homophones, SIGHAN's files, the soft mask by hand, and one command."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch

from data.chinese import Segmenter, vocabulary
from data.tokenizer import Tokenizer
from eval import soft_masked as command
from eval.correction.errors import Homophones, read_sighan, sentences_of
from eval.correction.soft_masked import (
    CorrectorRecipe,
    Pair,
    SoftMasked,
    encoded,
    in_place_of,
    loss_of,
    proposed,
    trained,
)
from model.architectures import REGISTRY
from model.batch import padded
from tests.model.models import tiny_model
from training import checkpoint

WORDS = ["他们", "在", "图书馆", "读书", "她们", "再", "独树", "的", "和", "合", "老师", "学生", "喜欢", "中国"]


def text(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(WORDS, k=draw.randint(6, 12))) + "。" for _ in range(count)]


@pytest.fixture(scope="module")
def characters() -> Tokenizer:
    return vocabulary(text(300), 400, "characters", Segmenter(dict.fromkeys(WORDS, 5)))


def test_sentences_and_what_sounds_alike() -> None:
    assert sentences_of(["他们在图书馆读书喜欢。短。all of this is English text here。", "他们在图书馆读书喜欢。"]) == [
        "他们在图书馆读书喜欢。"
    ]
    homophones = Homophones(text(100))
    assert set(homophones.like["在"]) == {"再"} and set(homophones.like["他"]) == {"她"} and homophones.like["喜"] == []
    assert "独" in homophones.like["读"] and "合" in homophones.like["和"]
    sentence, draw = "他们在图书馆读书和老师。" * 40, random.Random(0)
    found = homophones.corrupted(sentence, 0.3, draw, random_share=0.0)
    changed = [(a, b) for a, b in zip(sentence, found, strict=True) if a != b]
    assert all(b in homophones.like[a] or not homophones.like[a] for a, b in changed)
    assert 0.2 < len(changed) / (11 * 40) < 0.4 and "。" not in {a for a, _ in changed}
    assert homophones.corrupted(sentence, 0.0, draw) == sentence
    with pytest.raises(ValueError, match="There is no Chinese sentence"):
        Homophones(["abc"])


def test_sighan_by_hand(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("(pid=A2-1)\t他们再图书官\n(pid=A2-2)\t他们\n")
    (tmp_path / "b.txt").write_text("A2-1, 3, 在, 6, 馆\nA2-2, 0\n")
    assert read_sighan(tmp_path / "a.txt", tmp_path / "b.txt") == (["他们再图书官", "他们"], ["他们在图书馆", "他们"])
    for truth, sentence in (
        ("A2-9, 0\n", "b.txt, line 1: there is no text 'A2-9'"),
        ("A2-1, 3\n", "line 1: found 'A2-1, 3'; expected ID, 0"),
        ("A2-1, 7, 在\n", "line 1: no position and character in '7', '在' for a text of 6"),
        ("", "b.txt is empty"),
    ):
        (tmp_path / "b.txt").write_text(truth)
        with pytest.raises(ValueError, match=sentence):
            read_sighan(tmp_path / "a.txt", tmp_path / "b.txt")
    (tmp_path / "a.txt").write_text("他们\n")
    with pytest.raises(ValueError, match=r"a.txt, line 1: found '他们'; expected \(pid=ID\)"):
        read_sighan(tmp_path / "a.txt", tmp_path / "b.txt")


@pytest.mark.parametrize("architecture", [name for name in REGISTRY if name not in ("rtd",)])
def test_the_soft_mask_is_what_it_says(architecture: str) -> None:
    """A detector that is sure of nothing changes nothing; one that is sure of one token makes it a [MASK]."""
    torch.manual_seed(0)
    model = tiny_model(architecture).eval()
    corrector = SoftMasked(model, 8, soft=True).eval()
    tokens = torch.randint(5, 40, (2, 9))
    batch = padded(tokens.tolist(), 0)
    seen = {}

    def states(bias: torch.Tensor) -> torch.Tensor:
        corrector.wrong.register_forward_hook(lambda m, a, out: bias[..., None])
        try:
            return corrector(batch)[1]
        finally:
            corrector.wrong._forward_hooks.clear()

    never, one = torch.full((2, 9), -1e9), torch.full((2, 9), -1e9)
    one[:, 4] = 1e9
    residual = model.architecture.embedding(batch.tokens, batch.documents)
    torch.testing.assert_close(states(never), model.encode(batch) + residual)
    masked = padded(torch.where(torch.arange(9) == 4, model.config.mask_id, tokens).tolist(), 0)
    torch.testing.assert_close(states(one), model.encode(masked) + residual)
    plain = SoftMasked(model, 8, soft=False).eval()
    torch.testing.assert_close(plain(batch)[1], model.encode(batch) + residual)
    assert not seen


def test_only_the_given_tokens_are_replaced() -> None:
    table, tokens = torch.nn.Embedding(9, 4), torch.tensor([[1, 2]])
    rows = torch.zeros(1, 2, 4)
    with in_place_of(table, tokens, rows):
        assert table(tokens) is rows and torch.equal(table(tokens.clone()), table.weight[tokens])
    assert torch.equal(table(tokens), table.weight[tokens])


def test_the_loss_by_hand_and_padding_counts_for_nothing(characters: Tokenizer) -> None:
    model = tiny_model("vanilla", vocab_size=characters.vocab_size, max_length=64).eval()
    corrector = SoftMasked(model, 8, soft=True).eval()
    [pair], lost = encoded(["他们再"], ["他们在"], characters, 64)
    assert lost == 0
    batch, right = padded([pair.wrong], 0), torch.tensor([pair.right])
    logits, states = corrector(batch)
    p = logits.sigmoid()[0]
    wrong = torch.tensor(pair.wrong) != torch.tensor(pair.right)
    detection = -torch.where(wrong, p, 1 - p).log().mean()
    correction = torch.nn.functional.cross_entropy(model.head.logits(states[0]), right[0])
    torch.testing.assert_close(loss_of(corrector, batch, right, 0.7), 0.7 * correction + 0.3 * detection)
    other, _ = encoded(["他们在图书馆"], ["他们在图书馆"], characters, 64)
    short = torch.tensor([pair.right + [0] * 3])
    both = loss_of(
        corrector, padded([pair.wrong, other[0].wrong], 0), torch.cat([short, torch.tensor([other[0].right])]), 1.0
    )
    alone = [loss_of(corrector, padded([p.wrong], 0), torch.tensor([p.right]), 1.0) for p in (pair, other[0])]
    n, m = len(pair.wrong), len(other[0].wrong)
    torch.testing.assert_close(both, (n * alone[0] + m * alone[1]) / (n + m), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_it_learns_a_rule_and_keeps_lengths(characters: Tokenizer) -> None:
    """Of texts in which every 再 should be 在."""
    torch.manual_seed(0)
    model = tiny_model("vanilla", vocab_size=characters.vocab_size, max_length=64)
    right = [t.replace("再", "的") for t in text(120, 1)]
    wrong = [t.replace("在", "再") for t in right]
    pairs, lost = encoded(wrong, right, characters, 64)
    assert not lost and isinstance(pairs[0], Pair)

    def judge(corrector: SoftMasked) -> float:
        found = proposed(corrector, wrong, characters)
        assert list(map(len, found)) == list(map(len, wrong))
        return 100 * sum(a == b for a, b in zip(found, right)) / len(right)

    corrector = trained(model, pairs, CorrectorRecipe(epochs=20, learning_rate=1e-2), True, 0, characters.pad_id, judge)
    assert judge(corrector) > 80


def test_one_command(
    characters: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.txt").write_text("\n\n".join("".join(text(8, seed)) for seed in range(400)))
    model = tiny_model("local", vocab_size=characters.vocab_size, max_length=64)
    checkpoint.save(tmp_path / "model", 1, model, {}, characters.model)
    arguments = ["--checkpoints", str(tmp_path / "model"), "--corpus", str(tmp_path / "corpus.txt"), "--train", "200"]
    arguments += [
        "--dev",
        "20",
        "--test",
        "30",
        "--seeds",
        "0",
        "1",
        "--recipe.epochs",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    assert command.main() == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("correction, test", "fine", "soft"))
    records = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [r["method"] for r in records] == [
        "one pass",
        "one pass, homophones",
        *["fine-tuned"] * 2,
        *["soft-masked"] * 2,
    ]
    assert command.main() == 0 and len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 6
    (tmp_path / "english.txt").write_text("".join(f"the barid sees {n} denots.\n\n" for n in range(9000)))
    monkeypatch.setattr(sys, "argv", ["x", *arguments[:2], "--corpus", str(tmp_path / "english.txt")])
    assert command.main() == 2 and "Chinese sentences of 10 to 100 characters" in " ".join(
        capsys.readouterr().err.split()
    )
