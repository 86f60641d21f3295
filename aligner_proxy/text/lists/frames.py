"""Frames: segments that only divide, enclose or introduce others, and mean nothing once these others are removed.

A break ("---") divides sections, and an empty line of a quotation (">") its paragraphs. A line of one tag begins or
ends an element or a comment, a line of colons (":::") a note. The summary of an element, the head of an HTML table, and
"P.S." before a sentence introduce what follows. The last line of a quotation may name its source ("> \u2014 Ada").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from aligner_proxy.text.structure import Segment

_BREAK = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*")
_EMPTY_QUOTED_LINE = re.compile(r"[ \t]*>[ \t>]*")
_QUOTATION_SOURCE = re.compile(r"[ \t]*>[ \t>]*[*_]{0,2}(?:[\u2014\u2015]|--)[ \t]*[^\n]{1,80}(?<![.!?:])")
_TAG = re.compile(
    r"[ \t]*(?:<(?P<slash>/?)(?P<name>[A-Za-z][\w-]{0,20})(?:\s[^<>]{0,300})?(?<!/)>|<!--|(?P<comment_end>-->)"
    r"|(?P<colons>:{3,8})(?P<kind>[ \t]*[\w{][^\n]{0,80})?)[ \t]*"
)
"""Matches a tag, the beginning or end of a comment, or a line of colons around a note ("::: warning")."""
_ELEMENT_TITLE = re.compile(r"[ \t]*(?:<(?:summary|caption|legend)\b|<tr\b[^<>]{0,300}>\s*<th\b)", re.IGNORECASE)
_POSTSCRIPT = re.compile(r"[\s*_>]*(?:(?:P\.\s?)+S\.|N\.\s?B\.)[:*_]*")
_VOID_ELEMENTS = frozenset({"br", "hr", "img", "input", "meta", "link", "wbr"})
_MAX_OPEN_TAGS = 32
"""Most nested elements of which the opening tags are remembered."""

Framed = tuple[int, range]
"""(index of a segment that is a frame, indexes of the segments that it frames)."""


def is_frame(text: str) -> bool:
    """Whether a line is a break, an empty line or the source of a quotation, or a single tag."""
    if any(pattern.fullmatch(text) for pattern in (_BREAK, _EMPTY_QUOTED_LINE, _QUOTATION_SOURCE)):
        return True
    return _read_tag(text) is not None


def opens_frame(text: str) -> bool:
    """Whether a segment at the beginning of a line is a frame of what follows, and is removed if that is removed."""
    tag = _read_tag(text)
    if tag is not None:
        _, closes = tag
        return not closes
    return is_frame(text) or _ELEMENT_TITLE.match(text) is not None or _POSTSCRIPT.fullmatch(text) is not None


def find_frames(pieces: Sequence[Segment]) -> Iterator[Framed]:
    """Yield each frame with the segments that it frames. A frame that loses any of its groups is removed.

    So a frame may be yielded several times: a break with the section before it, and with the section behind it.
    """
    patterns = (_BREAK, _EMPTY_QUOTED_LINE, _TAG, _ELEMENT_TITLE, _POSTSCRIPT)
    if not any(pattern.match(segment.text) for segment in pieces for pattern in patterns):
        return
    breaks = [i for i in _find_lines(pieces) if _is_break(pieces, i)]
    yield from _pair_dividers(breaks, range(len(pieces)))
    for quotation in _find_quotations(pieces):
        empty_lines = [i for i in quotation if _EMPTY_QUOTED_LINE.fullmatch(pieces[i].text)]
        yield from _pair_dividers(empty_lines, quotation)
        if _QUOTATION_SOURCE.fullmatch(pieces[quotation[-1]].text):
            yield quotation[-1], quotation[:-1]
    yield from _find_elements(pieces)
    yield from _find_postscripts(pieces)


def _find_lines(pieces: Sequence[Segment]) -> Iterator[int]:
    """Yield the indexes of the segments that are a line of their own."""
    for index, segment in enumerate(pieces):
        begins_line = index == 0 or "\n" in pieces[index - 1].gap
        if begins_line and (not segment.gap or "\n" in segment.gap):
            yield index


def _is_break(pieces: Sequence[Segment], index: int) -> bool:
    """Whether a line is a break. It is none right below a line of text, which it would make a heading."""
    is_apart = index == 0 or pieces[index - 1].gap.count("\n") > 1 or not pieces[index - 1].text.strip()
    return is_apart and _BREAK.fullmatch(pieces[index].text) is not None


def _pair_dividers(dividers: Sequence[int], divided: range) -> Iterator[Framed]:
    """Yield each divider of the `divided` segments with the segments up to the next divider, and with all before it."""
    for divider, next_divider in pairwise([*dividers, divided.stop]):
        yield divider, range(divider + 1, next_divider)
        yield divider, range(divided.start, divider)


def _find_quotations(pieces: Sequence[Segment]) -> Iterator[range]:
    """Yield the segments of each quotation in lines that begin with ">"; an empty line ends it."""
    start = None  # index of the first segment of the present quotation
    for index, segment in enumerate(pieces):
        begins_line = index == 0 or "\n" in pieces[index - 1].gap
        is_quoted = segment.text.lstrip(" \t").startswith(">")
        follows_blank_line = index > 0 and pieces[index - 1].gap.count("\n") > 1
        if start is not None and begins_line and (follows_blank_line or not is_quoted):
            yield range(start, index)
            start = None
        if start is None and begins_line and is_quoted:
            start = index
    if start is not None:
        yield range(start, len(pieces))


def _find_elements(pieces: Sequence[Segment]) -> Iterator[Framed]:
    """Yield both tags of each element with the segments between them, and the element's title with those behind it."""
    open_tags: list[tuple[str, int]] = []  # name and index of each opening tag
    for index in _find_lines(pieces):
        tag = _read_tag(pieces[index].text)
        if tag is None:
            continue
        name, closes = tag
        if not closes:
            open_tags = [*open_tags[-_MAX_OPEN_TAGS:], (name, index)]
        elif open_tags and open_tags[-1][0] == name:
            _, start = open_tags.pop()
            inside = range(start + 1, index)
            yield start, inside
            yield index, inside
            if inside and _ELEMENT_TITLE.match(pieces[inside.start].text):
                yield inside.start, inside[1:]


def _find_postscripts(pieces: Sequence[Segment]) -> Iterator[Framed]:
    """Yield each "P.S." that begins a line with the rest of the line."""
    for index, segment in enumerate(pieces):
        begins_line = index == 0 or "\n" in pieces[index - 1].gap
        if begins_line and "\n" not in segment.gap and _POSTSCRIPT.fullmatch(segment.text):
            line_end = next((i + 1 for i in range(index, len(pieces)) if "\n" in pieces[i].gap), len(pieces))
            yield index, range(index + 1, line_end)


def _read_tag(text: str) -> tuple[str, bool] | None:
    """Read a segment that is a single tag: (name of the element, whether the tag closes it).

    The name of a comment is empty, that of a note between lines of colons are its colons. None for other text, and for
    tags such as `<br>`, which have no closing tag.
    """
    match = _TAG.fullmatch(text)
    if match is None:
        return None
    if match["colons"]:
        return match["colons"], not match["kind"]
    name = (match["name"] or "").lower()
    closes = bool(match["slash"] or match["comment_end"])
    return None if name in _VOID_ELEMENTS else (name, closes)
