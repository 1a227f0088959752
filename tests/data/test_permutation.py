import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.permutation import hash64, permute


@given(n=st.integers(1, 3_000), key=st.integers(0, 2**64 - 1))
def test_is_a_permutation(n: int, key: int) -> None:
    assert sorted(permute(np.arange(n), n, key)) == list(range(n))


@given(n=st.integers(1, 2**40), key=st.integers(0, 2**64 - 1), data=st.data())
def test_each_position_is_a_function_of_itself_alone(n: int, key: int, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    together = permute(positions, n, key)
    assert ((together >= 0) & (together < n)).all()
    assert [int(permute(position[None], n, key)[0]) for position in positions] == together.tolist()


def test_every_position_is_equally_likely() -> None:
    """Over many keys, where 0 goes is uniform: chi-squared with 9 degrees of freedom is below 40 but once in 10**5."""
    images = np.array([permute(np.array([0]), 10, hash64(key))[0] for key in range(2_000)])
    counts = np.bincount(images, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 40


def test_neighbours_are_separated() -> None:
    """A shuffled order of n has about one pair of neighbours that stays in sequence, whatever n is."""
    for n in (1_000, 1_024, 100_000):
        steps = np.diff(permute(np.arange(n), n, 7))
        assert (steps == 1).sum() < 12
        assert np.abs(steps).mean() == pytest.approx(n / 3, rel=0.1)


def test_hash64_separates_its_arguments() -> None:
    hashes = [hash64(a, b) for a in range(50) for b in range(50)] + [hash64(a) for a in range(50)]
    assert len(set(hashes)) == len(hashes)


def test_the_order_of_the_data_never_changes() -> None:
    """A run resumed with a later version of the code reads the same batches."""
    assert permute(np.arange(12), 12, 0).tolist() == [9, 11, 10, 8, 7, 3, 1, 5, 2, 0, 6, 4]
    assert hash64(1, 2, 3) == 2869315087210772132
