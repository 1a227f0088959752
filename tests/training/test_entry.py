"""Contestants as they are named: what is meant is done, anything else is refused with what was expected."""

import pytest

from training.entry import Entry


def test_every_kind_of_option_finds_its_home() -> None:
    entry = Entry.parse("vanilla:masking_rate=0.4,learning_rate=2e-3,optimizer=adamw,n_layers=2,budget=0.25")
    assert entry.options == (("masking_rate", 0.4),)
    assert dict(entry.optimizer) == {"learning_rate": 2e-3, "name": "adamw"}
    assert entry.model == (("n_layers", 2),) and entry.share == 0.25


@pytest.mark.parametrize(
    ("text", "home", "value"),
    [
        *((f"tta:bias={word}", "model", ("bias", False)) for word in ("false", "False", "no", "off", "0")),
        *((f"tta:bias={word}", "model", ("bias", True)) for word in ("true", "yes", "on", "1")),
        ("tta:betas=0.9+0.95", "optimizer", ("betas", (0.9, 0.95))),
        ("tta:betas=(0.9,0.95)", "optimizer", ("betas", (0.9, 0.95))),
        ("tta:clip=0", "optimizer", ("clip", 0)),
        ("vanilla:final_masking_rate=none", "options", ("final_masking_rate", None)),
        ("vanilla:masking_scheme=bert", "options", ("masking_scheme", "bert")),
    ],
)
def test_values_are_of_the_type_that_the_option_declares(text: str, home: str, value: tuple) -> None:
    assert getattr(Entry.parse(text), home) == (value,)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tta:optimizer=adam", "optimizer must be one of muon, adamw"),
        ("tta:optimizer=Muon", "optimizer must be one of muon, adamw"),
        ("tta:norm=Pre", "norm must be one of pre, post"),
        ("tta:feed_forward=swiglu", "feed_forward must be one of gated, gelu"),
        ("tta:bias=maybe", "bias must be true or false"),
        ("tta:n_layers=2.0", "n_layers must be a whole number"),
        ("tta:n_layers=two", "n_layers must be a whole number"),
        ("tta:clip=off", "clip must be a number"),
        ("tta:learning_rate=nan", "learning_rate must be a number"),
        ("tta:learning_rate=1e400", "learning_rate must be a number"),
        ("tta:learning_rate=True", "learning_rate must be a number"),
        ("tta:betas=0.9", "betas must be 2 numbers"),
        ("tta:momentum=1.5", r"must lie in \[0, 1\)"),
        ("vanilla:masking_rate=high", "masking_rate must be a number"),
        ("vanilla:final_masking_rate=abc", "final_masking_rate must be a number or none"),
        ("vanilla:masking_rate=30%", "masking_rate must be a number"),
        ("vanilla:masking_scheme=BERT", "masking_scheme must be one of mask, bert"),
        ("tta:budget=0", r"it must lie in \(0, 1\]"),
        ("tta:budget=2", r"it must lie in \(0, 1\]"),
        ("tta:n_layers=2,n_layers=3", "n_layers is given twice"),
        ("tta:", "'' is not an option=value that tta knows"),
        ("tta:vocab_size=9", "'vocab_size=9' is not an option=value"),
    ],
)
def test_other_values_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Entry.parse(text)


def test_a_family_differs_in_its_share_alone() -> None:
    labels = ["tta:budget=0.25", "tta", "tta:n_layers=2,budget=0.5", "tta:budget=0.5,n_layers=2"]
    assert [Entry.parse(text).family for text in labels] == ["tta", "tta", "tta:n_layers=2", "tta:n_layers=2"]
    assert Entry.parse("tta:bias=no").identity == Entry.parse("tta:bias=false").identity
