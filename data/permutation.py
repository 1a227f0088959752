"""A pseudo-random permutation of range(n) in O(1) memory: any position of a shuffled order, without the shuffle.

A Feistel network (Luby and Rackoff, 1988) permutes the numbers of 2h bits; values outside range(n) are sent through
it again until they fall inside ("cycle walking", Black and Rogaway, 2002, section 3), which keeps it a permutation.
"""

from typing import TypeVar

import numpy as np

Integers = TypeVar("Integers", np.ndarray, int)

_ROUNDS = 6
_ALL_ONES = (1 << 64) - 1


def permute(index: np.ndarray, n: int, key: int) -> np.ndarray:
    """index, integers in range(n), of any shape -> their positions under the permutation of range(n) named by `key`."""
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)  # 2h bits hold n - 1; at most 4n values, so few are walked
    keys = [hash64(key, round) for round in range(_ROUNDS)]
    value = _feistel(index.astype(np.uint64), half, keys)
    while (outside := value >= n).any():
        value[outside] = _feistel(value[outside], half, keys)
    return value.astype(np.int64)


def hash64(*numbers: int) -> int:
    """A well-mixed 64-bit hash of non-negative integers (splitmix64 of Steele, Lea and Flood, 2014, chained)."""
    state = 0
    for number in numbers:
        state = _mix(state + (number + 1) * 0x9E3779B97F4A7C15 & _ALL_ONES)
    return state


def uniform(key: int, index: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each non-negative integer of `index`, the same for the same key and integer; float64."""
    mixed = _mix(index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(hash64(key)))
    return np.multiply(_mix(mixed) >> np.uint64(11), 2.0**-53)


def _feistel(value: np.ndarray, half: int, keys: list[int]) -> np.ndarray:
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << half | right


def _mix(x: Integers) -> Integers:
    """The finalizer of splitmix64, for a uint64 array or an int: arithmetic modulo 2**64 either way."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _ALL_ONES
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _ALL_ONES
    return x ^ (x >> 31)
