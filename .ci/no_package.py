"""Answers `pip install .` with a sentence. The folders here have names (data, model) that do not belong in site-packages."""

SENTENCE = (
    "twostream is run from its folder, not installed: `make pretrain` and `make test` build an environment of their own; "
    "to use your own, `pip install -r requirements.txt` and run Python from this folder."
)


def _refuse(*_: object, **__: object) -> str:
    raise SystemExit(SENTENCE)


build_wheel = build_sdist = build_editable = get_requires_for_build_wheel = get_requires_for_build_editable = _refuse
