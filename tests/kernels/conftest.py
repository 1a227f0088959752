"""Kernels run in Triton's interpreter here, strictly: see strict_interpreter.py. TRITON_INTERPRET is set in
tests/conftest.py; whatever compiles for a GPU does so in a process of its own, without it."""

import pytest


@pytest.fixture
def strict_interpreter():
    """Every kernel launched by the test runs strictly."""
    from strict_interpreter import strict

    with strict(seed=0):
        yield
