"""Checkpoints in tables: the shortest ends of their paths that tell them apart. Records and keys keep the whole paths."""

from collections.abc import Sequence


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
