"""The model card: what the model is, how it was trained and measured, how it is used, whom to cite."""

from pathlib import Path
from typing import Any

from model import MaskedLM

CITED = """\
```bibtex
@inproceedings{shin-etal-2020-fast,
  title = {Fast and Accurate Deep Bidirectional Language Representations for Unsupervised Learning},
  author = {Shin, Joongbo and Lee, Yoonhyung and Yoon, Seunghyun and Jung, Kyomin},
  booktitle = {Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics},
  year = {2020},
  pages = {823--835}
}
```"""

SAYS = {
    "tta": "A two-stream masked language model (T-TA): each position is predicted from all others, in one pass.",
    "local": "A two-stream masked language model (`local`: T-TA whose queries, keys and values hold their neighbours): each "
    "position is predicted from all others, in one pass.",
    "vanilla": "A masked language model (BERT's objective).",
}


def card(model: MaskedLM, name: str, facts: dict[str, Any]) -> str:
    """facts: run (run.json) and record (the last of results.jsonl), or nothing."""
    c = model.config
    kind = "vanilla" if c.architecture not in SAYS else c.architecture
    two_stream = kind != "vanilla"
    head = ["---", "library_name: transformers", "pipeline_tag: fill-mask", "tags: [twostream, masked-lm]", "---", ""]
    lines = [*head, f"# {name}", "", SAYS[kind], ""]
    lines += [
        f"{model.parameter_count():,} parameters: width {c.d_model}, {c.n_layers} layers, {c.n_heads} heads, {c.vocab_size:,} "
        f"pieces; reads at most {c.max_length} tokens. Options: "
        + (", ".join(f"{option}={value}" for option, value in c.options) or "none")
        + ".",
        "",
    ]
    lines += _measured(facts)
    lines += ["## Use", "", "```python", "from transformers import AutoModelForMaskedLM, AutoTokenizer", ""]
    lines += [
        f'tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)',
        f'model = AutoModelForMaskedLM.from_pretrained("{name}", trust_remote_code=True)',
        'batch = tokenizer(["A sentence to score."], return_tensors="pt")',
        "logits = model(**batch).logits",
    ]
    if hasattr(model.architecture, "ends") or two_stream:
        lines += ["log_p = model.pseudo_log_likelihood(**batch)  # one pass: log p(token | all others), 0 at padding"]
    lines += ["```", ""]
    if two_stream:
        lines += [
            "`logits[:, i]` does not depend on token i, so an unmasked pass predicts every position from the rest. A [MASK] "
            "gives nothing to other positions, and adjacent ones are predicted as one hidden stretch. `AutoModel` gives states "
            "that see their own token too.",
            "",
        ]
    lines += ["## Cite", "", "The idea of predicting every position in one pass is T-TA's:", "", CITED, ""]
    return "\n".join(lines)


def _measured(facts: dict[str, Any]) -> list[str]:
    if not facts:
        return []
    run, record = facts["run"], facts["record"]
    final, words = record["final"], record.get("words")
    data = run.get("data", {})
    revision = (record.get("sessions") or [{}])[-1].get("git_revision", "unknown")
    lines = [
        "## Trained and measured",
        "",
        f"`{record['contestant']}`, seed {record['seed']}, on {Path(str(data.get('corpus', 'a corpus'))).name}; "
        f"{record['flops']:.2e} FLOP, {record['tokens']:,} tokens; twostream revision {revision}.",
        "",
        "| held-out text (test) | |",
        "|---|---|",
        f"| leave-one-out, nats a token | {final['nll']:.3f} |",
        f"| tokens guessed right | {100 * final['accuracy']:.1f}% |",
    ]
    if words:
        lines += [
            f"| whole words hidden, bits a character | {words['bits_per_character']:.3f} |",
            f"| the same by the chain rule | {words['chain']:.3f} |",
        ]
    return [*lines, ""]
