import pytest
import torch


@pytest.fixture(autouse=True)
def poisoned_memory():
    """PyTorch fills fresh memory with NaN and refuses operations whose result depends on the order of threads."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
