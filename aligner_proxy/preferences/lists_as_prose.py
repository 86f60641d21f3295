"""How is a list said without marks? Item by item in the same words and order, as sentences of one paragraph.

Items without an end of their own become parts of the sentence that leads in ("You need: flour; eggs; salt."), others
sentences. A loose list (empty lines between its items) becomes paragraphs. A numbered list stays as it is where the
text counts on its numbers ("repeat step 2"), and so does one whose items hold more than text (code, tables, boxes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from aligner_proxy.preferences.spared import spared

_MARK = re.compile(r"^([ \t]*)(?:[-*+\u2022]|(\d{1,3})[.)])[ \t]+(?=\S)")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
_COUNTED_ON = re.compile(
    r"\b(?:steps?|options?|items?|points?|numbers?|no\.|parts?|questions?|rules?|tips?)\s+#?\d{1,3}\b|#\d",
    re.IGNORECASE,
)
_MORE_THAN_TEXT = re.compile(r"^\[[ xX]\]|```|~~~|^\||^#{1,6} ")
_ENDED = re.compile(r"[.!?:;,\u2026\u3002\uff01\uff1f][\"'*_)\]\u201d\u2019]*$")
_LOOSE_END = re.compile(r"(?P<end>[,;]|,? (?:and|or))$")


@dataclass(slots=True)
class _Block:
    """A run of lines: a list (`items`, each its text, and whether it is loose), or other text, line by line."""

    lines: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    numbered: bool = False
    loose: bool = False


def without_lists(text: str) -> str:
    """The text with its lists as prose, as far as that is certain."""
    if not any(_MARK.match(line) for line in text.split("\n")):
        return text
    counted_on = _COUNTED_ON.search(text) is not None
    blocks = list(_blocks(text))
    out: list[str] = []
    for block in blocks:
        certain = (
            block.items and not (block.numbered and counted_on) and not any(map(_MORE_THAN_TEXT.search, block.items))
        )
        out += _prose(block, out) if certain else block.lines
    return "\n".join(out)


def _blocks(text: str) -> Iterator[_Block]:
    lines = text.split("\n")
    fenced, goes_on = _fenced(text), _next_lines(lines)
    items = {number for number, line in enumerate(lines) if number not in fenced and _MARK.match(line)}
    block = _Block()
    for number, line in enumerate(lines):
        mark = _MARK.match(line) if number in items else None
        if mark:
            if not block.items and block.lines:
                yield block
                block = _Block()
            elif block.items and block.lines and not block.lines[-1].strip():
                block.loose = True
            block.items.append(line[mark.end() :].strip())
            block.numbered |= mark.group(2) is not None
        elif block.items and line.strip() and number not in fenced and line[0] in " \t" and block.lines[-1].strip():
            block.items[-1] += " " + line.strip()
        elif block.items and (line.strip() or goes_on[number] not in items):
            trailing = [] if line.strip() else [line]
            yield from _closed(block)
            block = _Block(trailing or [line])
            continue
        block.lines.append(line)
    yield from _closed(block)


def _closed(block: _Block) -> Iterator[_Block]:
    """The block; empty lines behind a list are no part of it."""
    behind = []
    while block.items and block.lines and not block.lines[-1].strip():
        behind.append(block.lines.pop())
    yield block
    if behind:
        yield _Block(behind)


def _next_lines(lines: list[str]) -> list[int]:
    """For each line the number of the first from there on that is not empty."""
    found, there = [0] * len(lines), len(lines)
    for number in reversed(range(len(lines))):
        there = number if lines[number].strip() else there
        found[number] = there
    return found


def _fenced(text: str) -> set[int]:
    """Numbers of the lines that belong to code."""
    return {
        line
        for start, end in spared(text)
        if _FENCE.match(text[start:end].lstrip("\n"))
        for line in range(text.count("\n", 0, start), text.count("\n", 0, end) + 1)
    }


def _prose(block: _Block, before: list[str]) -> list[str]:
    """The lines in place of a list; a line that leads in takes it up."""
    items = [_LOOSE_END.sub("", item) if len(block.items) > 1 else item for item in block.items]
    if block.loose:
        return [line for item in items for line in (_sentence(item), "")][:-1]
    leads = before[-1].rstrip() if before and before[-1].strip() else None
    open_ended = not any(_ENDED.search(item) for item in items)
    if leads is None and before and len(before) > 1 and not before[-1].strip() and before[-2].rstrip().endswith(":"):
        before.pop()
        leads = before[-1].rstrip()
    joined = "; ".join(items) + "." if open_ended else " ".join(map(_sentence, items))
    if leads is not None and leads.endswith(":"):
        before.pop()
        return [f"{leads} {joined}"]
    return [joined]


def _sentence(item: str) -> str:
    return item if _ENDED.search(item) else f"{item}."
