"""Scoring speed by sentence length: `python -m eval.bench_scoring` (make bench-scoring).

Pseudo-log-likelihood of sentences of N tokens: a two-stream model in one pass, our vanilla in N, `transformers`' BERT as one
would write it (N masked copies in a batch) and `minicons`' MaskedLMScorer on the same BERT. The same layers, widths and
vocabulary, random weights (speed does not depend on them), fp32 for all, rivals in turns, medians of the rounds.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.table import Table

from data.files import to_json, write_atomically
from data.options import check_types
from eval.command import command
from model import MaskedLM, ModelConfig, size_names
from model.architectures.base import tokens_of_a_pass
from model.batch import Batch
from report import plots
from training.entry import Entry
from training.machine import default_device

FIRST = 5  # ids below are specials


@dataclass(frozen=True)
class BenchConfig:
    """Sentences a second by length."""

    architectures: tuple[str, ...] = ("tta", "local", "vanilla")
    """Architectures, with options if wanted, as in tta:d_embed=auto. The first is compared with all others."""
    size: Literal[size_names()] = "small"  # type: ignore[valid-type]
    """Width and depth of all models."""
    vocab_size: int = 8192
    lengths: tuple[int, ...] = (5, 10, 20, 40, 80, 120)
    """Lengths of sentences in tokens, without BOS and EOS."""
    seconds: float = 1.0
    """Least duration of each measurement; the last sentence or batch is finished."""
    rounds: int = 3
    rivals: bool = True
    """Measure transformers and minicons too."""
    out: Path = Path("runs/bench-scoring")
    """Folder for results.json and scoring.png."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.lengths or min(self.lengths) < 1 or max(self.lengths) > 500 or self.rounds < 1 or self.seconds <= 0:
            raise ValueError("lengths must lie in 1 to 500, rounds be at least 1 and seconds more than 0.")


Scorer = Callable[[int], int]
"""Scores some sentences of so many tokens and says how many."""


def ours(name: str, config: BenchConfig) -> Scorer:
    entry = Entry.parse(name)
    shape = ModelConfig.preset(
        entry.architecture, size=config.size, vocab_size=config.vocab_size, mask_id=3, options=entry.options,
        **dict(entry.model),
    )  # fmt: skip
    model = MaskedLM(shape).to(default_device()).eval()

    def score(length: int) -> int:
        count = max(1, tokens_of_a_pass(default_device()) // (length + 2)) if not model.architecture.passes_each else 8
        tokens = torch.randint(FIRST, config.vocab_size, (count, length + 2), device=default_device())
        positions = torch.arange(1, length + 1, device=tokens.device).expand(count, length)
        float(model.leave_one_out(Batch(tokens), positions, k=0).nll.sum())
        return count

    return score


def bert(config: BenchConfig):
    import transformers

    size = ModelConfig.preset("vanilla", size=config.size, vocab_size=config.vocab_size, mask_id=3)
    shape = transformers.BertConfig(
        vocab_size=config.vocab_size, hidden_size=size.d_model, num_hidden_layers=size.n_layers,
        num_attention_heads=size.n_heads, intermediate_size=4 * size.d_model,
    )  # fmt: skip
    model: Any = transformers.BertForMaskedLM(shape)
    return model.to(default_device()).eval()


def plain_transformers(config: BenchConfig) -> Scorer:
    model = bert(config)

    @torch.no_grad()
    def score(length: int) -> int:
        tokens = torch.randint(FIRST, config.vocab_size, (1, length + 2), device=default_device())
        copies = tokens.repeat(length, 1)
        positions = torch.arange(1, length + 1, device=copies.device)
        copies[torch.arange(length), positions] = 3
        logits = model(input_ids=copies).logits[torch.arange(length), positions]
        float(logits.log_softmax(-1).gather(1, tokens[0, positions, None]).sum())
        return 1

    return score


def by_minicons(config: BenchConfig) -> Scorer:
    from minicons.scorer import MaskedLMScorer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"w{i}" for i in range(FIRST, config.vocab_size))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask", "unk")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    tokenizer.batch_encode_plus = tokenizer.__call__  # the name that minicons 0.3 knows and transformers 5 has dropped
    scorer = MaskedLMScorer(bert(config), str(default_device()), tokenizer=tokenizer)

    def score(length: int) -> int:
        ids = torch.randint(FIRST, config.vocab_size, (8, length)).tolist()
        scorer.sequence_score([" ".join(f"w{i}" for i in row) for row in ids], reduction=lambda x: x.sum(0).item())
        return 8

    return score


def rate(score: Scorer, length: int, seconds: float) -> float:
    """Sentences a second."""
    started, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds or not count:
        count += score(length)
    return count / (time.perf_counter() - started) if spent else float("inf")


def run(config: BenchConfig, console: Console) -> None:
    scorers = {f"twostream {name}": ours(name, config) for name in config.architectures}
    for name, make in (
        (("transformers BERT", plain_transformers), ("minicons BERT", by_minicons)) if config.rivals else ()
    ):
        try:
            scorers[name] = make(config)
        except ImportError as error:
            console.print(
                f"[yellow]note[/]: {name} is left out, {error.name} is not installed; make bench-scoring installs it."
            )
    found: dict[str, dict[int, list[float]]] = {name: {n: [] for n in config.lengths} for name in scorers}
    for length in config.lengths:
        for score in scorers.values():
            score(length)  # warm
        for _ in range(config.rounds):
            for name, score in scorers.items():
                found[name][length].append(rate(score, length, config.seconds))
    middle = {name: {n: statistics.median(rates) for n, rates in own.items()} for name, own in found.items()}
    first = next(iter(scorers))
    table = Table(title=f"sentences/s ({first} is so many times as fast), {config.size}, fp32", title_justify="left")
    table.add_column("")
    for length in config.lengths:
        table.add_column(f"{length} tokens", justify="right")
    for name, own in found.items():
        ratios = {n: statistics.median([a / b for a, b in zip(found[first][n], own[n])]) for n in config.lengths}
        beside = {n: "" if name == first else f" ({ratios[n]:.1f}x)" for n in config.lengths}
        table.add_row(name, *(f"{middle[name][n]:,.4g}{beside[n]}" for n in config.lengths))
    console.print(table)
    config.out.mkdir(parents=True, exist_ok=True)
    facts = {"size": config.size, "vocab_size": config.vocab_size, "threads": torch.get_num_threads(), "rates": found}
    write_atomically(config.out / "results.json", to_json(facts, indent=1) + "\n")
    (config.out / "scoring.png").write_bytes(plots.as_png(picture(middle)))


def picture(rates: dict[str, dict[int, float]]) -> plt.Figure:
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(8.5, 4.2))
        for i, (name, own) in enumerate(rates.items()):
            colour = plots.COLOURS[i % len(plots.COLOURS)] if "twostream" in name else plots.GREYS[i % len(plots.GREYS)]
            axes.loglog(
                list(own), list(own.values()), "-o" if "twostream" in name else "--o", color=colour, label=name, ms=4
            )
        axes.set_xlabel("tokens in a sentence")
        axes.set_ylabel("sentences a second")
        axes.set_xticks(list(next(iter(rates.values()))), list(map(str, next(iter(rates.values())))))
        axes.minorticks_off()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.tight_layout()
    return figure


def main() -> int:
    return command(BenchConfig, __doc__, run)


if __name__ == "__main__":
    sys.exit(main())
