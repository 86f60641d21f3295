"""References in words that lists do not have: "exercise 3" below "Exercises:", and those to other texts.

"Item 4 of the attached form", "Step 3/7" of another program and numbers in code mean no list of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_CODE_SPAN = re.compile(r"`[^`\n]{1,200}`")
_JOINT = r"(?:,[ \t]*|[ \t]+(?:and|or|to)[ \t]+|[-\u2013])"
"""Matches what is between two numbers of a reference."""
_AMOUNT_BEHIND = (
    r"[ \t]*(?:[$\u20ac\u00a3\u00d7%]|(?:times|x|(?:more|other|extra|further)[ \t]+\w+|of[ \t]+\d+|"
    r"am|pm|[ap]\.m|o['\u2019]clock|"
    r"percent|euros?|dollars?|pounds|cents|degrees|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|nights?|weeks?|"
    r"weekdays|mornings|evenings|months?|years?|people|persons?|guests|kg|g|mg|ml|km|cm|mm|m|met(?:er|re)s|miles|"
    r"(?-i:January|February|March|April|May|June|July|August|September|October|November|December))\b)"
)
"""Matches what shows that the number before it is an amount, a time or a date: "exercise 3 times a week"."""
REFERENCE_BY_NOUN = re.compile(
    r"(?:\b(?P<word>(?-i:[a-z])[a-z]{2,19}|(?<![\w,;:*_] )(?-i:[A-Z])[a-z]{2,19}))[ \t]+"
    rf"(?P<numbers>\d{{1,3}}(?:{_JOINT}\d{{1,3}}){{0,8}})(?![\w%\u00b0]|[.,:/]\d|-\w|{_JOINT}\d|{_AMOUNT_BEHIND})",
    re.IGNORECASE,
)
"""Matches any word before a number, which is a reference if the line above a list has that word: "exercise 3". Within a
sentence a capital shows a name, as in "the Model 3"."""
_NOUN_ABOVE = re.compile(r"\b(?P<noun>[a-z]{2,19}s)[*_]{0,3}(?::[*_ \t]{0,4}$|(?P<heading>)$)", re.IGNORECASE)
"""Matches the plural at the end of a line with a colon, or at the end of a heading or title (group `heading`)."""
_NUMBERED_THINGS = (
    "hour|day|week|month|year|page|chapter|class|grade|level|version|season|episode|round|room|floor|line|gate|platform|"
    "terminal|ward|table|figure|number|article|section|paragraph|seat|match|game|group|euro|dollar|item|"
    "model|size|age|time|route|channel|type|product|serie|unit|apartment|building|zone|track|exit|lane|bus|player|team|"
    "act|scene|verse|volume|book|issue|edition|part"
)
"""Nouns before which a number is a name, or an amount, more often than the number of a list's item."""
PROGRESS = re.compile(r"[^\W\d_]+(?<!s)[ \t]+\d{1,3}[ \t]*(?:/|of)[ \t]*(?P<total>\d{1,3})", re.IGNORECASE)
"""Matches a reference to one of so many steps: "Step 3/7"; "Steps 3/4" are two of them."""
_DOCUMENT = (
    r"(?:(?:your|the|that|his|her|their)[ \t]+(?:[a-z-]+[ \t]+)?(?:(?:text)?book|manual|handbook|worksheet|workbook|"
    r"questionnaire|leaflet|brochure|booklet)|(?:(?:your|the|an?)[ \t]+)?(?:(?:attached|enclosed|official)[ \t]+)?"
    r"form(?:(?<=attached form)|(?<=enclosed form)|(?<=official form)|[ \t]+(?=(?-i:[A-Z])|\d)))\b"
)
"""Matches the name of another document: "your book", "the attached form", "form S-7"."""
_DOCUMENT_BEHIND = re.compile(rf"[ \t]+(?:of|in|on|from)[ \t]+{_DOCUMENT}", re.IGNORECASE)
_DOCUMENT_BEFORE = re.compile(rf"(?:^|[.!?:][ \t]+)[*_]{{0,3}}(?:in|on)[ \t]+{_DOCUMENT}[^.!?\n]*$", re.IGNORECASE)
"""Matches the beginning of a sentence about another document, up to a reference: "In form S-7, leave item 4 blank"."""
_SENTENCE_CHARS = 200
"""Characters before a reference in which the beginning of its sentence is searched."""


def means_other_document(reference: re.Match[str]) -> bool:
    """Whether the sentence names another document to which a reference belongs: "item 4 of the attached form"."""
    text = reference.string
    start = reference.start("word")
    before = text[max(0, start - _SENTENCE_CHARS) : start]
    return bool(_DOCUMENT_BEHIND.match(text, reference.end("numbers")) or _DOCUMENT_BEFORE.search(before))


def read_noun(text: str) -> str:
    """The singular of what a line with a colon or a heading names at its end; empty if it names none."""
    match = _NOUN_ABOVE.search(text)
    if match is None or (match["heading"] is not None and not text.lstrip(" \t>").startswith(("#", "**"))):
        return ""
    noun = to_singular(match["noun"])
    return "" if re.fullmatch(_NUMBERED_THINGS, noun) else noun


def to_singular(noun: str) -> str:
    """The singular of a regular plural, in lower case; other words in lower case."""
    word = noun.lower()
    return f"{word[:-3]}y" if word.endswith("ies") else word.removesuffix("s")


def without_code(text: str) -> str:
    """The text without its code blocks and code spans."""
    lines: list[str] = []
    in_code = False
    for line in text.split("\n"):
        is_fence = _FENCE.match(line) is not None
        if not (in_code or is_fence):
            lines.append(_CODE_SPAN.sub("", line))
        in_code ^= is_fence
    return "\n".join(lines)


def replace_outside_code(pattern: re.Pattern[str], line: str, replace: Callable[[re.Match[str]], str]) -> str:
    """The line with each match of `pattern` replaced that is not in a code span."""
    code_spans = [match.span() for match in _CODE_SPAN.finditer(line)]

    def replace_match(match: re.Match[str]) -> str:
        is_in_code = any(start < match.end() and match.start() < end for start, end in code_spans)
        return match.group() if is_in_code else replace(match)

    return pattern.sub(replace_match, line)
