"""Converts a model to transformers: its configuration, and its weights by their names there."""

from typing import Any

from torch import Tensor

from data.vocabulary import Vocabulary
from model import MaskedLM

TWO_STREAM = ("local", "tta")
MASKED = ("vanilla", "causal_first")  # causal_first ends as vanilla
SOURCES = {"AutoConfig": "configuration_twostream.TwoStreamConfig"} | {
    f"Auto{name}": f"modeling_twostream.TwoStream{name.removeprefix('Model')}"
    for name in ("ModelForMaskedLM", "ModelForSequenceClassification")
}
SOURCES["AutoModel"] = "modeling_twostream.TwoStreamModel"

BERT_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "feed_forward.enter": "intermediate.dense",
    "feed_forward.leave": "output.dense",
    "norm_feed_forward": "output.LayerNorm",
}
BERT_REST = {
    "architecture.embedding.table": "bert.embeddings.word_embeddings",
    "architecture.embedding.positions": "bert.embeddings.position_embeddings",
    "architecture.embedding.norm": "bert.embeddings.LayerNorm",
    "head.dense": "cls.predictions.transform.dense",
    "head.norm_out": "cls.predictions.transform.LayerNorm",
}


def check_exports(model: MaskedLM) -> None:
    """Raises ValueError for an architecture that has no counterpart in the exported folder."""
    name = model.config.architecture
    if name not in TWO_STREAM + MASKED:
        raise ValueError(
            f"{name} is not exported; {', '.join(TWO_STREAM + MASKED)} are. Its checkpoints are read by this repository alone."
        )


def is_stock_bert(model: MaskedLM) -> bool:
    """Whether transformers' own BertForMaskedLM computes the same: the `bert` preset, nothing added."""
    c, o = model.config, model.architecture.options
    block = (c.norm, c.positions, c.feed_forward, c.head, c.bias) == ("post", "learned", "gelu", "dense", True)
    if c.architecture not in MASKED or not block or c.d_embed != c.d_model:
        return False
    return not (o.near or o.taps or (o.narrow and o.narrow < c.n_layers - 1))


def specials(vocabulary: Vocabulary) -> dict[str, int]:
    return {f"{kind}_token_id": getattr(vocabulary, f"{kind}_id") for kind in ("pad", "bos", "eos", "mask", "unk")}


def configuration(model: MaskedLM, vocabulary: Vocabulary) -> dict[str, Any]:
    """config.json of the shipped classes, or of BertForMaskedLM where that computes the same."""
    c, o = model.config, model.architecture.options
    common = {
        "vocab_size": c.vocab_size,
        "hidden_size": c.d_model,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "intermediate_size": c.d_ff,
        "max_position_embeddings": c.max_length,
        "hidden_dropout_prob": c.dropout,
        "layer_norm_eps": c.norm_epsilon,
        "initializer_range": c.initializer_std,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **specials(vocabulary),
    }
    if is_stock_bert(model):
        only = {"hidden_act": "gelu", "type_vocab_size": 2, "attention_probs_dropout_prob": 0.0}
        return {"architectures": ["BertForMaskedLM"], "model_type": "bert", **common, **only}
    masked = c.architecture in MASKED
    return {
        "architectures": ["TwoStreamForMaskedLM"],
        "model_type": "twostream",
        "auto_map": SOURCES,
        "architecture": "vanilla" if masked else c.architecture,
        **common,
        "embedding_size": c.d_embed,
        "block_norm": c.norm,
        "position_type": c.positions,
        "feed_forward": c.feed_forward,
        "head_type": c.head,
        "use_bias": c.bias,
        "near": getattr(o, "near", 0),
        "taps": getattr(o, "taps", 0),
        "span_ends": not masked and model.architecture.ends is not None,
        "wide_layers": model.architecture.wide if masked else 0,
    }


def weights(model: MaskedLM) -> dict[str, Tensor]:
    """By their names in the exported folder; the tied table once."""
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    del state["head.table.weight"]
    return _bert(model, state) if is_stock_bert(model) else _shipped(model, state)


def _shipped(model: MaskedLM, state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in state.items():
        new = name.replace("architecture.", "model.", 1).removeprefix("head.")
        new = new.replace("model.neighbours.", "model.near.", 1).replace("model.tap_weights", "model.taps", 1)
        new = new.replace("norm_in.", "model.final_norm.") if name.startswith("head.norm_in.") else new
        found["decoder.bias" if name == "head.bias" else new] = tensor
    taps = found.get("model.taps")
    if taps is not None and taps.dim() == 4:  # vanilla: (L, 2, T, 2 D) -> (2, T, 2 L D), all keys before all values
        layers, sides, reach, width = taps.shape
        taps = taps.view(layers, sides, reach, 2, width // 2).permute(1, 2, 3, 0, 4)
        found["model.taps"] = taps.reshape(sides, reach, layers * width).contiguous()
    return found


def _bert(model: MaskedLM, state: dict[str, Tensor]) -> dict[str, Tensor]:
    pairs = dict(BERT_REST)
    for i in range(model.config.n_layers):
        pairs |= {
            f"architecture.blocks.{i}.{ours}": f"bert.encoder.layer.{i}.{name}" for ours, name in BERT_BLOCK.items()
        }
    found = {}
    for name, tensor in state.items():
        if name == "head.bias":
            found["cls.predictions.bias"] = tensor
            continue
        module, parameter = name.rsplit(".", 1)
        found[f"{pairs[module]}.{parameter}"] = tensor
    # Types of tokens do not exist here: zero for both.
    found["bert.embeddings.token_type_embeddings.weight"] = tensor.new_zeros(2, model.config.d_model)
    return found
