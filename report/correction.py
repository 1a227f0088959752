"""A page of texts with their doubtful words marked: pressing one shows what else could stand there. One file, opens offline."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files import write_atomically
from report.page import STYLE

MOST = 500  # texts on a page
OWN_STYLE = """
p.text { font-size: 1.05rem; margin: .7rem 0; }
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
    """line: text, and doubts with begin, end, margin and alternatives (text, log-probability)."""
    text, parts, at = line["text"], [], 0
    for doubt in sorted(line["doubts"], key=lambda d: d["begin"]):
        begin, end = doubt["begin"], doubt["end"]
        lead = len(text[begin:end]) - len(text[begin:end].lstrip())  # a space is not marked
        parts.append(html.escape(text[at : begin + lead]))
        items = "".join(
            f"<li>{html.escape(new.strip())}<span>{2.718281828459045**p:.0%}</span></li>"
            for new, p in doubt["alternatives"][:5]
        )
        word = html.escape(text[begin + lead : end]) or "&nbsp;"
        title = f"less likely by {doubt['margin']:.1f} nats"
        parts.append(f'<details><summary title="{title}"><mark>{word}</mark></summary><ul>{items}</ul></details>')
        at = end
    return "".join(parts) + html.escape(text[at:])


def write_page(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """The first texts that have doubts, MOST at most; the page says how many there are."""
    doubtful = [line for line in lines if line["doubts"]]
    told = f"{len(doubtful):,} of {len(lines):,} texts have some."
    if len(doubtful) > MOST:
        told += f" The first {MOST} of them."
    texts = "\n".join(f'<p class="text">{marked(line)}</p>' for line in doubtful[:MOST])
    write_atomically(path, PAGE.format(style=STYLE + OWN_STYLE, told=told, texts=texts))
