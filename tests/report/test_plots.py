import json
from pathlib import Path

from report import plots
from report.summary import Results
from tests.report.conftest import record


def test_every_curve_has_its_name_in_the_legend(frontier: Path) -> None:
    """The second panel shows contestants that the first, which is of shares, does not."""
    facts = json.loads((frontier / "facts.json").read_text())
    facts["contestants"]["local"] = {**facts["contestants"]["tta"], "family": "local"}
    (frontier / "facts.json").write_text(json.dumps(facts | {"axis": "seconds"}))
    with (frontier / "results.jsonl").open("a") as file:
        file.writelines(json.dumps(record("local", seed, 100, 2.0, last=True)) + "\n" for seed in (0, 1))
    results = Results.load(frontier)
    figure = plots.answer(results)
    told = {line.get_color() for line in figure.legends[0].get_lines()}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == set(plots.colours(results).values())
    assert "local" in names and names.count("tta") == 1
