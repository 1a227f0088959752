"""The benchmark's command: one from checkpoint to table, page and submission; what is refused."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from data.text import read_lines
from data.tokenizer import Tokenizer
from eval import glue
from eval.finetune.benchmark import main
from report.benchmark import Benchmark, write_report
from tests.model.models import tiny_model
from training import checkpoint


@pytest.fixture(scope="module")
def tokenizer(text_file: Path) -> Tokenizer:
    return Tokenizer.train(text_file.read_text().splitlines(), 340)


@pytest.fixture
def bench(tokenizer: Tokenizer, tmp_path: Path) -> list[str]:
    """A checkpoint, and GLUE folders of which one is broken."""
    model = tiny_model("tta", vocab_size=tokenizer.vocab_size)
    checkpoint.save(tmp_path / "model", 1, model, {}, tokenizer.model)
    (tmp_path / "SST-2").mkdir()
    rows = [f"the {noun} sees\t{i % 2}" for i, noun in enumerate(["barid", "denot"] * 20)]
    for split in ("train", "dev"):
        (tmp_path / "SST-2" / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    (tmp_path / "SST-2" / "test.tsv").write_text("index\tsentence\n0\tthe barid sees\n1\tthe denot sees\n")
    (tmp_path / "WNLI").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "WNLI" / f"{split}.tsv").write_text("index\tsentence1\tlabel\n0\ta\t0\n")
    options = ["--recipe.epochs", "2", "--recipe.batch-size", "8", "--seeds", "0", "1", "--out", str(tmp_path / "out")]
    return ["--checkpoints", str(tmp_path / "model"), "--data", str(tmp_path), *options]


def test_one_command_from_checkpoint_to_table_and_submission(
    bench: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["glue", *bench])
    assert main(glue.GLUE, "GLUE", "") == 1  # WNLI is broken, and the others are there
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "WNLI/train.tsv, line 1: no column sentence2" in out
        and "no column sentence2" in out
        and "official one 67,349" in out
    )
    records = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [(r["checkpoint"].split("/")[-1], r["seed"]) for r in records] == [
        ("majority", 0), ("bag of words", 0), ("model", 0), ("model", 1)
    ]  # fmt: skip
    assert records[1]["metrics"]["dev"]["accuracy"] == 100 and records[0]["metrics"]["dev"]["accuracy"] == 50
    assert "| majority | 50.0 | 50.0 |" in (tmp_path / "out" / "report.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "<td>majority</td><td>50.0</td>" in page
        and 'src="data:image' in page
        and page.count("http") == page.count("http://www.w3.org")
    )
    [packed] = (tmp_path / "out").glob("submissions/*.zip")
    with zipfile.ZipFile(packed) as files:
        assert files.namelist() == ["SST-2.tsv"]
        assert files.read("SST-2.tsv").decode().splitlines()[0] == "index\tprediction"
        assert len(files.read("SST-2.tsv").decode().splitlines()) == 3
    # Another recipe is another result; again, and everything is there, so nothing is trained.
    monkeypatch.setattr(sys, "argv", ["glue", *bench, "--recipe.epochs", "1"])
    assert main(glue.GLUE, "GLUE", "") == 1
    records = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert len(records) == 6 and records[-1]["recipe"]["epochs"] == 1
    # Shown is what this command asked for: one recipe, so nothing tells it apart from others.
    assert "epochs=" not in (tmp_path / "out" / "report.md").read_text().partition("Recipe")[0]
    monkeypatch.setattr("eval.finetune.benchmark.fine_tune", None)
    assert main(glue.GLUE, "GLUE", "") == 1
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--tasks", "COLA"], "Unknown task COLA; GLUE has CoLA, SST-2"),
        (["--checkpoints", "nowhere"], "There is no checkpoint at nowhere"),
        (["--recipe.epochs", "0"], "epochs is 0; it must be more than 0"),
        (["--seeds", "1", "1"], "each once"),
    ],
)
def test_impossible_requests_are_one_sentence(
    change: list[str], sentence: str, bench: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["glue", *bench, *change])
    try:
        code = main(glue.GLUE, "GLUE", "")
    except SystemExit as stop:  # the command line's own parser
        code = stop.code
    assert code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_tokenizer_that_does_not_fit_is_refused(
    bench: list[str],
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    other = tmp_path / "other"
    checkpoint.save(other, 1, tiny_model("tta", vocab_size=tokenizer.vocab_size + 1), {}, tokenizer.model)
    monkeypatch.setattr(sys, "argv", ["glue", *bench, "--checkpoints", str(other)])
    assert main(glue.GLUE, "GLUE", "") == 2
    assert "the tokenizer has 340 pieces and the model 341" in " ".join(capsys.readouterr().err.split())


def test_a_damaged_record_is_named(
    bench: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text('{"key": "x"')
    monkeypatch.setattr(sys, "argv", ["glue", *bench])
    assert main(glue.GLUE, "GLUE", "") == 1
    assert "results.jsonl, line 1: damaged" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "out" / "results.damaged.jsonl").read_text() == '{"key": "x"\n'
    assert len(read_lines(tmp_path / "out" / "results.jsonl")) == 4


def test_models_of_several_seeds_have_a_row(tmp_path: Path) -> None:
    """By hand: the means of local's checkpoints are 51 and 55, so 53 and a deviation of sqrt(8); vanilla has one seed."""
    scores = {"local-seed0": [50.0, 52.0], "local-seed1": [55.0, 55.0], "vanilla-seed0": [61.0], "majority": [40.0]}
    rest = {"task": "CoLA", "benchmark": "GLUE", "measures": ["mcc"], "recipe": {}, "extra": {}, "cut": {"train": 0}}
    rest |= {"best_epoch": 1, "tokens_per_second": 1.0}
    records = [
        {
            "checkpoint": f"runs/a/checkpoints/{name}",
            "seed": seed,
            "metrics": {"dev": {"mcc": score}},
            "key": name,
            **rest,
        }
        for name, own in scores.items()
        for seed, score in enumerate(own)
    ]
    expected = [["local", "2", "53.0 ± 2.8"], ["vanilla", "1", "61.0"], ["majority", "1", "40.0"]]
    assert Benchmark("GLUE", records).by_model() == (("by model", "seeds of pretraining", "CoLA"), expected)
    write_report(tmp_path, records)
    assert "| local | 2 | 53.0 ± 2.8 |" in (tmp_path / "report.md").read_text()
    assert "<td>local</td><td>2</td><td>53.0 ± 2.8</td>" in (tmp_path / "report.html").read_text()
    records[0]["diverged"] = True
    assert Benchmark("GLUE", records).by_model()[1][0] == ["local", "2", "-"]
    assert Benchmark("GLUE", [r for r in records if r["checkpoint"].endswith("0")]).by_model() is None
    for record in records:  # two runs may have two budgets, and are not averaged
        record["checkpoint"] = record["checkpoint"].replace("runs/a", f"runs/{record['checkpoint'][-1]}")
    assert Benchmark("GLUE", records).by_model() is None
