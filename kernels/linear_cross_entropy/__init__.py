"""Linear cross-entropy: the language-model head and its loss as one operator. README.md has the mathematics."""

from .api import TopK, linear_cross_entropy, linear_nll, linear_top_k

__all__ = ["TopK", "linear_cross_entropy", "linear_nll", "linear_top_k"]
