"""The scalars of a run: to TensorBoard, and to a tracker beside it (`--track wandb` or `--track trackio`).

Both trackers have the same three calls. Neither is required. Errors here, such as a full disk or no network, do not stop
training.
"""

import contextlib
import importlib
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from data.extras import missing

PROJECT = "twostream"


class Scalars:
    """track: the tracker's module, or nothing. Raises ValueError where that is not installed."""

    def __init__(self, track: str, config: dict[str, Any]) -> None:
        if track and missing(track):
            raise ValueError(f"--track {track} needs the package {track}; install it with pip install {track}.")
        self.track, self.config = track, config
        self.writers: dict[str, SummaryWriter] = {}
        self.tracker: Any = None  # its module, once its run has begun

    def log(self, folder: Path, contestant: str, scalars: dict[str, float], step: int) -> None:
        """folder: of the run. A tracker sees CONTESTANT/SCALAR: contestants train in turns, and each counts its own steps."""
        if not scalars:
            return
        with contextlib.suppress(OSError):
            if contestant not in self.writers:
                position = str(folder / "tensorboard" / contestant)
                self.writers[contestant] = SummaryWriter(position, purge_step=step)
            for name, value in scalars.items():
                self.writers[contestant].add_scalar(name, value, step)
        if self.track:
            with contextlib.suppress(Exception):
                if self.tracker is None:
                    module = importlib.import_module(self.track)
                    module.init(project=PROJECT, name=folder.name, config=self.config)
                    self.tracker = module
                named = {f"{contestant}/{name}": value for name, value in scalars.items()}
                self.tracker.log(named | {f"{contestant}/step": step})

    def close(self) -> None:
        if self.tracker is not None:
            with contextlib.suppress(Exception):
                self.tracker.finish()
            self.tracker = None
        for writer in self.writers.values():
            with contextlib.suppress(OSError):
                writer.close()
