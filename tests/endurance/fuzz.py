"""Every reader, fed with files that are nearly right: it gives an answer, or one sentence; nothing else.

python -m tests.endurance.fuzz [--examples 300] [--seed 0]          (make fuzz)

Each reader starts from a whole file and gets it with bytes changed, cut, doubled, or with something strange put in. A traceback,
a sentence of several lines, seconds without an answer and memory that grows are failures. Prints the number of inputs by reader.
"""

import gzip
import io
import json
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
import zstandard
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from data.readers import read_parts
from data.text import read_text
from data.tokenizer import Tokenizer
from eval.clue import CLUE
from eval.correction import doubts
from eval.fewshot.tasks import TASKS, read
from eval.glue import GLUE
from eval.scoring import nbest, sentences
from eval.scoring.minimal_pairs import files_of, read_paradigm
from eval.store import Store
from model import ModelConfig
from report.summary import Results
from training.config import PretrainConfig

STRANGE = [
    *(b"\xff", b"\0", b"\r", b"\n\n", b"\t", b'"', b"{", b"]", b"NaN", b"1e999", b"-1", b"null", b"||", b",", b"\x0c"),
    *(
        b"\xef\xbb\xbf",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\\ud83d",
        "字".encode(),
        b"\xf0\x9f\x90\xbb",
        b"9" * 400,
        b"[" * 3000,
    ),
]
LONGEST = 5.0  # seconds
GROWTH = 600  # MiB over all inputs of a reader


@dataclass(frozen=True)
class Fuzz:
    examples: int = 300
    """Inputs of each reader."""
    seed: int = 0
    only: str = ""
    """Readers whose name contains this."""


@st.composite
def spoilt(draw: st.DrawFn, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["put", "change", "cut", "drop", "double", "swap"]))
        if kind == "put":
            content[at:at] = draw(st.sampled_from(STRANGE) | st.binary(max_size=8))
        elif kind == "change" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 200))]
        elif kind == "swap":
            other = draw(st.integers(0, len(content)))
            content[at : at + 10], content[other : other + 10] = content[other : other + 10], content[at : at + 10]
    return bytes(content)


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def parquet(**columns: list) -> bytes:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


PAIRS = lines(*({"sentence_good": "a b", "sentence_bad": "b a", "phenomenon": "p"},) * 3)
STS = b"sentence1\tsentence2\tscore\n" + b"a b\tc\t1.5\nd\te f\t2\ng\th\t0\n"
NBEST = json.dumps(
    {f"u{i}": {"h1": {"score": -1.0, "text": "a b"}, "h2": {"score": -2, "text": "a"}} for i in range(3)}
).encode()
TEXT = ("One line of text.\nAnother one, 字.\n\n" * 5).encode()
ANSWERS = [{"text": "公园", "answer_start": 3}]
SQUAD = {
    "data": [{"paragraphs": [{"context": "今天去公园", "qas": [{"id": "q", "question": "去哪", "answers": ANSWERS}]}]}]
}
NOUN = {"span1_index": 0, "span1_text": "他", "span2_index": 2, "span2_text": "他"}
WINOGRAD = {"text": "他说他来", "target": NOUN, "label": "true"}
RECORD = b'{"contestant": "tta", "seed": 0, "step": 1, "curve": null, "final": null}\n'

Reader = tuple[str, bytes, Callable[[Path], object]]
"""The name of the file, what stands in it, and what reads it."""


def readers() -> dict[str, Reader]:
    def task(benchmark: dict, name: str) -> Callable[[Path], object]:
        return lambda path: benchmark[name].examples(path, "train", [])

    found: dict[str, Reader] = {}
    for name, t in GLUE.items():
        head = t.headless.get("train", (*t.texts, t.label))
        row = "\t".join(
            "0.5" if c == t.label and t.form == "score" else t.labels[0] if c == t.label else "a b" for c in head
        )
        text = (row + "\n") * 3 if "train" in t.headless else "\t".join(head) + "\n" + (row + "\n") * 3
        found[f"GLUE {name}"] = ("train.tsv", text.encode(), task(GLUE, name))
    for name, t in CLUE.items():
        if t.form == "class" and name != "CLUEWSC2020":
            rows = lines(*({**dict.fromkeys(t.texts, "甲乙"), "label": t.labels[0], "id": 1},) * 3)
            found[f"CLUE {name}"] = ("train.json", rows, task(CLUE, name))
    c3 = json.dumps(
        [[["甲"], [{"question": "乙", "choice": ["丙", "丁"], "answer": "丁"}], "1"]], ensure_ascii=False
    ).encode()
    chid = lines({"content": ["他#idiom000001#了"], "candidates": ["一心一意", "三心二意"], "answer": 0})
    found |= {
        "CLUE CMRC2018": ("train.json", json.dumps(SQUAD, ensure_ascii=False).encode(), task(CLUE, "CMRC2018")),
        "CLUE CLUEWSC2020": ("train.json", lines(WINOGRAD), task(CLUE, "CLUEWSC2020")),
        "CLUE C3": ("train.json", c3, task(CLUE, "C3")),
        "CLUE CHID": ("train.json", chid, task(CLUE, "CHID")),
        "hub parquet": ("train.parquet", parquet(sentence=["a", "b"], label=[0, 1]), task(GLUE, "SST-2")),
        "hub jsonl": ("train.jsonl", lines({"sentence": "a", "label": 1}, {"sentence": "b", "label": 0}), task(GLUE, "SST-2")),
        "pairs": ("a.jsonl", PAIRS, lambda p: [read_paradigm(*f) for f in files_of(p)]),
        "pairs zip": ("a.zip", zipped("a.jsonl", PAIRS), lambda p: [read_paradigm(*f) for f in files_of(p)]),
        "pairs csv": ("a.csv", b",sentence,label\n0,a,1\n1,b,0\n" * 1, lambda p: [read_paradigm(*f) for f in files_of(p)]),
        "similarity tsv": ("a.tsv", STS, sentences.read),
        "similarity ||": ("a.txt", "0||甲||乙||5\n1||丙||丁||1\n2||戊||己||0\n".encode(), sentences.read),
        "similarity STS-B": ("a.csv", b"news\tf\t2012\t0001\t2.5\ta\tb\n" * 3, sentences.read),
        "lists json": ("a.json", NBEST, lambda p: nbest.read(str(p), [])),
        "lists tsv": ("a.tsv", b"id\ttext\tscore\nu\ta b\t-1\nu\ta\t-2\n", lambda p: nbest.read(str(p), [])),
        "lists plain": ("a.txt", TEXT, lambda p: nbest.read(f"{p},{p}", [str(p)])),
        "correct pairs": ("a.tsv", b"a b\ta c\nd\te\n", doubts.read_pairs),
        "confusions": ("a.txt", "甲 乙丙\n丁:戊\n".encode(), doubts.read_confusions),
        "few-shot": ("eprstmt/train_0.json", lines(*({"id": 1, "sentence": "好", "label": "Positive"},) * 3), _few_shot),
        "store": ("results.jsonl", lines({"key": "a"}, {"key": "b"}), _stored),
        "corpus txt": ("a.txt", TEXT, lambda p: list(read_parts(p))),
        "corpus jsonl": ("a.jsonl", lines({"text": "a b"}, {"text": "c"}), lambda p: list(read_parts(p))),
        "corpus gz": ("a.txt.gz", gzip.compress(TEXT, mtime=0), lambda p: list(read_parts(p))),
        "corpus zst": ("a.jsonl.zst", zstandard.compress(lines({"text": "a b"})), lambda p: list(read_parts(p))),
        "corpus parquet": ("a.parquet", parquet(text=["a b", "c"]), lambda p: list(read_parts(p))),
        "run.json": ("run.json", PretrainConfig().to_json().encode(), lambda p: PretrainConfig.load(p.parent)),
        "model configuration": ("config.json", ModelConfig("tta", 64, 3).to_json().encode(), _model_config),
        "facts.json": ("facts.json", b'{"contestants": {"tta": {}}}', _results),
        "results.jsonl": ("results.jsonl", RECORD, _results),
        "tokenizer": ("a.model", _tokenizer(), lambda p: Tokenizer.load(p).encode("a b")),
    }  # fmt: skip
    return found


def _stored(path: Path) -> object:
    return Store(path.parent).repair(), Store(path.parent).records()


def _model_config(path: Path) -> object:
    return ModelConfig.from_json(read_text(path))


def _few_shot(path: Path) -> object:
    for other in ("dev_0.json", "test_public.json"):
        (path.parent / other).write_bytes(lines({"id": 1, "sentence": "差", "label": "Negative"}))
    return read(TASKS["eprstmt"], path.parents[1], 0)


def _results(path: Path) -> object:
    for name, content in (
        ("run.json", '{"seeds": [0]}'),
        ("facts.json", '{"contestants": {"tta": {}}}'),
        ("results.jsonl", ""),
    ):
        if path.name != name:
            path.with_name(name).write_text(content)
    return Results.load(path.parent)


def _tokenizer() -> bytes:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(600)]
    return Tokenizer.train([" ".join(draw.choices(words, k=30)) for _ in range(300)], 400).model


def check(name: str, reader: Reader, options: Fuzz, folder: Path) -> tuple[int, int, list[str]]:
    """Inputs, those that were refused, and what went wrong."""
    file, whole, do = reader
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    counts, wrong = {"inputs": 0, "refused": 0}, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @seeded(options.seed)
    @settings(
        max_examples=options.examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(spoilt(whole))
    def one(content: bytes) -> None:
        path.write_bytes(content)
        counts["inputs"] += 1
        started = time.perf_counter()
        try:
            do(path)
        except (ValueError, OSError) as error:
            counts["refused"] += 1
            if isinstance(error, UnicodeError) or not str(error).strip() or "\n" in str(error).strip():
                wrong.append(f"{type(error).__name__}: {error!s:.150} for {content[:120]!r}")
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error!s:.150} for {content[:120]!r}")
        if time.perf_counter() - started > LONGEST:
            wrong.append(f"{time.perf_counter() - started:.0f} s for {content[:120]!r}")

    one()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    if grown > GROWTH:
        wrong.append(f"memory grew by {grown} MiB")
    return counts["inputs"], counts["refused"], wrong


def main(options: Fuzz) -> int:
    total = failures = 0
    for name, reader in readers().items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            inputs, refused, wrong = check(name, reader, options, Path(folder))
        total, failures = total + inputs, failures + len(wrong)
        print(f"{name:22} {inputs:6,} inputs, {refused:6,} refused in a sentence, {len(wrong)} wrong", flush=True)
        for sentence in list(dict.fromkeys(w.partition(" for ")[0] for w in wrong))[:3]:
            print(f"    {sentence}")
        for sentence in wrong[:1]:
            print(f"    {sentence}")
    print(f"{total:,} inputs, {failures} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Fuzz, description=__doc__)))
