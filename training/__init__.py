"""The machinery behind pretrain.py: budgets, optimisers, checkpoints, the race of contestants, and its yardstick."""
