"""What the main job refuses, in one sentence and before anything is written; and what two processes may not do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data.files import held
from tests.training.runs import folder_of, interrupt_after, refused, run
from training.contestant import Contestant


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--architectures", "elektra"], "Unknown architecture 'elektra'; registered are"),
        (["--architectures", "tta:depth=3"], "'depth=3' is not an option=value that tta knows"),
        (["--architectures", "vanilla:masking_rate=2"], "masking rate of 2"),
        (["--budget", "soon"], "The budget 'soon' is not understood"),
        (["--nonsense", "3"], "--nonsense"),
        (["--size", "huge"], "huge"),
        (["--device", "warp"], "The device 'warp' cannot be used here"),
        (["--sequence-length", "0"], "sequence_length is 0; it must be more than 0"),
        (["--seeds", "1", "1"], "each once"),
        (["--seeds", "-1"], "0 and above"),
        (["--sequence-length", "4"], "must be at least 8 tokens"),
        (["--optimizer.learning-rate", "nan"], "learning_rate is nan; it must be a number"),
        (["--slice-seconds", "nan"], "slice_seconds is nan; it must be a number"),
        (["--workers", "2", "--budget", "5s"], "workers is 2 and the budget is wall-clock"),
        (["--architectures", "tta:bias=no", "tta:bias=false"], "named twice, in different words"),
        (["--batch-size", "100000"], "smaller than one batch"),
        (["--corpus", "nowhere.txt"], "nowhere.txt"),
        (["--vocab-size", "30000"], "vocabulary of 30000 is too large"),
        (["--resume", "nowhere"], "continues a run with its own configuration; drop --architectures"),
    ],
)
def test_impossible_options_are_one_sentence_and_code_2(
    base: list[str], options: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = set(folder_of(base, "").glob("*"))
    assert sentence in refused([*base, *options, "--name", "refused"], monkeypatch, capsys)
    assert set(folder_of(base, "").glob("*")) == before  # nothing half-written


def test_resuming_what_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert "holds no run (no run.json)" in refused(["--resume", str(tmp_path)], monkeypatch, capsys)
    (tmp_path / "run.json").write_text("{}")
    assert "is not what `pretrain.py` wrote" in refused(["--resume", str(tmp_path)], monkeypatch, capsys)


def test_an_option_beside_resume_is_not_answered_for_a_new_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Two workers would be refused with the default budget, by the clock, which is not that of the run."""
    said = refused(["--resume", str(tmp_path), "--workers", "2"], monkeypatch, capsys)
    assert "drop --workers" in said and "wall-clock" not in said


def test_a_name_taken_is_refused(
    base: list[str], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = [*base, "--budget", "1ktok", "--name", uninterrupted.name]
    assert "holds a run already" in refused(arguments, monkeypatch, capsys)


def test_a_checkpoint_of_another_configuration_is_refused(
    base: list[str], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = folder_of(base, "other")
    assert run([*base, "--budget", "1ktok", "--name", "other"], monkeypatch) == 0
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"preset": "modern"', '"preset": "bert"'))
    message = refused(["--resume", str(folder)], monkeypatch, capsys)
    assert "is from another configuration" in message and "norm 'pre' there and 'post' here" in message


def test_a_corpus_that_changed_meanwhile_is_refused(
    base: list[str], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    corpus = tmp_path / "mine.txt"
    corpus.write_text(text_file.read_text())
    assert run([*base, "--corpus", str(corpus), "--budget", "1ktok", "--name", "changed"], monkeypatch) == 0
    corpus.write_text(text_file.read_text() + "\n\nthe lamid often sees the denot.\n")
    message = refused(["--resume", str(folder_of(base, "changed"))], monkeypatch, capsys)
    assert "is not what it was when" in message and "another text" in message


@pytest.mark.parametrize("order", ["lines", "words"])
def test_a_corpus_with_the_same_counts_and_another_order_is_refused(
    order: str,
    base: list[str],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    corpus = tmp_path / "mine.txt"
    text = text_file.read_text()
    corpus.write_text(text)
    name = f"order-{order}"
    assert run([*base, "--corpus", str(corpus), "--budget", "1ktok", "--name", name], monkeypatch) == 0
    turned = "\n".join(" ".join(line.split()[::-1]) if order == "words" else line for line in text.split("\n"))
    if order == "lines":
        turned = "\n\n".join("\n".join(document.split("\n")[::-1]) for document in text.split("\n\n"))
    corpus.write_text(turned)
    assert "another text" in refused(["--resume", str(folder_of(base, name))], monkeypatch, capsys)


def test_a_run_without_its_facts_is_refused(
    base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run([*base, "--budget", "1ktok", "--name", "factless"], monkeypatch) == 0
    (folder_of(base, "factless") / "facts.json").unlink()
    assert "does not say which corpus" in refused(["--resume", str(folder_of(base, "factless"))], monkeypatch, capsys)


@pytest.mark.slow
def test_runs_started_in_one_second_have_folders_of_their_own(base: list[str], tmp_path: Path) -> None:
    arguments = [*base, "--budget", "2ktok", "--runs", str(tmp_path)]
    command = [sys.executable, "pretrain.py", *arguments]
    processes = [subprocess.Popen([*command, "--seeds", str(seed)], stdout=subprocess.DEVNULL) for seed in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    seeds = [{json.loads(line)["seed"] for line in (f / "results.jsonl").read_text().splitlines()} for f in folders]
    assert len(folders) == 2 and sorted(map(tuple, seeds)) == [(0,), (1,)]


def test_two_processes_do_not_train_one_run(
    base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    interrupt_after(monkeypatch, 2)
    assert run([*base, "--budget", "24ktok", "--name", "held", "--slice-seconds", "0.05"], monkeypatch) == 130
    folder = folder_of(base, "held")
    with held(folder / ".lock", "unused"):
        message = refused(["--resume", str(folder)], monkeypatch, capsys)
    assert "is being trained by another process" in message


def test_out_of_memory_is_one_sentence(
    base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for error in (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError()):

        def fails(*args: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(Contestant, "warm_up", fails)
        name = f"memory-{type(error).__name__}"
        message = refused([*base, "--budget", "1ktok", "--name", name], monkeypatch, capsys)
        assert "out of memory; lower --batch-size and raise --accumulate" in message


@pytest.mark.parametrize("vocabulary", ["5", "64", "324"])
def test_a_dry_run_refuses_what_a_run_refuses(
    vocabulary: str, base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    said = [refused([*base, "--vocab-size", vocabulary, *more], monkeypatch, capsys) for more in ([], ["--dry-run"])]
    assert said[0] == said[1] and "take 325 or more" in said[0]


def test_dry_run_trains_nothing(
    base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run([*base, "--budget", "1Mtok", "--name", "dry", "--dry-run"], monkeypatch) == 0
    words = capsys.readouterr().out.split()
    assert "3,906" in words and "FLOPs" in words  # 1e6 / (8 x 32) steps
    assert not folder_of(base, "dry").exists()
