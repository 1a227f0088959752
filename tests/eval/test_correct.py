"""Correction: what is doubtful, what replaces it, how it is measured, and the page in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.tokenizer import Tokenizer
from eval import correct
from eval.correction.doubts import Doubt, Limits, corrected, doubts, edits, measured, read_confusions
from model.batch import padded
from report.correction import marked, write_page
from tests.model.models import tiny_model
from training import checkpoint


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


@pytest.mark.parametrize("architecture", ["tta", "vanilla"])
def test_a_doubt_is_a_token_that_another_beats_given_all_others(architecture: str, tokenizer: Tokenizer) -> None:
    model = tiny_model(architecture, vocab_size=tokenizer.vocab_size, initializer_std=0.3).eval()
    text = "the barid often sees"
    [found] = doubts(model, tokenizer, [text], least=1.0)
    assert found
    ids = [t for t, _, _ in tokenizer.encode_with_offsets(text)]
    batch = padded([[tokenizer.bos_id, *ids, tokenizer.eos_id]], tokenizer.pad_id)
    positions = torch.arange(len(ids) + 2)[None]
    log_p = model.head.logits(model.architecture.leave_one_out(batch, positions)[0]).log_softmax(-1)[0]
    for doubt in found:
        [at] = [
            i for i, (_, b, e) in enumerate(tokenizer.encode_with_offsets(text)) if (b, e) == (doubt.begin, doubt.end)
        ]
        _, best = doubt.alternatives[0]
        assert doubt.margin == pytest.approx(best - log_p[at + 1, ids[at]].item(), abs=1e-4)
        assert best <= log_p[at + 1].max().item() + 1e-4 and doubt.margin >= 1.0


def test_the_larger_of_two_doubts_that_touch_is_corrected() -> None:
    text = "the cat sad down"
    found = [
        Doubt(3, 7, 2.0, [(" dog", -1.0)]),
        Doubt(7, 11, 5.0, [(" sat", -0.1)]),
        Doubt(11, 16, 1.5, [(" up", -1.0)]),
    ]
    assert corrected(text, found, 1.0) == "the cat sat down" and corrected(text, found, 6.0) == text
    assert corrected(text, found[:1], 1.0) == "the dog sad down"


def test_what_may_replace_a_token_can_be_narrowed(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("的\t地得\n在: 再\n")
    confusions = read_confusions(tmp_path / "c.txt")
    assert confusions == {"的": "地得", "在": "再"}
    limits = Limits(confusions=confusions)
    assert limits.allow("的", "得") and not limits.allow("的", "了") and not limits.allow("的", "地地")
    assert Limits(similar=0.6).allow(" recieve", " receive") and not Limits(similar=0.6).allow(" recieve", " take")
    assert not Limits().allow(" cat", "cat") and not Limits().allow(" cat", "s")  # a word is no ending
    (tmp_path / "c.txt").write_text("的地 得\n")
    with pytest.raises(ValueError, match="line 1: found '的地 得', expected a character"):
        read_confusions(tmp_path / "c.txt")


def test_detection_and_correction_by_hand() -> None:
    assert edits("he go home now", "he goes home") == {(1, 2, "goes"), (3, 4, "")}
    wrong, right = ["他在家吗好", "很好的天气"], ["他在家呢好", "很好的天气"]
    found = measured(wrong, right, ["他在家嘛好", "很坏的天气"])
    assert edits(wrong[0], right[0]) == {(3, 4, "呢")}
    assert found["detection precision"] == 50 and found["detection recall"] == 100 and found["correction F1"] == 0
    assert found["right sentences left alone"] == 0
    assert measured(wrong, right, right)["correction F1"] == 100


def test_pieces_of_a_word_are_one_mark() -> None:
    doubts = [
        {"begin": 1, "end": 4, "margin": 2.0, "alternatives": [(" pa", -1.0)]},
        {"begin": 4, "end": 6, "margin": 5.0, "alternatives": [("ths", -0.5), ("t", -3.0)]},
        {"begin": 6, "end": 9, "margin": 3.0, "alternatives": [(" is", -0.5)]},
    ]
    page = marked({"text": "a math it", "doubts": doubts})
    assert re.findall("<mark>(.*?)</mark>", page) == ["math", "it"]
    assert "<li>maths<span>61%</span></li><li>mat<span>5%</span></li>" in page


LINES = [
    {
        "text": "a <b> recieve it",
        "doubts": [{"begin": 5, "end": 13, "margin": 5.0, "alternatives": [(" receive", -0.1)]}],
    }
]


def test_the_page_marks_words_and_escapes_texts(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", LINES)
    page = (tmp_path / "page.html").read_text()
    assert "a &lt;b&gt; <details>" in page and "<mark>recieve</mark>" in page and "receive<span>90%</span>" in page
    assert "1 of 1 texts" in page and "http" not in page


@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no browser on this machine"
)
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """Alternatives are hidden until a word is pressed, and nothing is wider than the window."""
    write_page(tmp_path / "page.html", LINES)
    script = """<script>const out = [];
    const list = document.querySelector('details ul'), shown = () => list.checkVisibility();
    out.push(shown()); document.querySelector('summary').click(); out.push(shown());
    out.push(document.documentElement.scrollWidth <= window.innerWidth);
    const row = document.querySelector('div.text'), line = document.querySelector('mark');
    out.push(row.getClientRects()[0].top <= line.getClientRects()[0].top && row.clientHeight < 60);  // one line of text
    document.body.insertAdjacentHTML('beforeend', '<i id=told>' + out.join(' ') + '</i>');</script></body>"""
    (tmp_path / "page.html").write_text((tmp_path / "page.html").read_text().replace("</body>", script))
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    page = f"file://{tmp_path}/page.html"
    dom = subprocess.run([browser, *options, page], capture_output=True, text=True, timeout=120).stdout
    assert '<i id="told">false true true true</i>' in dom


def test_one_command_corrects_and_measures(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    model = tiny_model("tta", vocab_size=tokenizer.vocab_size, initializer_std=0.3)
    checkpoint.save(tmp_path / "model", 1, model, {}, tokenizer.model)
    (tmp_path / "pairs.tsv").write_text("the barid sees\tthe denot sees\n\t\n")
    pairs = str(tmp_path / "pairs.tsv")
    options = ["--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["correct", *options, "--pairs", pairs, "--dev", pairs])
    assert correct.main() == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "nats is best on dev" in out and "correction F1" in out
    assert len((tmp_path / "out" / "corrected.txt").read_text().splitlines()) == 2  # an empty text keeps its position
    assert json.loads((tmp_path / "out" / "results.json").read_text())["texts"] == 2
    (tmp_path / "pairs.tsv").write_text("one column\n")
    assert correct.main() == 2 and "line 1: 1 columns, expected the wrong text" in " ".join(
        capsys.readouterr().err.split()
    )
