"""Checkpoints in tables: the shortest ends of their paths that tell them apart, and which are one model of several seeds.

Records and keys keep the whole paths.
"""

import re
from collections.abc import Sequence

SEED = r"-seed(\d+)(?=/|$)"
"""What ends the name of a checkpoint's folder, or of a run with one seed."""


def shortened(labels: Sequence[str]) -> dict[str, str]:
    """By label what a table calls it. `checkpoints`, which all runs have, tells nothing; a step alone neither."""
    parts = {
        label: [part for part in label.split("/") if part not in ("", "checkpoints")] or [label] for label in labels
    }
    found = {}
    for label, own in parts.items():
        others = [other for name, other in parts.items() if name != label]
        count = 2 if own[-1].startswith("step-") else 1
        while count < len(own) and any(other[-count:] == own[-count:] for other in others):
            count += 1
        alone = not any(other[-count:] == own[-count:] for other in others)
        found[label] = "/".join(own[-count:]) if alone else label
    return found


def seeds_of(labels: Sequence[str]) -> dict[str, dict[int, str]]:
    """By model its checkpoints by seed, if one of the models has several seeds; else nothing.

    One model are checkpoints whose paths differ in nothing but the seed that ends the name of a folder: NAME-seed0 and NAME-seed1
    of one run, or of the runs RUN-seed0 and RUN-seed1.
    """
    found: dict[str, dict[int, str]] = {}
    for label in labels:
        seeds = re.findall(SEED, label)
        of_model = found.setdefault(re.sub(SEED, "", label), {})
        if of_model.setdefault(int(seeds[-1]) if seeds else 0, label) != label:
            return {}
    called = shortened(list(found))
    return {called[model]: seeds for model, seeds in found.items()} if len(found) < len(labels) else {}
