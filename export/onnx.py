"""The scorer as ONNX: ids and mask in, the log-probability of each true token and the likeliest tokens out.

It is made from the exported modeling file, so one source serves both. Two-stream only: vanilla needs a copy of the sentence for
each of its tokens.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

K = 5  # likeliest tokens of each position
OUTPUTS = ("log_probs", "top_ids", "top_log_probs")


class Scorer(nn.Module):
    """input_ids, attention_mask (B, N) -> log_probs (B, N), 0 at padding; top_ids and top_log_probs (B, N, K)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_p = self.model(input_ids=input_ids, attention_mask=attention_mask).logits.log_softmax(-1)
        own = log_p.gather(2, input_ids[..., None])[..., 0] * attention_mask
        top = log_p.topk(K, dim=-1)
        return own, top.indices, top.values


def write(folder: Path, *, quantise: bool = False) -> list[str]:
    """model.onnx beside the exported files, and model.int8.onnx. Returns a sentence for each file.

    Raises ValueError for a model that is not two-stream.
    """
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True).eval()
    if model.config.model_type != "twostream" or model.config.architecture == "vanilla":
        raise ValueError(
            f"{folder}: a masked model needs a copy of the sentence for each token, so its scorer is not exported to ONNX; the "
            "Hugging Face folder is written."
        )
    # Two rows and an odd length: torch.export takes sizes of 0 and 1 for constants.
    ids = torch.randint(5, model.config.vocab_size, (2, 7))
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=model.config.max_position_embeddings)}
    path = folder / "model.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            Scorer(model),
            (ids, torch.ones_like(ids)),
            dynamo=True,
            dynamic_shapes=(sizes, sizes),
            input_names=["input_ids", "attention_mask"],
            output_names=list(OUTPUTS),
            verbose=False,
        )
    program.save(str(path))
    said = [f"{path}: {path.stat().st_size / 1e6:.1f} MB, the log-probability of each token and the {K} likeliest."]
    if quantise:
        small = folder / "model.int8.onnx"
        quantised(path, small)
        said.append(f"{small}: {small.stat().st_size / 1e6:.1f} MB, matrices in eight bits.")
    return said


def quantised(path: Path, out: Path) -> None:
    """Matrices in eight bits, a scale for each channel; activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(str(path), str(out), per_channel=True, weight_type=QuantType.QInt8)
