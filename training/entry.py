"""A contestant (a model in a run), as it is given on the command line."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, get_type_hints

from data.options import convert, fits
from model import ModelConfig
from model.architectures import architecture_class
from training.optimizer import OptimizerConfig

SHAPE = ("d_model", "n_layers", "n_heads", "d_ff")


@dataclass(frozen=True)
class Entry:
    """`vanilla`, or `vanilla:masking_rate=0.4,learning_rate=2e-3,budget=0.5`.

    Names after the colon are options of the architecture, of the optimiser (OptimizerConfig), of the model (ModelConfig)
    or `budget`, the share of the race's budget that this contestant has, its schedule ending there, or `name`, what tables and
    pictures call it, or `init`, a checkpoint to start from (warm_start.py; in parentheses if its path has commas). Anything
    else is refused, and so is a value that is not of the option's type.

    label:  what it is called: its name, with its share if that is not 1, or the text itself.
    family: its label without the share: contestants that differ in nothing else.
    kind:   its architecture and settings without share and shape (width, depth, heads): what a scaling law is of.
    """

    label: str
    architecture: str
    share: float = 1.0
    options: tuple[tuple[str, Any], ...] = ()
    optimizer: tuple[tuple[str, Any], ...] = ()
    model: tuple[tuple[str, Any], ...] = ()
    family: str = ""
    init: str = ""
    kind: str = ""

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Raises ValueError with what was found and what was expected."""
        architecture, colon, rest = text.partition(":")
        of_architecture = architecture_class(architecture)
        of_optimizer, of_model = get_type_hints(OptimizerConfig), get_type_hints(ModelConfig)
        homes = {
            "race": {"budget": float, "name": str, "init": str},
            "options": get_type_hints(of_architecture.Options),
            "optimizer": {"optimizer" if n == "name" else n: t for n, t in of_optimizer.items()},
            "model": {
                f.name: of_model[f.name]
                for f in dataclasses.fields(ModelConfig)
                if f.name not in ("architecture", "options", "vocab_size", "mask_id")
            },
        }
        given: dict[str, dict[str, Any]] = {home: {} for home in homes}
        for pair in re.split(r",(?![^()]*\))", rest) if colon else []:
            key, equals, value = pair.partition("=")
            home = next((home for home, fields in homes.items() if key in fields), None)
            if home is None or not equals:
                known = ", ".join(sorted(set().union(*homes.values())))
                raise ValueError(
                    f"In {text!r}, {pair!r} is not an option=value that {architecture} knows; known: {known}."
                )
            if key in given[home]:
                raise ValueError(f"In {text!r}, {key} is given twice; give it once.")
            try:
                given[home][key] = convert(value, homes[home][key], key)
            except ValueError as error:
                raise ValueError(f"In {text!r}, {error}") from None
        share = float(given["race"].get("budget", 1.0))
        if not (fits(share, float) and 0 < share <= 1):
            raise ValueError(f"In {text!r}, budget={share:g} is a share of the race's; it must lie in (0, 1].")
        of_architecture.parse_options(given["options"])
        if "optimizer" in given["optimizer"]:
            given["optimizer"]["name"] = given["optimizer"].pop("optimizer")
        dataclasses.replace(OptimizerConfig(), **given["optimizer"])
        name = str(given["race"].get("name", "")).strip()
        if "name" in given["race"] and not name:
            raise ValueError(f"In {text!r}, the name is empty; give one, or leave it out.")
        init = str(given["race"].get("init", "")).strip().removeprefix("(").removesuffix(")")
        if "init" in given["race"] and not init:
            raise ValueError(f"In {text!r}, init is empty; give a checkpoint, or leave it out.")
        family = name or without(text, ("budget",))
        kind = without(text, ("budget", "name", "init", *SHAPE))
        label = text if not name else name if share == 1 else f"{name}, {share:g} of the budget"
        options, optimizer, model = (tuple(sorted(given[home].items())) for home in ("options", "optimizer", "model"))
        return cls(label, architecture, share, options, optimizer, model, family, init, kind)

    @property
    def identity(self) -> tuple:
        """Equal for two spellings of the same contestant."""
        return self.architecture, self.share, self.options, self.optimizer, self.model, self.init


def without(text: str, names: tuple[str, ...]) -> str:
    """An entry's text without some of its options."""
    architecture, _, rest = text.partition(":")
    kept = [pair for pair in re.split(r",(?![^()]*\))", rest) if pair and pair.partition("=")[0] not in names]
    return ":".join([architecture, ",".join(kept)]).rstrip(":")
