"""EM and F1 of spans, as the script of CMRC 2018 gives them."""

import pytest

from eval.finetune.spans import exact, overlap, units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2008-2009年", ["20082009", "年"]),  # punctuation is dropped and splits nothing
        ("《红楼梦》,Dream", ["红", "楼", "梦", ",dream"]),  # a half-width comma is none to the script
        ("New York 市", ["new", "york", "市"]),
        ("", []),
    ],
)
def test_units(text: str, expected: list[str]) -> None:
    assert units(text) == expected


def test_exact_and_overlap_by_hand() -> None:
    assert overlap([("2008-2009年", 0)], "2009年") == pytest.approx(0.5)
    assert exact([("他说……", 0)], "他说") == 0.0 and exact([("他说。", 0), ("x", 0)], "他说") == 1.0
    assert overlap([("公园里", 0), ("去公园", 0)], "去公园看花") == pytest.approx(2 * 0.6 / 1.6)  # the better of two
    assert overlap([("公园", 0)], "") == 0.0 and exact([("公园", 0)], "") == 0.0
