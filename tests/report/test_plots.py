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


def test_many_contestants_are_told_apart_and_leave_the_panels_their_room(folder: Path) -> None:
    facts = json.loads((folder / "facts.json").read_text())
    names = [f"local:near={n},a_rather_long_option=1234567890" for n in range(20)]
    for name in names:
        facts["contestants"][name] = {**facts["contestants"]["tta"], "architecture": "local", "family": name}
    (folder / "facts.json").write_text(json.dumps(facts | {"axis": "seconds"}))
    with (folder / "results.jsonl").open("a") as file:
        for name in names:
            for seed in (0, 1):
                file.write(
                    json.dumps(record(name, seed, 50, 4.0))
                    + "\n"
                    + json.dumps(record(name, seed, 100, 3.0, True))
                    + "\n"
                )
    results = Results.load(folder)
    figure = plots.answer(results)
    figure.draw_without_rendering()
    lines = figure.legends[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines) >= 20
    assert min(axes.get_window_extent().height / figure.dpi for axes in figure.axes) > 2.5  # inches
