"""Few-shot: patterns that a masked language model fills."""
