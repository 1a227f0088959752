"""Checkpoints that a kill at any moment cannot damage: written under another name, synced, then renamed; verified when read.

DIRECTORY/step-00001234/   model.safetensors   weights
                           config.json         the ModelConfig
                           tokenizer.model     the SentencePiece model its tokens came from
                           training.pt         optimiser states and progress
                           manifest.json       size and SHA-256 of each of these, written last
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from data.files import sync, sync_all, to_json
from model import MaskedLM, ModelConfig
from model.architectures import architecture_class

NEEDED = {"model.safetensors", "config.json", "tokenizer.model"}  # without these it is no checkpoint
KEEP = 2  # the newest, and the one before it should the newest turn out to be damaged


class DamagedCheckpoint(ValueError):
    """A checkpoint folder that is not what its manifest says."""


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(directory: Path, step: int, model: MaskedLM, training: dict[str, Any], tokenizer: bytes) -> Path:
    """Write a checkpoint and drop all but the newest two. Raises OSError, with the earlier ones intact.

    A step that is saved already is not written again: its state is the same.
    """
    final = directory / f"step-{step:08d}"
    if final.exists() and is_whole(final):
        return final
    temporary = directory / f".step-{step:08d}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_model(model, str(temporary / "model.safetensors"))
        (temporary / "config.json").write_text(model.config.to_json())
        (temporary / "tokenizer.model").write_bytes(tokenizer)
        torch.save(training, temporary / "training.pt")
        files = sorted(temporary.iterdir())
        manifest = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in files}
        (temporary / "manifest.json").write_text(to_json({"step": step, "files": manifest}, indent=2))
        sync_all(temporary)
        if final.exists():  # and is damaged
            shutil.rmtree(final)
        os.rename(temporary, final)
        sync(directory)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            getattr(error, "errno", None), f"Could not save {final}: {error}. Earlier checkpoints are untouched."
        ) from error
    for old in complete(directory)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def is_whole(path: Path) -> bool:
    try:
        verify(path)
    except DamagedCheckpoint:
        return False
    return True


def sweep(directory: Path) -> None:
    """Remove what killed saves left behind. Only for the one process that writes here."""
    for left in directory.glob(".step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def complete(directory: Path) -> list[Path]:
    """Complete checkpoint folders, oldest first. Copies under other names are not counted."""
    found = [path for path in directory.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def verify(path: Path) -> int:
    """Check a checkpoint against its manifest and return its step. Raises DamagedCheckpoint with what is wrong."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        if missing := NEEDED - manifest["files"].keys():
            raise DamagedCheckpoint(
                f"{path / 'manifest.json'} does not name {', '.join(sorted(missing))}: it is not a complete checkpoint."
            )
        for name, expected in manifest["files"].items():
            file = path / name
            if file.stat().st_size != expected["bytes"]:
                raise DamagedCheckpoint(
                    f"{file} has {file.stat().st_size} bytes, its manifest says {expected['bytes']}: it is truncated."
                )
            if digest(file) != expected["sha256"]:
                raise DamagedCheckpoint(
                    f"{file} does not match the SHA-256 in its manifest: it was changed or damaged."
                )
        return manifest["step"]
    except (OSError, KeyError, TypeError, AttributeError, RecursionError, UnicodeError, json.JSONDecodeError) as error:
        raise DamagedCheckpoint(
            f"{path} is not a complete checkpoint ({error}); expected model.safetensors, config.json, training.pt and "
            "manifest.json as `pretrain.py` writes them."
        ) from error


def last_good(directory: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and a sentence for each newer one that does not."""
    damaged: list[str] = []
    for path in reversed(complete(directory)):
        try:
            verify(path)
            return path, damaged
        except DamagedCheckpoint as error:
            damaged.append(str(error))
    return None, damaged


def whole_checkpoint(path: Path) -> Path:
    """The checkpoint folder `path`, verified, or the newest good one in a folder of checkpoints.

    Raises FileNotFoundError or DamagedCheckpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint at {path}; give a folder that `pretrain.py` wrote.")
    if (path / "manifest.json").exists():
        verify(path)
        return path
    newest, damaged = last_good(path)
    if newest is None:
        raise FileNotFoundError(" ".join([f"No whole checkpoint lies in {path}.", *damaged]))
    return newest


def load_model_from(path: Path, device: torch.device | str = "cpu") -> MaskedLM:
    """The model of a checkpoint folder, or of the newest good one in a folder of checkpoints.

    Raises FileNotFoundError or DamagedCheckpoint; ValueError for one whose architecture has got options since, whose defaults
    need not be what it was trained with, or whose weights no longer fit.
    """
    path = whole_checkpoint(Path(path))
    config = ModelConfig.from_json((path / "config.json").read_text())
    architecture = architecture_class(config.architecture)
    told = dict(architecture.added_options) | dict(config.options)
    known = {field.name for field in dataclasses.fields(architecture.Options)}
    if missing := sorted(known - told.keys()):
        raise ValueError(
            f"{path} was written before {config.architecture} had the option {' and '.join(missing)}, and may not be what the "
            "defaults make of it; read it with the revision of its run's report, or train it again."
        )
    config = dataclasses.replace(config, options=tuple(told.items()))
    model = MaskedLM(config)
    try:
        load_model(model, str(path / "model.safetensors"))
    except RuntimeError as error:  # names or shapes: `verify` has seen that the file is whole
        raise ValueError(
            f"The weights of {path} do not fit what this revision makes of its config.json ({str(error).splitlines()[0]}); read "
            "it with the revision of its run's report, or train it again."
        ) from error
    return model.to(device)


def load_training(path: Path) -> dict[str, Any]:
    return torch.load(path / "training.pt", weights_only=True, map_location="cpu")
