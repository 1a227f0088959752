"""The scalars of a run to a tracker beside TensorBoard: `--track wandb` or `--track trackio`.

Both have the same three calls. Neither is a requirement, and what goes wrong there ends no training.
"""

import contextlib
import importlib
from typing import Any

PROJECT = "twostream"


class Tracker:
    """One run of `module`; nothing for no name."""

    def __init__(self, module: str, name: str, config: dict[str, Any]) -> None:
        self.module: Any = None
        if not module:
            return
        with contextlib.suppress(Exception):
            found = importlib.import_module(module)
            found.init(project=PROJECT, name=name, config=config)
            self.module = found

    def log(self, contestant: str, scalars: dict[str, float], step: int) -> None:
        """Named CONTESTANT/SCALAR: contestants train in turns, and each counts its own steps."""
        if self.module is not None and scalars:
            with contextlib.suppress(Exception):
                self.module.log(
                    {f"{contestant}/{name}": v for name, v in scalars.items()} | {f"{contestant}/step": step}
                )

    def finish(self) -> None:
        if self.module is not None:
            with contextlib.suppress(Exception):
                self.module.finish()
            self.module = None
