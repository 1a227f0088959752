"""The machinery behind pretrain.py: budgets, optimisers, checkpoints, and the interleaved race of contestants."""
