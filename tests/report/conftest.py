"""Records of runs that never were, for tests of what is made from them."""

import json
from pathlib import Path

import pytest

MACHINE = {"processor": "p", "threads": 2, "device": "cpu", "python": "3", "torch": "2", "git_revision": "r"}
MACHINE |= {"fp32_matmul": 2e9, "bf16_matmul": 8e9, "step": 0}


def record(contestant: str, seed: int, seconds: float, nll: float, last: bool = False) -> dict:
    clusters = {"documents": [1, 2], "counts": [10, 30], "sums": [10 * (nll - 0.3), 30 * (nll + 0.1)]}
    score = {"nll": nll, "standard_error": 0.1, "accuracy": 0.2, "clusters": clusters}
    score["passes"] = 16 if "vanilla" in contestant else 1
    spent = {"seconds": seconds, "flops": seconds * 1e9, "tokens": seconds * 100, "predicted_tokens": seconds * 50}
    return {"contestant": contestant, "architecture": contestant.partition(":")[0], "seed": seed, "step": seconds} | {
        **spent,
        "diverged": None,
        "sessions": [MACHINE],
        "curve": score,
        "dev": score if last else None,
        "final": score if last else None,
        "words": {"bits_per_character": nll / 2} if last else None,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = [
        record("tta", 0, 10, 5.0),
        record("tta", 0, 100, 3.0, last=True),
        record("tta", 1, 20, 5.0),
        record("tta", 1, 100, 3.2, last=True),
        record("vanilla", 0, 50, 6.0),
        record("vanilla", 0, 100, 5.0, last=True),
        record("vanilla", 1, 50, 6.0),
        record("vanilla", 1, 100, 5.0, last=True),
        record("vanilla:masking_rate=0.15", 0, 100, 6.0, last=True),
        record("vanilla:masking_rate=0.15", 1, 100, 6.0, last=True),
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    facts = {"parameters": 1000, "flops_per_token": 1e7, "predicted_fraction": 0.5, "memory_bytes": 2**20}
    contestants = {
        r["contestant"]: {**facts, "architecture": r["architecture"], "family": r["contestant"], "share": 1.0}
        for r in records
    }
    (tmp_path / "facts.json").write_text(json.dumps({"contestants": contestants, "precision": "torch.float32"}))
    (tmp_path / "run.json").write_text(json.dumps({"seeds": [0, 1]}))
    return tmp_path


@pytest.fixture
def frontier(folder: Path) -> Path:
    """tta at a quarter and at all of the budget: 5.5 and 3.1; vanilla ends at 5.0."""
    quarter = [record("tta:budget=0.25", seed, 25, 5.5, last=True) for seed in (0, 1)]
    text = (folder / "results.jsonl").read_text()
    (folder / "results.jsonl").write_text(text + "\n".join(map(json.dumps, quarter)) + "\n")
    facts = json.loads((folder / "facts.json").read_text())
    facts["contestants"]["tta:budget=0.25"] = {**facts["contestants"]["tta"], "family": "tta", "share": 0.25}
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder
