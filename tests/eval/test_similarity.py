"""Similarity: files of pairs, layers, whitening; what is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from data.tokenizer import Tokenizer
from eval import similarity
from eval.scoring.sentences import embed, read, whitened
from model.architectures import REGISTRY
from model.batch import padded
from tests.model.models import tiny_model
from training import checkpoint

TEXTS = ["the barid sees", "the denot often paints the gimel.", "x"]


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


@pytest.mark.parametrize("architecture", REGISTRY)
def test_a_sentence_is_the_mean_of_its_words_states_at_every_layer(architecture: str, tokenizer: Tokenizer) -> None:
    model = tiny_model(architecture, vocab_size=tokenizer.vocab_size).eval()
    depth = model.config.n_layers
    by_layer = [embed(model, tokenizer, TEXTS, layer=n)[0] for n in range(-1, depth + 1)]
    torch.testing.assert_close(by_layer[0], by_layer[-1])  # -1 is the last
    for i, text in enumerate(TEXTS):
        batch = padded([[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]], tokenizer.pad_id)
        last = model.head.norm_in(model.encode(batch))[0, 1:-1].mean(0)
        torch.testing.assert_close(by_layer[0][i], last, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(by_layer[1][i], model.architecture.embedding(batch.tokens, None)[0, 1:-1].mean(0))
    assert not torch.allclose(by_layer[2], by_layer[-1], atol=1e-3)  # the first layer is not the last
    assert "update" not in vars(
        next(m for m in model.modules() if type(m).__name__ == "Block")
    )  # nothing is left behind


def test_whitened_rows_have_mean_zero_and_covariance_one() -> None:
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.tensor([9.0, 3, 1, 1, 0.1, 0])
    )
    y = whitened(x + 7)
    torch.testing.assert_close(y.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.T @ y / 50, torch.eye(5), atol=1e-4, rtol=0)
    assert whitened(x, kept=2).shape == (50, 2)


def test_files_of_pairs(tmp_path: Path) -> None:
    tsv, zh, sick = tmp_path / "dev.tsv", tmp_path / "test.data", tmp_path / "SICK.txt"
    tsv.write_text('index\tsentence1\tsentence2\tscore\n0\t"a\tb\t2.5\n1\tc\td\t1\n2\te\tf\t0\n')
    zh.write_text("0||甲||乙||5\n1||丙||丁||1\n2||戊||己||0\n")
    sick.write_text("pair_ID\tsentence_A\tsentence_B\trelatedness_score\n1\ta\tb\t4.5\n2\ta\tb\t1\n3\ta\tb\t2\n")
    [found] = read(tsv)
    assert found.texts[0] == ('"a', "b") and found.scores == [2.5, 1.0, 0.0]
    assert read(zh)[0].texts[1] == ("丙", "丁") and read(sick)[0].scores == [4.5, 1.0, 2.0]
    (tmp_path / "STS.input.news.txt").write_text("a\tb\nc\td\ne\tf\ng\th\n")
    (tmp_path / "STS.gs.news.txt").write_text("4\n\n2\n1\n")  # nobody scored the second
    [official] = read(tmp_path)
    assert official.name == f"{tmp_path.name}/news" and official.texts == [("a", "b"), ("e", "f"), ("g", "h")]
    tsv.write_text("sentence1\tsentence2\tscore\na\tb\tx\n")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 2: the score 'x' is not a number"):
        read(tsv)
    with pytest.raises(FileNotFoundError, match="There is no .*nowhere"):
        read(tmp_path / "nowhere")


def test_layouts_without_a_header(tmp_path: Path) -> None:
    """The STS benchmark's own files, with quotation marks and sources; the Chinese STS-B's."""
    official = 'main-news\tMSRpar\t2012test\t{}\t{}\t"A man\tA b\tsource\n'
    (tmp_path / "sts-test.tsv").write_text(
        "".join(official.format(f"{i:04d}", s) for i, s in enumerate((2.5, 5.0, 0.0)))
    )
    [found] = read(tmp_path / "sts-test.tsv")
    assert found.scores == [2.5, 5.0, 0.0] and found.texts[0] == ('"A man', "A b")
    (tmp_path / "zh.txt").write_text("甲\t乙\t5\n丙\t丁\t0\n戊\t己\t3\n")
    [found] = read(tmp_path / "zh.txt")
    assert found.scores == [5.0, 0.0, 3.0] and found.texts[2] == ("戊", "己")
    (tmp_path / "nan.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\na\tb\tnan\n")
    with pytest.raises(ValueError, match=r"nan\.tsv, line 3: the score 'nan' is not a number"):
        read(tmp_path / "nan.tsv")
    (tmp_path / "tab.tsv").write_text("sentence1\tsentence2\tscore\na\tb\tc\t1\n")
    with pytest.raises(ValueError, match=r"tab\.tsv, line 2: 4 columns, expected 3"):
        read(tmp_path / "tab.tsv")


def test_one_command_measures_what_it_can_read(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Equal sentences have the cosine 1, so scores that say so are met exactly."""
    checkpoint.save(tmp_path / "model", 1, tiny_model("tta", vocab_size=tokenizer.vocab_size), {}, tokenizer.model)
    rows = [(TEXTS[0], TEXTS[0], 5), (TEXTS[0], TEXTS[1], 1), (TEXTS[1], TEXTS[1], 5), (TEXTS[2], TEXTS[1], 1)]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps(dict(zip(("sentence1", "sentence2", "score"), r))) for r in rows)
    )
    options = ["--checkpoints", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sts", *options, "--data", str(tmp_path / "a.jsonl"), "nowhere"])
    assert similarity.main() == 1 and "failed: There is no nowhere" in " ".join(capsys.readouterr().out.split())
    [record] = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert record["pairs"] == 4 and record["pearson"] > 60
    monkeypatch.setattr(sys, "argv", ["sts", *options, "--data", str(tmp_path / "a.jsonl"), "--layer", "9"])
    assert similarity.main() == 1 and "layer is 9; this model has 0" in " ".join(capsys.readouterr().out.split())


def test_models_of_several_seeds_have_a_table(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    opened = {
        label: (tiny_model("tta", vocab_size=tokenizer.vocab_size), tokenizer)
        for label in ("a-seed0", "a-seed3", "b-seed0")
    }
    answers = iter(
        [{"pearson": 50.0, "spearman": 1.0}, {"pearson": 54.0, "spearman": 2.0}, {"pearson": 40.0, "spearman": 3.0}]
    )
    (tmp_path / "a.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\ne\tf\t3\n")
    monkeypatch.setattr(similarity, "open_checkpoints", lambda paths: opened)
    monkeypatch.setattr(similarity, "measure", lambda *_: next(answers))
    config = similarity.SimilarityConfig((Path("x"),), (str(tmp_path / "a.tsv"),), out=tmp_path / "out")
    assert similarity.run(config, Console(width=200)) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert rows[-3:-1] == [["a", "2", "52.0 ± 2.8"], ["b", "1", "40.0"]]
