"""Depthwise convolution that looks to one side, for keys and values that a reader of the other side may see; or to both."""

from .api import one_sided
from .both import two_sided

__all__ = ["one_sided", "two_sided"]
