"""Quality by the width of the embedding, one run for each vocabulary."""

import json
from pathlib import Path

import pytest

from report.summary import Results
from report.widths import curves_of, figure, main
from tests.report.conftest import record


def run(folder: Path, pieces: int, bits: dict[tuple[str, int], float], **config) -> Path:
    """bits: by architecture and width, a character of the words of dev and test."""
    folder.mkdir()
    alike = {"seeds": [0], "data": {"corpus": "c"}, "evaluation": {}, "size": "tiny", "budget": "1e12flop"}
    contestants, records = {}, []
    for (architecture, width), value in bits.items():
        label = f"{architecture}:d_embed={width}"
        contestants[label] = {"architecture": architecture, "share": 1.0, "model": {"d_embed": width}}
        clusters = {"documents": [0, 1], "counts": [10, 10], "sums": [9 * value, 11 * value]}
        words = {"bits_per_character": value, "clusters": clusters}
        records.append(record(label, 0, 1.0, 3.0, last=True) | {"words": words, "dev_words": words})
    (folder / "run.json").write_text(json.dumps(alike | config))
    (folder / "facts.json").write_text(
        json.dumps(
            {"contestants": contestants, "corpus": {"vocab_size": pieces}, "identity": {"tokenizer": str(pieces)}}
        )
    )
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def test_widths_by_vocabulary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = run(tmp_path / "b", 16384, {("local", 16): 2.0, ("local", 64): 1.5, ("vanilla", 16): 3.0})
    one = run(tmp_path / "a", 4096, {("local", 64): 1.7, ("local", 16): 1.6})
    found = curves_of([Results.load(folder) for folder in (two, one)])
    assert [
        (c.architecture, c.vocabulary, *(w for w, told in c.against_best.items() if told == "best")) for c in found
    ] == [
        ("local", 4096, 16),
        ("local", 16384, 64),
        ("vanilla", 16384, 16),
    ]
    assert [round(c.predicted) for c in found] == [69, 81, 81]
    assert len(figure(found).axes) == 2
    assert main([str(two), str(one)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| local | 4,096 | 69 | 16 | 1.600 | 1.600 | best |"
    assert lines[3].startswith("| local | 4,096 | 69 | 64 | 1.700 | 1.700 | +0.100 ±")
    assert (two / "widths.png").stat().st_size > 1000


def test_runs_that_differ_in_more_are_refused(tmp_path: Path) -> None:
    folders = [run(tmp_path / n, 4096, {("local", 16): 2.0}, data={"corpus": n}) for n in "ab"]
    with pytest.raises(ValueError, match="differ in data.corpus: a and b"):
        curves_of([Results.load(folder) for folder in folders])
    none = Results.load(folders[0])
    none.curves["local:d_embed=16"][0][-1]["words"] = None
    with pytest.raises(ValueError, match="was not measured on whole words"):
        curves_of([none])
