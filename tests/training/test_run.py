"""The main job end to end, on a small corpus and tiny models: reports, interruption, resumption, divergence, shares."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from model import MaskedLM
from model.architectures import REGISTRY, Architecture
from model.architectures.tta import TTA
from report.summary import Results
from tests.training.runs import TINY, assert_identical, folder_of, interrupt_after, numbers, run
from training import checkpoint, machine
from training.config import PretrainConfig
from training.contestant import Contestant
from training.entry import Entry
from training.making import model_config
from training.run import key as run_key


def test_a_run_leaves_its_report(uninterrupted: Path) -> None:
    page = (uninterrupted / "report.html").read_text()
    assert "data:image/svg+xml;base64," in page and not re.search(r'(src|href)="(?!data:)', page)
    text = (uninterrupted / "report.md").read_text()
    for wanted in (
        "equals vanilla at",
        "behind the best",
        "tokens/s",
        "matmul",
        "passes",
        "seeds",
        "revision",
        "leave-one-out NLL",
    ):
        assert wanted in text and wanted in page, wanted
    assert (uninterrupted / "report.png").read_bytes()[:4] == b"\x89PNG"
    examples = json.loads((uninterrupted / "examples.json").read_text())["examples"]
    assert examples and all(len(e["predictions"]) == 2 for e in examples)
    pieces = [piece for e in examples for shown in e["predictions"].values() for piece, _ in shown]
    assert all(piece.strip() and "▁" not in piece for piece in pieces)
    assert list((uninterrupted / "tensorboard").glob("*/events*"))


def test_both_models_spend_the_same_and_learn(uninterrupted: Path) -> None:
    records = [json.loads(line) for line in (uninterrupted / "results.jsonl").read_text().splitlines()]
    ends = [record for record in records if record["final"]]
    assert [end["tokens"] for end in ends] == [24_064, 24_064]  # 94 steps of 256 tokens
    assert {end["architecture"]: end["final"]["passes"] for end in ends} == {"tta": 1, "vanilla": 32}
    for label in {record["contestant"] for record in records}:
        curve = [record["curve"]["nll"] for record in records if record["contestant"] == label]
        assert len(curve) == 4 and curve[-1] < 0.8 * curve[0]


def test_the_same_run_again_is_the_same_bits(
    base: list[str], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run([*base, "--budget", "24ktok", "--name", "again", "--slice-seconds", "0.05"], monkeypatch) == 0
    assert_identical(uninterrupted, folder_of(base, "again"))


def test_interrupted_and_resumed_is_the_same_bits(
    base: list[str], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    slices = interrupt_after(monkeypatch, 3, 7)
    arguments = [*base, "--budget", "24ktok", "--name", "stopped", "--slice-seconds", "0.1"]
    folder = folder_of(base, "stopped")
    assert run(arguments, monkeypatch) == 130
    assert f"--resume {folder}" in capsys.readouterr().out.replace("\n", "")
    assert run(["--resume", str(folder)], monkeypatch) == 130
    page = (folder / "report.html").read_text()  # what is known; a browser need not look again
    assert "unfinished" in page and 'http-equiv="refresh"' not in page
    assert run(["--resume", str(folder)], monkeypatch) == 0
    assert len(slices) > 7
    assert_identical(uninterrupted, folder)


@pytest.mark.slow
def test_flop_budgets_resume_to_the_same_bits(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*base, "--budget", "4e9flop"]
    assert run([*arguments, "--name", "flop-whole"], monkeypatch) == 0
    interrupt_after(monkeypatch, 2, by=signal.SIGTERM)
    assert run([*arguments, "--name", "flop-stopped"], monkeypatch) == 130
    assert run(["--resume", str(folder_of(base, "flop-stopped"))], monkeypatch) == 0
    assert_identical(folder_of(base, "flop-whole"), folder_of(base, "flop-stopped"))


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_bits(
    base: list[str], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 while it trains, saves or evaluates: it goes on from the newest whole checkpoint."""
    folder = folder_of(base, "killed")
    arguments = [*base, "--budget", "24ktok", "--name", "killed", "--slice-seconds", "0.05", "--save-seconds", "0.05"]
    process = subprocess.Popen([sys.executable, "pretrain.py", *arguments], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("checkpoints/*/step-*"))) < 4:
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert any(c.name != "step-00000094" for c in folder.glob("checkpoints/*/step-*"))
    assert run(["--resume", str(folder)], monkeypatch) == 0
    assert_identical(uninterrupted, folder)


def test_a_wall_clock_run_goes_on_from_the_time_spent(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = interrupt_after(monkeypatch, 4)
    assert run([*base, "--budget", "1s", "--name", "clock"], monkeypatch) == 130
    folder = folder_of(base, "clock")
    before = max(calls)
    assert run(["--resume", str(folder)], monkeypatch) == 0
    seconds = [json.loads(line)["seconds"] for line in (folder / "results.jsonl").read_text().splitlines()]
    assert min(calls[4:]) > min(calls[:4]) and before < 1 <= max(seconds)


def test_resume_skips_a_damaged_checkpoint(
    base: list[str], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    interrupt_after(monkeypatch, 4)
    arguments = [*base, "--budget", "24ktok", "--name", "damaged", "--slice-seconds", "0.05", "--save-seconds", "0.01"]
    assert run(arguments, monkeypatch) == 130
    folder = folder_of(base, "damaged")
    # On a busy machine one of the two may have had a single turn, and so a single checkpoint.
    newest = max((checkpoint.complete(own) for own in (folder / "checkpoints").iterdir()), key=len)[-1]
    (newest / "model.safetensors").write_bytes(b"torn")
    assert run(["--resume", str(folder)], monkeypatch) == 0
    assert "truncated" in capsys.readouterr().out
    assert_identical(uninterrupted, folder)


def test_several_seeds_give_a_spread(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run([*base, "--budget", "3ktok", "--name", "seeds", "--seeds", "0", "1"], monkeypatch) == 0
    report = (folder_of(base, "seeds") / "report.md").read_text()
    assert " ± " in report and "seeds: 0 1" in report


def test_a_model_that_cannot_hide_words_is_measured_on_tokens(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(TTA):
        leave_one_out = Architecture.leave_one_out

    monkeypatch.setitem(REGISTRY, "plain", Plain)
    architectures = ["--architectures", f"plain:{TINY}", f"tta:{TINY}", f"vanilla:{TINY}"]
    assert run([*base, *architectures, "--budget", "3ktok", "--name", "plain"], monkeypatch) == 0
    folder = folder_of(base, "plain")
    rows = {row.label.split(":")[0]: row for row in Results.load(folder).rows()}
    assert rows["plain"].nll is not None and rows["plain"].words is None and rows["tta"].words is not None
    assert (
        f"plain:{TINY} cannot hide whole words, so that it is measured on tokens alone."
        in (folder / "report.md").read_text()
    )


def test_labels_that_differ_have_folders_that_differ() -> None:
    labels = ["tta:a=b", "tta_a=b", "tta:a,b", "tta:a:b", "tta@a=b", "tta:A=b", "x" * 300, "x" * 301]
    keys = {run_key(SimpleNamespace(label=label, seed=0)) for label in labels}
    assert len(keys) == len(labels) and all(len(key) < 200 and "/" not in key for key in keys)


def test_a_model_that_diverges_is_said_and_left_out(
    base: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lost = f"vanilla:{TINY},learning_rate=1e30"
    arguments = [*base, "--architectures", lost, f"tta:{TINY}", f"vanilla:{TINY},masking_rate=0.15"]
    assert run([*arguments, "--budget", "6ktok", "--name", "nan", "--seeds", "0", "1"], monkeypatch) == 1
    folder = folder_of(base, "nan")
    text = (folder / "results.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    results = Results.load(folder)
    assert results.baseline == f"vanilla:{TINY},masking_rate=0.15"
    assert [row.state for row in results.rows()] == ["finished", "finished", "diverged"]
    assert f"{lost} diverged at" in results.verdict() and "nan" not in results.verdict().replace("nats", "")
    report = (folder / "report.md").read_text()
    assert "diverged at" in report and "| nan" not in report
    # Continued, it stays lost: nobody trains it again, and the report is the same.
    assert run(["--resume", str(folder)], monkeypatch) == 1
    assert (folder / "results.jsonl").read_text() == text


def test_a_diverged_model_keeps_its_last_sound_checkpoint(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    step = Contestant.step

    def spoilt(self: Contestant, rate: float) -> tuple:
        if self.progress.step >= 12:
            next(self.model.parameters()).data.fill_(float("nan"))
        return step(self, rate)

    monkeypatch.setattr(Contestant, "step", spoilt)
    arguments = [*base, "--architectures", f"tta:{TINY}", "--budget", "24ktok", "--name", "sound"]
    assert run([*arguments, "--slice-seconds", "0.01", "--save-seconds", "0.001"], monkeypatch) == 1
    kept, _ = checkpoint.last_good(next((folder_of(base, "sound") / "checkpoints").iterdir()))
    assert all(tensor.isfinite().all() for tensor in load_file(kept / "model.safetensors").values())


def test_one_contestant_that_fails_takes_no_other_with_it(
    base: list[str], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The other ends as ever; what failed is said with its name, its traceback is kept, and the run goes on from there."""
    train = Contestant.train

    def fail(self: Contestant, seconds: float, until: float) -> None:
        if self.label.startswith("vanilla") and self.progress.step > 10:
            raise RuntimeError("something nobody thought of")
        train(self, seconds, until)

    with monkeypatch.context() as patched:
        patched.setattr(Contestant, "train", fail)
        assert run([*base, "--budget", "24ktok", "--name", "failing"], patched) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "vanilla" in told
        and "something nobody thought of (RuntimeError; see errors.log)" in told
        and "--resume" in told
    )
    folder = folder_of(base, "failing")
    assert "Traceback" in (folder / "errors.log").read_text()
    assert run(["--resume", str(folder)], monkeypatch) == 0
    assert_identical(uninterrupted, folder)


@pytest.mark.slow
def test_side_by_side_is_the_same_bits(base: list[str], uninterrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, one contestant each, against turns in one; and the report is written all the same."""
    assert run([*base, "--budget", "24ktok", "--name", "beside", "--workers", "2"], monkeypatch) == 0
    assert_identical(uninterrupted, folder_of(base, "beside"))
    assert (folder_of(base, "beside") / "report.html").exists()


def test_a_share_of_the_budget_is_annealed_to_its_own_end(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [*base, "--architectures", f"tta:{TINY},budget=0.25", f"tta:{TINY}", f"vanilla:{TINY}"]
    assert run([*arguments, "--budget", "8ktok", "--name", "share"], monkeypatch) == 0
    folder = folder_of(base, "share")
    ends = {
        r["contestant"]: r for r in map(json.loads, (folder / "results.jsonl").read_text().splitlines()) if r["final"]
    }
    quarter = ends[f"tta:{TINY},budget=0.25"]
    assert quarter["tokens"] == 2048 and quarter["learning_rate"] < 1e-3  # near zero at its own end
    assert ends[f"tta:{TINY}"]["tokens"] == 8192
    assert set(Results.load(folder).families()) == {f"tta:{TINY}"}


@pytest.mark.slow
def test_the_default_evaluation_fits_a_small_corpus(
    base: list[str], text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Asked for more than was held out, it takes what there is and says so."""
    arguments = [
        *base,
        "--evaluation.tokens",
        "4096",
        "--evaluation.curve-tokens",
        "1024",
        "--evaluation.positions",
        "16",
    ]
    assert run([*arguments, "--budget", "2ktok", "--name", "small"], monkeypatch) == 0
    assert "not on the 4,096 asked for" in " ".join(capsys.readouterr().out.split())
    yardstick = json.loads((folder_of(base, "small") / "facts.json").read_text())["yardstick"]
    assert 0 < yardstick["test"]["tokens"] < 4096
    assert "asked for" in (folder_of(base, "small") / "report.md").read_text()


@pytest.mark.slow
def test_accumulated_batches_are_the_step_they_stand_for(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks by sample, positions counted alike: the same losses and nearly the same weights, dropout included."""
    for name, sizes in (("one", ("8", "1")), ("two", ("2", "4"))):
        options = ["--batch-size", sizes[0], "--accumulate", sizes[1], "--dropout", "0.1", "--budget", "4ktok"]
        assert run([*base, *options, "--name", f"accumulate-{name}"], monkeypatch) == 0
    one, two = (numbers(folder_of(base, f"accumulate-{name}")) for name in ("one", "two"))
    assert [r["predicted_tokens"] for r in one] == [r["predicted_tokens"] for r in two]
    assert [r["curve"]["nll"] for r in one] == pytest.approx([r["curve"]["nll"] for r in two], rel=1e-4)


def test_a_model_learns(base: list[str], uninterrupted: Path) -> None:
    """A floor, so that a step that only looks like training is noticed."""
    ends = [json.loads(line) for line in (uninterrupted / "results.jsonl").read_text().splitlines()]
    final = {end["architecture"]: end["final"]["nll"] for end in ends if end["final"]}
    assert final["tta"] < 3.6 and final["vanilla"] < 4.4  # a uniform guess: 5.8


@pytest.mark.slow
def test_a_machine_with_two_threads_trains(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All other tests run on one thread."""
    torch.set_num_threads(2)
    try:
        assert run([*base, "--budget", "1s", "--name", "threads"], monkeypatch) == 0
    finally:
        torch.set_num_threads(1)
    sessions = [
        json.loads(line)["sessions"] for line in (folder_of(base, "threads") / "results.jsonl").read_text().splitlines()
    ]
    assert all(s[0]["threads"] == 2 for s in sessions)


def test_names_of_files_need_not_be_text(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the corpus, and of a file that is left out; in the records, the report and on resumption."""
    corpus = Path(base[base.index("--corpus") + 1])
    odd = corpus.with_name(os.fsdecode(b"na\xefve"))
    odd.mkdir(exist_ok=True)
    shutil.copy(corpus, odd / "text.txt")
    (odd / os.fsdecode(b"caf\xe9.doc")).write_text("no")
    arguments = [*base, "--architectures", f"tta:{TINY}", "--name", "odd", "--budget", "2ktok"]
    arguments[arguments.index("--corpus") + 1] = str(odd)
    assert run(arguments, monkeypatch) == 0
    assert (folder_of(base, "odd") / "report.html").read_text()
    assert run(["--resume", str(folder_of(base, "odd"))], monkeypatch) == 0


def test_sessions_are_remembered(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, 3)
    arguments = [*base, "--budget", "6ktok", "--name", "sessions", "--slice-seconds", "0.01"]
    assert run(arguments, monkeypatch) == 130
    folder = folder_of(base, "sessions")
    monkeypatch.setattr(machine, "git_revision", lambda: "another")
    assert run(["--resume", str(folder)], monkeypatch) == 0
    last = json.loads((folder / "results.jsonl").read_text().splitlines()[-1])
    assert len(last["sessions"]) == 2 and last["sessions"][1]["step"] > 0
    assert [s["git_revision"] == "another" for s in last["sessions"]] == [False, True]
    assert "revision another" in (folder / "report.md").read_text()


def test_run_configuration_survives_json() -> None:
    config = PretrainConfig(architectures=("tta",), seeds=(3, 4))
    assert PretrainConfig.from_json(config.to_json()) == config
    older = json.loads(config.to_json())
    older["evaluation"]["places"] = older["evaluation"].pop("positions")
    del (
        older["optimizer"]["regulariser"],
        older["data"]["lang"],
        older["data"]["tokenizer_kind"],
        older["data"]["words"],
    )
    assert PretrainConfig.from_json(json.dumps(older)) == config


def test_a_checkpoint_names_every_option_of_its_architecture() -> None:
    config = model_config(PretrainConfig(), Entry.parse("local:near=3"), vocab_size=64, mask_id=3)
    assert dict(MaskedLM(config).config.options) == {
        "near": 3,
        "taps": 2,
        "words": 0.25,
        "rest": 0.25,
    }
