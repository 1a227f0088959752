"""What a run's facts.json says: corpus, yardstick, and each contestant's size, arithmetic and settings."""

import dataclasses
import json
from typing import Any

import torch

from training.budget import Budget
from training.contestant import Contestant
from training.making import autocast_dtype
from training.memory import training_memory_bytes


def facts_of(run: Any) -> dict[str, Any]:
    """run: a training.run.Run, which imports this."""
    return {
        "corpus": dataclasses.asdict(run.corpus.info),
        "identity": run.identity(),
        "precision": str(autocast_dtype(run.config.precision, run.device) or torch.float32),
        "yardstick": {
            part: {"windows": len(y.tokens), "tokens": y.scored, "documents": len(set(y.origin.flatten().tolist()))}
            for part, y in (("dev", run.dev), ("test", run.test))
        },
        "notes": run.notes,
        "axis": Budget.parse(run.config.budget).kind,  # what the contestants have as much of
        "contestants": {
            c.label: {
                "architecture": c.entry.architecture,
                "family": c.entry.family,
                "kind": c.entry.kind,
                "share": c.entry.share,
                "parameters": c.model.parameter_count(),
                "flops_per_token": c.flops_per_step / c.tokens_per_step,
                "predicted_fraction": c.predicted_per_step / c.tokens_per_step,
                "memory_bytes": training_memory_bytes(c),
                "model": json.loads(c.model.config.to_json()),
                "optimizer": dataclasses.asdict(c.optimizer_config),
                **({"init": begun_from(run, c)} if c.entry.init else {}),
            }
            for c in run.contestants
            if c.seed == run.config.seeds[0]
        },
    }


def begun_from(run: Any, contestant: Contestant) -> dict[str, Any]:
    """The checkpoint that it started from; for a run that is resumed, as facts.json has it."""
    if (begun := run.warm_starts.get(contestant.label)) is not None:
        return dataclasses.asdict(begun)
    path = run.folder / "facts.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known.get("contestants", {}).get(contestant.label, {}).get("init", {"source": contestant.entry.init})
