"""Text to batches: corpora -> tokenizer -> shards -> batches. `prepare` does the first three, `Batches` the last."""
