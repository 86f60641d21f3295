"""Frames: lines that only divide or enclose other lines, and mean nothing once those are removed.

A break ("---") divides sections, an empty line of a quotation (">") its paragraphs, and a line of one tag begins or
ends an element or a comment, as a line of colons (":::") does a note. The summary of an element and the head of its
table, and "P.S." before a sentence, name what follows. The last line of a quotation may name who said it
("> \u2014 Ada").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from aligner_proxy.text.structure import Segment

_BREAK = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*")
_SPACER = re.compile(r"[ \t]*>[ \t>]*")
_SOURCE = re.compile(r"[ \t]*>[ \t>]*[*_]{0,2}(?:[\u2014\u2015]|--)[ \t]*[^\n]{1,80}(?<![.!?:])")
_TAG = re.compile(
    r"[ \t]*(?:<(?P<shut>/?)(?P<name>[A-Za-z][\w-]{0,20})(?:\s[^<>]{0,300})?(?<!/)>|<!--|(?P<end>-->)"
    r"|(?P<colons>:{3,8})(?P<kind>[ \t]*[\w{][^\n]{0,80})?)[ \t]*"
)
"""Matches a tag or the begin or end of a comment, or the line of colons around a note ("::: warning")."""
_NAME = re.compile(r"[ \t]*(?:<(?:summary|caption|legend)\b|<tr\b[^<>]{0,300}>\s*<th\b)", re.IGNORECASE)
_POSTSCRIPT = re.compile(r"[\s*_>]*(?:(?:P\.\s?)+S\.|N\.\s?B\.)[:*_]*")
_VOID = frozenset({"br", "hr", "img", "input", "meta", "link", "wbr"})
_DEEPEST = 32
"""Most elements inside each other that are read."""

Framed = tuple[int, range]
"""A segment that frames others, and those."""


def is_frame(text: str) -> bool:
    """Whether a segment that is a line of its own is a break, an empty or last line of a quotation, or one tag."""
    return any(form.fullmatch(text) for form in (_BREAK, _SPACER, _SOURCE)) or _read_tag(text) is not None


def opens_frame(text: str) -> bool:
    """Whether the segment at the beginning of a line goes if all that follows goes, up to the end of its frame."""
    tag = _read_tag(text)
    is_closing_tag = tag is not None and tag[1]
    return not is_closing_tag and (is_frame(text) or bool(_NAME.match(text) or _POSTSCRIPT.fullmatch(text)))


def find_frames(pieces: Sequence[Segment]) -> Iterator[Framed]:
    """Yield each segment that frames others, with those others; a frame may occur several times."""
    if not any(form.match(piece.text) for piece in pieces for form in (_BREAK, _SPACER, _TAG, _NAME, _POSTSCRIPT)):
        return
    yield from _find_dividers(pieces, [i for i in _find_lines(pieces) if _is_break(pieces, i)], range(len(pieces)))
    for quotation in _find_quotations(pieces):
        spacers = [i for i in quotation if _SPACER.fullmatch(pieces[i].text)]
        yield from _find_dividers(pieces, spacers, quotation)
        if _SOURCE.fullmatch(pieces[quotation[-1]].text):
            yield quotation[-1], quotation[:-1]
    yield from _find_elements(pieces)
    yield from _find_postscripts(pieces)


def _find_lines(pieces: Sequence[Segment]) -> Iterator[int]:
    """Yield the segments that are a line of their own."""
    for i, piece in enumerate(pieces):
        begins = i == 0 or "\n" in pieces[i - 1].gap
        if begins and (not piece.gap or "\n" in piece.gap):
            yield i


def _is_break(pieces: Sequence[Segment], number: int) -> bool:
    """Whether a line is a break; right below a line of text, it would make that a heading."""
    is_apart = number == 0 or pieces[number - 1].gap.count("\n") > 1 or not pieces[number - 1].text.strip()
    return is_apart and _BREAK.fullmatch(pieces[number].text) is not None


def _find_dividers(pieces: Sequence[Segment], dividers: Sequence[int], divided: range) -> Iterator[Framed]:
    """Yield each divider with what is between it and the next one, and with all that is before it."""
    for divider, following in pairwise([*dividers, divided.stop]):
        yield divider, range(divider + 1, following)
        yield divider, range(divided.start, divider)


def _find_quotations(pieces: Sequence[Segment]) -> Iterator[range]:
    """Yield the segments of each quotation in lines that begin with ">"; an empty line ends it."""
    start = None
    for i, piece in enumerate(pieces):
        begins_line = i == 0 or "\n" in pieces[i - 1].gap
        is_quoted = piece.text.lstrip(" \t").startswith(">")
        is_apart = i > 0 and pieces[i - 1].gap.count("\n") > 1
        if start is not None and begins_line and (is_apart or not is_quoted):
            yield range(start, i)
            start = None
        if start is None and begins_line and is_quoted:
            start = i
    if start is not None:
        yield range(start, len(pieces))


def _find_elements(pieces: Sequence[Segment]) -> Iterator[Framed]:
    """Yield the tags of each element with what is between them, and what names it with the rest."""
    open_tags: list[tuple[str, int]] = []
    for i in _find_lines(pieces):
        tag = _read_tag(pieces[i].text)
        if tag is None:
            continue
        name, shuts = tag
        if not shuts:
            open_tags = [*open_tags[-_DEEPEST:], (name, i)]
        elif open_tags and open_tags[-1][0] == name:
            _, start = open_tags.pop()
            inside = range(start + 1, i)
            yield from ((start, inside), (i, inside))
            if inside and _NAME.match(pieces[inside.start].text):
                yield inside.start, inside[1:]


def _find_postscripts(pieces: Sequence[Segment]) -> Iterator[Framed]:
    """Yield each "P.S." that begins a line with the rest of the line."""
    for i, piece in enumerate(pieces):
        begins = i == 0 or "\n" in pieces[i - 1].gap
        if begins and "\n" not in piece.gap and _POSTSCRIPT.fullmatch(piece.text):
            stop = next((k + 1 for k in range(i, len(pieces)) if "\n" in pieces[k].gap), len(pieces))
            yield i, range(i + 1, stop)


def _read_tag(text: str) -> tuple[str, bool] | None:
    """The name of the only tag of a segment, empty for a comment, and whether it closes its element.

    None for other text, and for a tag without a closing one.
    """
    match = _TAG.fullmatch(text)
    if match is None:
        return None
    if match["colons"]:
        return match["colons"], not match["kind"]
    name = (match["name"] or "").lower()
    return (name, bool(match["shut"] or match["end"])) if name not in _VOID else None
