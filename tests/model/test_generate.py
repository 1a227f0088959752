"""A model that writes: what it sees, what it has cached, and what it finds."""

import itertools
import math

import pytest
import torch

from model.decoding import beam_search, draw, sample
from model.generate import Texts, Writer
from tests.model.models import tiny_model

PAIRS = [([1, 9, 8, 7, 6, 2], [11, 12, 13, 14, 15, 2]), ([1, 20, 2], [21, 22, 2]), ([1], [30, 31, 32, 33, 34, 35, 2])]
WRITERS = {
    "tta": ("tta", {}),
    "tta, bert": ("tta", {"preset": "bert"}),
    "local": ("local", {}),
    "local, words": ("local", {"options": (("words", 0.5), ("near", 3), ("taps", 1))}),
    "local, no taps, bert": ("local", {"preset": "bert", "options": (("taps", 0), ("near", 1))}),
    "vanilla": ("vanilla", {}),
    "vanilla, bert": ("vanilla", {"preset": "bert"}),
    "vanilla, narrow": ("vanilla", {"options": (("narrow", 1),)}),
}


def writer(name: str) -> Writer:
    architecture, options = WRITERS[name]
    torch.manual_seed(0)
    model = tiny_model(
        architecture, options.get("preset", "modern"), options=options.get("options", ()), n_layers=2, max_length=64
    )
    for p in model.parameters():  # taps and ends begin at zero
        torch.nn.init.normal_(p, std=0.3)
    return Writer(model).eval()


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_cached_gives_what_training_sees(name: str) -> None:
    """Token by token from the cache, and all at once in a padded batch: the same probabilities."""
    w = writer(name)
    nll = w.nll(Texts.of(PAIRS, 0, 3)).split([len(target) for _, target in PAIRS])
    for (source, target), expected in zip(PAIRS, nll):
        written, found = w.begin(source, 2), []
        for token in target:
            log_probs = written.log_probs()
            torch.testing.assert_close(log_probs[0], log_probs[1])
            found.append(-log_probs[0, token])
            written.append(torch.tensor([token, token]))
        torch.testing.assert_close(torch.stack(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_of_the_future_is_seen_and_all_of_the_past_is(name: str) -> None:
    w, (source, target) = writer(name), PAIRS[0]

    def states(source: list[int], target: list[int]) -> torch.Tensor:
        return w.states(Texts.of([(source, target)], 0, 3))

    before = states(source, target)
    for at in range(len(target)):
        changed = states(source, [*target[:at], 40, *target[at + 1 :]])
        assert torch.equal(changed[: at + 1], before[: at + 1])  # the position itself too
        assert at == len(target) - 1 or (changed[at + 1 :] != before[at + 1 :]).any(1).all()
    for at in range(len(source)):
        changed = states([*source[:at], 40, *source[at + 1 :]], target)
        assert (changed != before).any(1).all()
    longer = states(source, [*target, 17, 18])[: len(target)]
    torch.testing.assert_close(longer, before)  # nobody is told how long the target is


def test_rows_are_chosen_with_their_past() -> None:
    for name in ("local", "vanilla"):
        w = writer(name)
        written = w.begin([1, 9, 2], 2)
        written.append(torch.tensor([11, 12]))
        both = written.log_probs()
        written.select(torch.tensor([1, 1, 0]))
        torch.testing.assert_close(written.log_probs(), both[[1, 1, 0]])


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_that_holds_everything_finds_the_best(penalty: float) -> None:
    """By trying all targets of at most three tokens from four; the end is 2."""
    w, allowed = writer("local"), [2, 11, 12, 13]
    banned = [token for token in range(w.model.config.vocab_size) if token not in allowed]

    def log_prob(target: tuple[int, ...]) -> float:
        written, total = w.begin([1, 9, 8, 2]), 0.0
        for token in target:
            found = written.log_probs()[0]
            total += float(found[token])
            written.append(torch.tensor([token]))
        return total / len(target) ** penalty

    every = [
        t for n in (1, 2, 3) for t in itertools.product(allowed, repeat=n) if 2 not in t[:-1] and (t[-1] == 2 or n == 3)
    ]
    best = max(every, key=log_prob)
    found = beam_search(w, [1, 9, 8, 2], end=2, longest=3, beams=16, banned=banned, penalty=penalty)
    assert tuple(found) == tuple(t for t in best if t != 2)


def test_greedy_is_a_beam_of_one_and_sampling_from_the_likeliest() -> None:
    w = writer("vanilla")
    one = beam_search(w, [1, 9, 2], end=2, longest=6, beams=1)
    assert one == sample(w, [1, 9, 2], 2, 6, top_k=1) == sample(w, [1, 9, 2], 2, 6, top_p=1e-9)
    assert len(one) <= 6 and 2 not in one


def test_draws_are_from_the_nucleus() -> None:
    log_probs = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()[[2, 0, 3, 1]]  # 0: .15, 1: .5, 2: .05, 3: .3
    generator = torch.Generator().manual_seed(0)
    counts = [torch.bincount(torch.tensor([draw(log_probs, k, p, generator) for _ in range(4_000)]), minlength=4) / 4_000
              for k, p in ((0, 1.0), (2, 1.0), (0, 0.75), (0, 0.85))]  # fmt: skip
    expected = [
        [0.15, 0.5, 0.05, 0.3],
        [0, 5 / 8, 0, 3 / 8],
        [0, 5 / 8, 0, 3 / 8],
        [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95],
    ]
    for found, p in zip(counts, expected):
        assert found.tolist() == pytest.approx(p, abs=4 * math.sqrt(0.25 / 4_000))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("local", 150), pytest.param("vanilla", 400, marks=pytest.mark.slow)])
def test_it_learns_to_copy(name: str, steps: int) -> None:
    """Two tokens to copy, the last first, of 3,481 sources; the 32 that it is asked for are drawn like those it learned from."""
    torch.manual_seed(0)
    draw_ = torch.Generator().manual_seed(0)
    model = tiny_model(name, d_model=64, n_layers=2, n_heads=2, vocab_size=64, max_length=64)
    w = Writer(model)
    optimizer = torch.optim.AdamW(w.parameters(), lr=3e-3)
    for _ in range(steps):
        sources = torch.randint(5, 64, (32, 2), generator=draw_).tolist()
        loss = w.loss(Texts.of([([1, *s, 2], [*s[::-1], 2]) for s in sources], 0, 3))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    w.eval()
    found = [beam_search(w, [1, *s, 2], 2, 8, beams=2) == s[::-1] for s in sources]
    assert sum(found) >= 28


def test_who_cannot_write_says_so() -> None:
    for name, options, sentence in (
        ("bicausal", (), "bicausal cannot write; take a checkpoint of local, tta or vanilla"),
        ("vanilla", (("near", 2),), "read what comes next; take one without"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Writer(tiny_model(name, options=options))
    with pytest.raises(ValueError, match="text 1 has no target; both must have a token"):
        Texts.of([([1], [2]), ([1], [])], 0, 3)
    w = Writer(tiny_model("tta", max_length=8)).eval()
    written = w.begin([1] * 7)
    written.append(torch.tensor([9]))
    with pytest.raises(ValueError, match="The text has 8 tokens, and the model reads no more"):
        written.log_probs()
