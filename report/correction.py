"""A page of texts with doubtful words marked; a click on one shows its alternatives. One file, opens offline."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files import write_atomically
from report.page import STYLE

MOST = 500  # texts on a page
OWN_STYLE = """
div.text { font-size: 1.05rem; margin: .7rem 0; }
details { display: inline; position: relative; } summary { display: inline; list-style: none; cursor: pointer; }
summary::-webkit-details-marker { display: none; } summary mark { border-bottom: 2px solid #D55E00; }
details[open] > ul { position: absolute; left: 0; top: 1.5em; z-index: 2; background: #fff; border: 1px solid #999;
box-shadow: 0 2px 8px #0003; margin: 0; padding: .3rem .8rem; list-style: none; white-space: nowrap; font-size: .9rem; }
li span { color: #777; margin-left: 1em; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>twostream: doubtful words</title><style>{style}</style></head><body>
<h1>Doubtful words</h1>
<p>{told} Press a marked word for what the model finds likelier there; behind each its probability.</p>
{texts}
</body></html>
"""


def marked(line: dict[str, Any]) -> str:
    """line: text, and doubts with begin, end, margin and alternatives (text, log-probability).

    Doubts that touch inside a word are one mark, and show the word with the most doubtful of them replaced.
    """
    text, parts, at = line["text"], [], 0
    for group in touching(text, sorted(line["doubts"], key=lambda d: d["begin"])):
        begin, end = group[0]["begin"], max(doubt["end"] for doubt in group)
        worst = max(group, key=lambda d: d["margin"])
        lead = len(text[begin:end]) - len(text[begin:end].lstrip())  # a space before a word is not marked
        lead = 0 if begin + lead == end else lead
        parts.append(html.escape(text[at : begin + lead]))
        items = []
        for new, p in worst["alternatives"][:5]:
            whole = text[begin : worst["begin"]] + new + text[worst["end"] : end]
            items.append(f"<li>{html.escape(whole.strip())}<span>{math.exp(p):.0%}</span></li>")
        word = html.escape(text[begin + lead : end])
        title = f"less likely by {worst['margin']:.1f} nats"
        list_ = f"<ul>{''.join(items)}</ul>"
        parts.append(f'<details><summary title="{title}"><mark>{word}</mark></summary>{list_}</details>')
        at = end
    return "".join(parts) + html.escape(text[at:])


def touching(text: str, doubts: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Doubts that overlap, or touch inside a word, together."""
    groups: list[list[dict[str, Any]]] = []
    for doubt in doubts:
        last = max(d["end"] for d in groups[-1]) if groups else -1
        if doubt["begin"] < last or (doubt["begin"] == last and not text[last : last + 1].isspace()):
            groups[-1].append(doubt)
        else:
            groups.append([doubt])
    return groups


def write_page(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """The first texts that have doubts, MOST at most; the page says how many there are."""
    doubtful = [line for line in lines if line["doubts"]]
    told = f"{len(doubtful):,} of {len(lines):,} texts have some."
    if len(doubtful) > MOST:
        told += f" The first {MOST} of them."
    texts = "\n".join(f'<div class="text">{marked(line)}</div>' for line in doubtful[:MOST])
    write_atomically(path, PAGE.format(style=STYLE + OWN_STYLE, told=told, texts=texts))
