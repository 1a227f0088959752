"""Pseudo-log-likelihood against brute force, whatever stands beside a sentence; and the command."""

import json
import sys
from pathlib import Path

import pytest
import torch

from data.tokenizer import Tokenizer
from data.words import word_bounds, word_starts
from eval import score as scoring
from eval.scoring.likelihood import score, windows_of
from kernels.attention import spans_of
from model import MaskedLM
from model.architectures import REGISTRY
from model.batch import Batch
from tests.model.models import tiny_model
from training import checkpoint

SENTENCES = ["the barids often see the denum twice.", "", "lamid", "the gimul carries the posot.", "the folids paint"]


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


def model_of(architecture: str, tokenizer: Tokenizer, **options: object) -> MaskedLM:
    return tiny_model(
        architecture, vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id, **{"max_length": 64, **options}
    )


def by_brute_force(model: MaskedLM, tokenizer: Tokenizer, ids: list[int], variant: str) -> list[float]:
    """One token at a time. What it must not see is another token entirely; vanilla reads [MASK] there."""
    tokens = torch.tensor([[tokenizer.bos_id, *ids, tokenizer.eos_id]])
    first, last = word_bounds(word_starts(tokens.numpy(), tokenizer.starts_word[tokens.numpy()], tokenizer.special_ids))
    found = []
    for position in range(1, len(ids) + 1):
        every = torch.arange(tokens.shape[1])
        begin = int(first[0, position]) if variant == "whole_word" else position
        end = position if variant == "original" else int(last[0, position])
        own = (every >= begin) & (every <= end)
        masked = tokens.masked_fill(own, tokenizer.mask_id)
        spans = spans_of(torch.where(own, begin, every)[None], torch.where(own, end, every)[None])
        # Tokens that are hidden are replaced, so that a model which looked at them would be found out.
        states, _ = model.architecture.leave_one_out(Batch(masked, spans=spans), torch.tensor([[position]]))
        log_p = model.head.logits(states[0, 0]).log_softmax(-1)
        found.append(float(log_p[tokens[0, position]]))
    return found


@torch.no_grad()
@pytest.mark.parametrize("variant", ["original", "within_word_l2r", "whole_word"])
@pytest.mark.parametrize("architecture", REGISTRY)
def test_scores_are_those_of_brute_force(architecture: str, variant: str, tokenizer: Tokenizer) -> None:
    model = model_of(architecture, tokenizer)
    scores = score(model, tokenizer, SENTENCES, variant, tokens=40)
    for sentence, found in zip(SENTENCES, scores):
        ids = tokenizer.encode(sentence)
        assert found.log_probs == pytest.approx(by_brute_force(model, tokenizer, ids, variant), abs=1e-4)
        assert found.total == pytest.approx(sum(found.log_probs)) and found.tokens == tokenizer.pieces(ids)
        assert found.passes == (len(ids) if model.architecture.passes_each else int(bool(ids)))


@pytest.mark.parametrize("architecture", REGISTRY)
def test_a_score_depends_on_its_sentence_alone(architecture: str, tokenizer: Tokenizer) -> None:
    model = model_of(architecture, tokenizer)
    alone = [score(model, tokenizer, [sentence])[0].total for sentence in SENTENCES]
    for tokens in (16, 60, 10_000):
        together = score(model, tokenizer, SENTENCES[::-1], tokens=tokens)[::-1]
        assert [s.total for s in together] == pytest.approx(alone, abs=1e-4)


def test_windows_score_every_token_once_with_context_on_both_sides() -> None:
    for length in (1, 10, 11, 14, 15, 16, 33, 100):
        windows = windows_of(length, 10)
        assert [i for w in windows for i in range(w.first, w.last)] == list(range(length))
        assert all(w.stop - w.start <= 10 and w.start <= w.first <= w.last <= w.stop for w in windows)
        for w in windows[1:-1]:
            assert w.first - w.start >= 2 and w.stop - w.last >= 2
    assert windows_of(0, 10) == []


def test_a_long_text_is_scored_in_windows(tokenizer: Tokenizer) -> None:
    text = "the barids often see the denum twice. " * 20
    model = model_of("tta", tokenizer, max_length=32)
    [found] = score(model, tokenizer, [text])
    ids = tokenizer.encode(text)
    assert len(found.log_probs) == len(ids) > 32 and found.passes > 1 and all(p < 0 for p in found.log_probs)
    window = windows_of(len(ids), 30)[1]
    [alone] = score(model, tokenizer, [tokenizer.decode(ids[window.start : window.stop])])
    if len(alone.log_probs) == 30:  # the piece of text is cut into the same tokens
        inner = slice(window.first - window.start, window.last - window.start)
        assert found.log_probs[window.first : window.last] == pytest.approx(alone.log_probs[inner], abs=1e-4)


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "model", 1, model_of("tta", tokenizer), {}, tokenizer.model)
    return tmp_path


def test_the_command_keeps_order_and_empty_lines(
    folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "in.txt").write_text("\n".join(SENTENCES) + "\n")
    monkeypatch.setattr(scoring, "LINES", 2)
    arguments = [
        "--checkpoint",
        str(folder / "model"),
        "--input",
        str(folder / "in.txt"),
        "--output",
        str(folder / "out"),
    ]
    monkeypatch.setattr(sys, "argv", ["score", *arguments, "--per-token"])
    assert scoring.main() == 0
    records = [json.loads(line) for line in (folder / "out").read_text().splitlines()]
    expected = score(checkpoint.load_model_from(folder / "model"), tokenizer, SENTENCES)
    assert [r["index"] for r in records] == list(range(5)) and records[1]["pieces"] == [] and records[1]["total"] == 0
    assert [r["total"] for r in records] == pytest.approx([s.total for s in expected], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--input", "nowhere.txt"], "There is no file nowhere.txt"),
        (["--checkpoint", "nowhere"], "There is no checkpoint at nowhere"),
        (["--input", "latin"], "line 1: not UTF-8"),
    ],
)
def test_bad_requests_are_one_sentence(
    change: list[str], sentence: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (folder / "latin").write_bytes(b"caf\xe9\n")
    (folder / "in.txt").write_text("a\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["score", "--checkpoint", "model", "--input", "in.txt", *change])
    assert scoring.main() == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
