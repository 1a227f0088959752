"""Evaluation of pretrained checkpoints."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # before torch loads OpenMP; see pretrain.py
