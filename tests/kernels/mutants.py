"""Kernels with a bug put in on purpose: do the tests see it?"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import kernels


def mutant(
    tmp_path: Path, operator: str, sources: Sequence[str], name: str = "unchanged", file: str = "", old: str = "", new: str = ""
) -> ModuleType:  # fmt: skip
    """The operator's Triton path, imported from a copy of its sources in which `old` is replaced in one `file`."""
    package = tmp_path / f"mutant{abs(hash(name))}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for source in sources:
        text = (Path(kernels.__file__).parent / operator / source).read_text()
        if source == file:
            assert old in text, f"{old!r} is no longer in {file}: adapt the mutation {name!r}"
            text = text.replace(old, new)
        (package / source).write_text(text.replace("from ..", "from kernels."))
    sys.path.insert(0, str(tmp_path))
    try:
        return importlib.import_module(f"{package.name}.triton_path")
    finally:
        sys.path.remove(str(tmp_path))
