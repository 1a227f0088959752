"""The registry: an architecture is one file here, imported and named below; everything else picks it up."""

from model.architectures.base import Architecture
from model.architectures.bicausal import Bicausal
from model.architectures.causal_first import CausalFirst
from model.architectures.electra import Electra
from model.architectures.local import Local
from model.architectures.partition import Partition
from model.architectures.permuted import Permuted
from model.architectures.rtd import RTD
from model.architectures.tta import TTA
from model.architectures.vanilla import Vanilla

REGISTRY: dict[str, type[Architecture]] = {
    "bicausal": Bicausal,
    "causal_first": CausalFirst,
    "electra": Electra,
    "local": Local,
    "partition": Partition,
    "permuted": Permuted,
    "rtd": RTD,
    "tta": TTA,
    "vanilla": Vanilla,
}


def architecture_class(name: str) -> type[Architecture]:
    """The registered class. Raises ValueError for an unknown name."""
    if name not in REGISTRY:
        raise ValueError(f"Unknown architecture {name!r}; registered are {', '.join(sorted(REGISTRY))}.")
    return REGISTRY[name]


__all__ = ["REGISTRY", "Architecture", "architecture_class"]
