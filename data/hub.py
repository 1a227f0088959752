"""Corpora of the Hugging Face hub, streamed: only the text column is downloaded, and only as much as is needed."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

PREFIX = "hf:"


@dataclass(frozen=True)
class HubCorpus:
    """`column` of the train split of `dataset` (owner/name) in its configuration `config` (None: the default one).

    A row is a document unless `documents` says how rows become documents. `characters` bounds what is fetched.
    """

    dataset: str
    config: str | None = None
    column: str | None = None
    documents: Callable[[Iterable[str]], Iterator[str]] = iter
    characters: int | None = None

    def stream(self, column: str) -> Iterator[str]:
        """The documents; `column` is read unless the corpus names its own.

        Raises ConnectionError or ValueError with one sentence, whatever the libraries below raise.
        """
        return self.documents(self._rows(self.column or column))

    def _rows(self, column: str) -> Iterator[str]:
        import datasets  # seconds to import, and only needed here

        where = f"{PREFIX}{self.dataset}" + (f":{self.config}" if self.config else "")
        try:
            rows = iter(datasets.load_dataset(self.dataset, self.config, split="train", streaming=True))
            for row in rows:
                if not isinstance(row.get(column), str):
                    found = ", ".join(repr(name) for name, value in row.items() if isinstance(value, str)) or "none"
                    raise _Column(f"{where}: no text column {column!r}; found {found}; write {where}:COLUMN")
                yield row[column]
        except _Column as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # datasets, huggingface_hub, fsspec and httpx each raise families of their own
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ConnectionError(
                f"{where} could not be read from the Hugging Face hub ({reason}); check its name and configuration, "
                f"connect to the network, or name a corpus of your own with --corpus"
            ) from error


class _Column(Exception):
    """The column asked for is not there; its message says which are."""


def parse_hub_name(name: str) -> HubCorpus:
    """ "hf:owner/name[:config[:column]]" -> HubCorpus; an empty config is the default one. Raises ValueError."""
    dataset, *rest = name.removeprefix(PREFIX).split(":")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset) or len(rest) > 2:
        raise ValueError(f"found {name!r}, expected hf:owner/name, hf:owner/name:config or hf:owner/name:config:column")
    config, column = (*rest, "", "")[:2]
    return HubCorpus(dataset, config or None, column or None)


def wikitext_articles(rows: Iterable[str]) -> Iterator[str]:
    """Join WikiText's rows, which are lines, into articles; each starts at a heading of the first level, " = X = "."""
    article: list[str] = []
    for row in rows:
        if re.fullmatch(r"\s*= [^=].* =\s*", row) and article:
            yield "\n".join(article)
            article = []
        if row.strip():
            article.append(row.strip())
    if article:
        yield "\n".join(article)


HUB = {
    "wikitext-103": HubCorpus("Salesforce/wikitext", "wikitext-103-raw-v1", "text", wikitext_articles),
    # 640 GB in all: the first 10**9 characters are what a small model can use, and 3 GB of download.
    "fineweb-zh": HubCorpus("HuggingFaceFW/fineweb-2", "cmn_Hani", "text", characters=10**9),
}
