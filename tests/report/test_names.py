"""What tables call checkpoints."""

import pytest

from report.names import seeds_of, shortened

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


def test_checkpoints_that_differ_in_the_seed_alone_are_one_model() -> None:
    ours, theirs = (
        [f"{RUN}/local-seed{n}" for n in (0, 2)],
        [f"runs/b-seed{n}/checkpoints/vanilla-seed{n}" for n in (0, 1)],
    )
    assert seeds_of([*ours, *theirs, "hf:bert"]) == {
        "local": dict(zip((0, 2), ours)),
        "vanilla": dict(zip((0, 1), theirs)),
        "hf:bert": {0: "hf:bert"},
    }
    steps = [f"{RUN}/local-seed{seed}/step-{step:08}" for step in (10, 20) for seed in (0, 1)]
    assert seeds_of(steps) == {
        "local/step-00000010": {0: steps[0], 1: steps[1]},
        "local/step-00000020": {0: steps[2], 1: steps[3]},
    }
    assert seeds_of([f"{RUN}/local-seed0", f"{RUN}/vanilla-seed0"]) == {}
    assert seeds_of(["a/local-seed0", "b/local-seed1"]) == {}, "two runs may have two budgets, and are not averaged"
    assert seeds_of(["a-seed0/local-seed1", "a-seed1/local-seed1"]) == {}
