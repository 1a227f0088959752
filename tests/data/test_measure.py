from pathlib import Path

import pytest

from data.measure import measure, write_text


@pytest.mark.slow
def test_the_generated_text_hardly_repeats_a_line(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", 1)
    lines = [line for line in (tmp_path / "a.txt").read_text().split("\n") if len(line) > 20]
    assert len(lines) > 1_000 and len(set(lines)) > 0.99 * len(lines)
    write_text(tmp_path / "b.txt", 1)
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


@pytest.mark.slow
def test_a_gigabyte_is_encoded_fast_and_in_bounded_memory(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", 1_000)
    measured = measure(tmp_path / "a.txt", vocab_size=8192, threads=None)
    assert measured.peak_mib < 1_000
    assert measured.tokens / measured.encoding_seconds > 0.7e6
