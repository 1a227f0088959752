"""Masked language models: one contract, many architectures. See model/architectures/ for what differs between them."""

from model.config import ModelConfig, Size, size_names
from model.masked_lm import LeaveOneOut, MaskedLM, PseudoLogLikelihood

__all__ = ["LeaveOneOut", "MaskedLM", "ModelConfig", "PseudoLogLikelihood", "Size", "size_names"]
