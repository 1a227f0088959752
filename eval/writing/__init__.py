"""Fine-tuning checkpoints to write: a target from a source, or the turns of a dialogue."""
