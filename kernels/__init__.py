"""Fused operators. Models use `kernels.attention` and `kernels.linear_cross_entropy`, and nothing else, for these two.

Every operator has a float64 reference that is its specification, a PyTorch path (the fast one on a CPU) and a Triton
path for CUDA. `kernels.dispatch` chooses. Nothing here imports Triton before it is used.
"""
