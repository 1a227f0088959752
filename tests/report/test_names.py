"""What tables call checkpoints."""

import pytest

from report.names import shortened

RUN = "runs/books/checkpoints"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([f"{RUN}/local-seed0", f"{RUN}/vanilla-seed0"], ["local-seed0", "vanilla-seed0"]),
        (["runs/a/checkpoints/local-seed0", "runs/b/checkpoints/local-seed0"], ["a/local-seed0", "b/local-seed0"]),
        ([f"{RUN}/local-seed0/step-00000010", f"{RUN}/local-seed0"], ["local-seed0/step-00000010", "local-seed0"]),
        ([f"{RUN}/a/step-00000010", f"{RUN}/b/step-00000010"], ["a/step-00000010", "b/step-00000010"]),
        (["majority", "hf:bert-base-uncased", "hf:someone/bert"], ["majority", "hf:bert-base-uncased", "bert"]),
        (["x/local", "local"], ["x/local", "local"]),
        (["/a/local", "a/local"], ["/a/local", "a/local"]),
        ([RUN], ["books"]),
        ([""], [""]),
    ],
)
def test_the_shortest_ends_that_differ(labels: list[str], expected: list[str]) -> None:
    found = shortened(labels)
    assert [found[label] for label in labels] == expected
    assert len(set(found.values())) == len(labels)
