"""Attention under a visibility: one stream, two streams, or the union of two sets of keys. See README.md."""

from .api import attention, two_stream_attention, union_attention

__all__ = ["attention", "two_stream_attention", "union_attention"]
