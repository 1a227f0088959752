"""What an export costs and gains: `python -m export.bench --checkpoint FOLDER --input FILE` (make bench-export).

The same sentences through our own model, the exported one in transformers, ONNX, and ONNX in eight bits: nats a token, and
milliseconds for a sentence scored by itself. All are timed in turns, sentence by sentence; the median counts.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from data.extras import needs
from data.files import user_path
from data.options import check_types
from data.text import read_lines
from eval.command import command, open_checkpoint
from export.hf import export
from export.onnx import write
from model.batch import Batch


@dataclass(frozen=True)
class BenchConfig:
    """Compare a checkpoint with its exports."""

    checkpoint: Path
    """A folder of checkpoints that pretrain.py wrote, of a two-stream architecture."""
    input: Path
    """A text file with a sentence on each line."""
    sentences: int = 500
    """How many of its lines to score."""

    def __post_init__(self) -> None:
        check_types(self)


def run(config: BenchConfig, console: Console) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        needs(name, "this benchmark")
    import onnxruntime
    from transformers import AutoModelForMaskedLM

    torch.set_num_threads(1)
    model, tokenizer = open_checkpoint(config.checkpoint)
    model = model.cpu().eval()
    lines = [line for line in read_lines(user_path(config.input)) if line.strip()][: config.sentences]
    ids = [[tokenizer.bos_id, *found, tokenizer.eos_id] for found in tokenizer.encode_batch(lines)]
    ids = [torch.tensor([found[: model.config.max_length]]) for found in ids if len(found) > 2]
    if not ids:
        raise ValueError(f"{config.input} has no sentence to score.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = export(model, tokenizer, Path(temporary) / "exported")
        write(folder, quantise=True)
        theirs = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True).eval()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1

        def session(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
            made = onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            return lambda x: torch.from_numpy(
                made.run(["log_probs"], {"input_ids": x.numpy(), "attention_mask": torch.ones_like(x).numpy()})[0]
            )

        ways = {
            "ours, PyTorch": (lambda x: model.pseudo_log_likelihood(Batch(x)).log_probs, "model.safetensors"),
            "transformers": (lambda x: theirs.pseudo_log_likelihood(x), "model.safetensors"),
            "ONNX": (session("model.onnx"), "model.onnx"),
            "ONNX, int8": (session("model.int8.onnx"), "model.int8.onnx"),
        }
        took, total = {name: [] for name in ways}, dict.fromkeys(ways, 0.0)
        with torch.inference_mode():
            for x in [*ids[:5], *ids]:  # five to warm up
                for name, (score, _) in ways.items():
                    started = time.perf_counter()
                    found = score(x)
                    took[name].append(time.perf_counter() - started)
                    total[name] -= float(found[0, 1:-1].double().sum()) if len(took[name]) > 5 else 0.0
        tokens = sum(x.shape[1] - 2 for x in ids)
        table = Table(title=f"{len(ids)} sentences of {tokens / len(ids):.1f} tokens, one thread", title_justify="left")
        for column in ("", "nats a token", "ms a sentence (median)", "MB"):
            table.add_column(column, justify="left" if not column else "right")
        for name, (_, file) in ways.items():
            size = (folder / file).stat().st_size / 1e6
            table.add_row(
                name, f"{total[name] / tokens:.4f}", f"{1e3 * statistics.median(took[name][5:]):.2f}", f"{size:.1f}"
            )
    console.print(table)


def main() -> int:
    return command(BenchConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
