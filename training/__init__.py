"""What pretrain.py is made of: budgets, optimisers, checkpoints, the training of several models in turns, and their
evaluation."""
