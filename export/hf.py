"""A checkpoint as a Hugging Face folder: `python -m export.hf --checkpoint FOLDER --out FOLDER` (make export).

What is written needs transformers (4.51 or newer, 5 too) and nothing of this repository: config.json, the configuration and
modeling files, model.safetensors, tokenizer.json, tokenizer_config.json, the model card, and what sentence-transformers reads.
Vanilla in the `bert` preset becomes a plain BertForMaskedLM, without code of its own. docs/export.md shows how each is used.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from safetensors.torch import save_file

from data.extras import needs
from data.files import sync_all, to_json, user_path
from data.options import check_types
from data.tokenizer import Tokenizer
from eval.command import command, open_checkpoint
from export.card import card
from export.convert import check_exports, configuration, is_stock_bert, weights
from model import MaskedLM
from training.run import folder_name

FOLDER = Path(__file__).parent / "folder"


@dataclass(frozen=True)
class ExportConfig:
    """Write a checkpoint in the formats that other software reads."""

    checkpoint: Path
    """A folder of checkpoints that pretrain.py wrote."""
    out: Path
    """The folder to write. It must be empty, or not exist. Use letters, digits, - and _ in its name: transformers makes a
    module of it."""
    to: Literal["hf", "onnx"] = "hf"
    """hf: a Hugging Face folder. onnx: the same, with the scorer as model.onnx."""
    quantise: bool = False
    """With --to onnx: write model.int8.onnx too, with matrices in eight bits."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.quantise and self.to != "onnx":
            raise ValueError("--quantise applies to ONNX alone; add --to onnx.")


def export(model: MaskedLM, tokenizer: Tokenizer, out: Path, facts: dict[str, Any] | None = None) -> Path:
    """Write the folder, whole or not at all. facts: of the run, for the card.

    Raises ValueError for an architecture that is not exported, or a folder that is not empty.
    """
    check_exports(model)
    needs("tokenizers", "the tokenizer.json")
    from export.tokenizer_json import converted, settings, special_names

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder; choose another --out.")
    if not out.name.replace("-", "_").replace(".", "_").isidentifier():
        raise ValueError(
            f"{out.name!r} is not a plain name, and transformers makes a module of it; take letters, digits, - and _ alone."
        )
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    vocabulary, config = tokenizer.vocabulary, configuration(model, tokenizer.vocabulary)
    write = lambda name, value: (partial / name).write_text(to_json(value, indent=2) + "\n", encoding="utf-8")  # noqa: E731
    write("config.json", config)
    save_file(weights(model), str(partial / "model.safetensors"), metadata={"format": "pt"})
    if not is_stock_bert(model):
        for source in FOLDER.glob("*.py"):
            shutil.copyfile(source, partial / source.name)
    converted(tokenizer.model, vocabulary).save(str(partial / "tokenizer.json"))
    names = special_names(tokenizer.model, vocabulary)
    write("tokenizer_config.json", settings(names, model.config.max_length))
    write(
        "special_tokens_map.json",
        {f"{k}_token": v for k, v in (names | {"cls": names["bos"], "sep": names["eos"]}).items()},
    )
    for name, value in sentence_transformers(model, tokenizer).items():
        (partial / name).parent.mkdir(exist_ok=True)
        write(name, value)
    (partial / "tokenizer.model").write_bytes(tokenizer.model)
    (partial / "README.md").write_text(card(model, out.name, facts or {}), encoding="utf-8")
    sync_all(partial)
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return out


def sentence_transformers(model: MaskedLM, tokenizer: Tokenizer) -> dict[str, Any]:
    """By file. Pooled is the mean of a text's states without specials, which is better than its stock mean with them
    (docs/export.md); a plain BERT has no code of its own, and takes the stock one."""
    stock, width = is_stock_bert(model), model.config.d_model
    module = "sentence_transformers.models."
    pooling = f"{module}Pooling" if stock else "pooling_twostream.MeanOfTokens"
    settings = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    return {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{module}Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": pooling},
        ],
        "sentence_bert_config.json": {"max_seq_length": model.config.max_length, "do_lower_case": False},
        "1_Pooling/config.json": settings if stock else {"special_ids": [*tokenizer.special_ids], "width": width},
    }


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """What the run's folder says of the checkpoint, or nothing: runs/NAME/checkpoints/CONTESTANT[/step-...]."""
    for folder in (checkpoint, checkpoint.parent):
        if folder.parent.name == "checkpoints" and (results := folder.parent.parent / "results.jsonl").is_file():
            try:
                rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines() if line.strip()]
                run = json.loads((results.parent / "run.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return {}
            own = [r for r in rows if folder_name(r["contestant"], r["seed"]) == folder.name and r.get("final")]
            return {"run": run, "record": own[-1]} if own else {}
    return {}


def run(config: ExportConfig, console: Console) -> None:
    model, tokenizer = open_checkpoint(config.checkpoint)
    model, out = model.cpu().eval(), user_path(config.out)
    if config.to == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            needs(name, "--to onnx")
    export(model, tokenizer, out, facts_of(user_path(config.checkpoint).resolve()))
    console.print(f"{escape(str(out))}: {model.config.architecture} for transformers.", soft_wrap=True)
    if config.to == "onnx":
        from export.onnx import write

        for sentence in write(out, quantise=config.quantise):
            console.print(escape(sentence), soft_wrap=True)


def main() -> int:
    return command(ExportConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
