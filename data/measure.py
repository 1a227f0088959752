"""How fast a large corpus is prepared, and in how much memory.

    python -m data.measure                     generates 1 GB of text, prepares it, prints tokens/s and peak memory
    python -m data.measure --megabytes 100     the same, smaller

Everything is written below --folder (a temporary one by default) and removed at the end.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from data.prepare import DataConfig, prepare


@dataclass(frozen=True)
class MeasureConfig:
    megabytes: int = 1000
    vocab_size: int = 8192
    threads: int | None = None
    folder: Path | None = None
    """Where there is room for the text and half as much again."""
    prepare: Path | None = None
    """Prepare this file, print the measurement as JSON and stop: what this script runs as a process of its own."""


def write_text(path: Path, megabytes: int, seed: int = 0) -> None:
    """Write a text of made-up words with the frequencies of a natural language, in which hardly any line repeats.

    200,000 words of one to five syllables drawn from Zipf's law (Zipf, 1949), every hundredth a number or a word never
    seen before, in sentences, paragraphs and documents of random length.
    """
    random = np.random.default_rng(seed)
    onsets = ["st", "tr", "ch", *"bdfghklmnprsvw"]
    syllables = np.array([onset + vowel for onset in onsets for vowel in "aeiouy"])
    counts = 1 + random.binomial(4, 0.35, 200_000)
    words = np.array(["".join(syllables[random.integers(len(syllables), size=count)]) for count in counts])
    cumulative = np.cumsum(1 / (np.arange(len(words)) + 2.7))
    cumulative /= cumulative[-1]
    ends = np.array([" "] * 88 + [", "] * 5 + [". "] * 5 + [".\n"] + [".\n\n"])
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < megabytes * 10**6:
            text = words[np.searchsorted(cumulative, random.random(100_000))].astype("U24")
            fresh = random.random(len(text)) < 0.01
            text[fresh] = random.integers(10**9, size=int(fresh.sum())).astype(str)
            file.write("".join(np.char.add(text, ends[random.integers(len(ends), size=len(text))])))


@dataclass(frozen=True)
class Measured:
    """tokens, seconds from the file to the shards, seconds of encoding alone, peak_mib of the process and its children.

    On macOS peak_mib is too large by 2**10: ru_maxrss counts bytes there and KiB on Linux.
    """

    tokens: int
    seconds: float
    encoding_seconds: float
    peak_mib: float

    def __str__(self) -> str:
        return (
            f"{self.tokens / 1e6:.1f} M tokens in {self.seconds:.0f} s, the tokenizer's training included; "
            f"encoding {self.tokens / self.encoding_seconds / 1e6:.2f} M tokens/s; peak memory {self.peak_mib:.0f} MiB"
        )


def measure(path: Path, vocab_size: int, threads: int | None) -> Measured:
    """Prepare `path` in a process of its own, so that the memory is that of preparing alone."""
    command = [sys.executable, "-m", "data.measure", "--prepare", str(path), "--vocab-size", str(vocab_size)]
    command += ["--threads", str(threads)]
    return Measured(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def main(config: MeasureConfig) -> None:
    if config.prepare:
        data = DataConfig(
            str(config.prepare), config.vocab_size, cache=config.prepare.parent / "cache", threads=config.threads
        )
        started = time.perf_counter()
        info = prepare(data).info
        seconds = time.perf_counter() - started
        peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        result = Measured(info.train_tokens + info.valid_tokens, seconds, info.encoding_seconds, peak / 2**10)
        print(json.dumps(asdict(result)))
        return
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        path = Path(folder) / "generated.txt"
        write_text(path, config.megabytes)
        print(f"generated {path.stat().st_size / 1e9:.2f} GB of text")
        print(measure(path, config.vocab_size, config.threads))


if __name__ == "__main__":
    main(tyro.cli(MeasureConfig, description=__doc__))
