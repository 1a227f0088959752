"""Attention under a visibility: one stream, two streams, or the union of two sets of keys. See README.md."""

from .api import attention, two_stream_attention, union_attention
from .spans import Spans, spans_of

__all__ = ["Spans", "attention", "spans_of", "two_stream_attention", "union_attention"]
