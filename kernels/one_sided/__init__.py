"""Depthwise convolution that looks to one side: for keys and values that a reader of the other side may see."""

from .api import one_sided

__all__ = ["one_sided"]
