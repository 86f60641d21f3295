"""References to items of a list, and what shows that a reference means no list of the answer.

These are references with the words of markers ("step 3"), letters, ordinals, and other words ("exercise 3" below
"Exercises:"). "Item 4 of the attached form", "Step 3/7" of another program and numbers in code mean no list of the
answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.ideographic_references import IDEOGRAPHIC_REFERENCE
from aligner_proxy.text.lists.ordinals import ENGLISH_ORDINALS

FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_CODE_SPAN = re.compile(r"`[^`\n]{1,200}`")
_REFERENCE_NUMBER = (
    r"(?:no\.?[ \t]*|#|\()?(?:\d{1,3}(?:\.\d{1,2}){0,3}(?![\d%\u00b0]|[.,:]\d)"
    r"|[a-zA-Z](?=\))|(?-i:[A-Z]|[IVX]{2,6})(?![\w'\u2019]|\.\w))\)?"
)
_NUMBER_JOINT = (
    r"[ \t]*(?:,[ \t]*(?:and |or )?|\b(?:and|or|to|through|und|oder|bis|et|ou|y|o|e|en|of)\b|&|-|\u2013|/)[ \t]*"
)
_CLAUSE = r"clauses?|klauseln?|ziffern?|cl\u00e1usulas?"
_SECTION = r"(?:sub)?sections?|paragraphs?|abschnitte?n?|apartados?|secci\u00f3n|secciones"
REFERENCE = re.compile(
    rf"\b(?P<word>{marks.WORDS}|see (?:number|no\.?)|(?P<clause>{_CLAUSE}|(?P<section>{_SECTION})))[ \t]+"
    rf"(?P<numbers>{_REFERENCE_NUMBER}(?:{_NUMBER_JOINT}{_REFERENCE_NUMBER}){{0,8}})(?!\w)",
    re.IGNORECASE,
)
"""Matches a word for items and the numbers behind it: "steps 2 and 4"."""
BRACKETED_REFERENCE = re.compile(
    rf"[ \t]{{1,4}}\((?:(?:please )?(?:see(?: also)?|cf\.|siehe(?: auch)?|vgl\.|voir|v\u00e9ase|ver)[ \t]+)?"
    rf"(?P<reference>{REFERENCE.pattern})\)",
    re.IGNORECASE,
)
"""Matches a reference in brackets with the space before it."""
NUMBER_IN_REFERENCE = re.compile(r"\d{1,3}(?:\.\d{1,2})*|\b[a-zA-Z](?=\))|\b(?:[A-Z]|[IVX]{2,6})\b")
"""Matches each number or letter in the group `numbers` of a reference."""
ROMAN_PART = re.compile(r"(?<![\w.])(?P<number>[IVX]{1,6})(?=\.(?:[A-Z]|\d{1,2})\b(?!\.\w))")
"""Matches the Roman numeral of a reference such as "III.A"."""
_LETTER_ALONE = (
    r"(?<=[\w,;:*_] )[*_]{0,3}(?P<letter>[a-hA-H])(?=\))"
    r"|\b(?:answers?|antwort(?:en)?|l\u00f6sung|r\u00e9ponse|respuesta|solution)\b(?: (?:is|ist|est|es|lautet))?"
    r"[:*_ ]{1,6}(?P<answer>[A-H])(?=[*_]{0,3}(?:[.,;:)]|[ \t]*(?:$|\n|[-\u2013\u2014(])))"
)
"""Matches a letter without a word such as "option" before it: "choose c)"; and the letter of an answer: "Answer: C"."""
ANY_REFERENCE = re.compile(rf"{REFERENCE.pattern}|{_LETTER_ALONE}", re.IGNORECASE)
FIRST_LETTER = re.compile(
    r"(?<![\w(])a\)(?![.,;:!?]|[ \t]+(?:and|or|is|was|has|can|could|will|would|should|if|for|because|since|as|when|"
    r"with|to|but|instead|only|first|und|oder|ist|et|ou|est|y|o|es)\b|[*_]{0,3}$)",
    re.IGNORECASE,
)
"""Matches the first letter of a line's own letters: "We have a) tea, b) milk." In "Choose a)." it is a reference."""
ORDINAL_REFERENCE = re.compile(rf"\b(?P<ordinal>{'|'.join(ENGLISH_ORDINALS)})[ \t]+(?:{marks.WORDS})\b", re.IGNORECASE)
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
_OTHER_TEXT_BEHIND = re.compile(
    r"[ \t]*(?:\([^()\n]{1,20}\)[ \t]*)?,?[ \t]+(?:(?:of|in|under|to|des|der|du|de|del|dans)\b"
    r"(?! (?:this|these|our|dieser|dieses|ce|cet|cette|este|esta)\b)|(?-i:[A-Z]{2,}))",
    re.IGNORECASE,
)
"""Matches what follows a reference to a clause or section of another text: "section 3 of the Act", "Article 6 GDPR"."""
_OTHER_TEXT_BEFORE = re.compile(r"(?:[A-Z]{2,}|['\u2019]s)[ \t]+$")
"""Matches what precedes a reference to another text: "GDPR Article 6"."""
_OTHER_TEXT_CHARS = 40
"""Characters before a reference in which another text's name is searched."""


def has_reference(text: str) -> bool:
    """Whether the text may contain a reference to an item."""
    return ANY_REFERENCE.search(text) is not None or IDEOGRAPHIC_REFERENCE.search(text) is not None


def means_other_document(reference: re.Match[str]) -> bool:
    """Whether the sentence names another document to which a reference belongs: "item 4 of the attached form"."""
    text = reference.string
    start = reference.start("word")
    before = text[max(0, start - _SENTENCE_CHARS) : start]
    return bool(_DOCUMENT_BEHIND.match(text, reference.end("numbers")) or _DOCUMENT_BEFORE.search(before))


def means_other_text(reference: re.Match[str]) -> bool:
    """Whether a reference means another text: "item 4 of the attached form", "section 3 of the Act"."""
    if means_other_document(reference):
        return True
    if reference["clause"] is None:
        return False
    text = reference.string
    start = reference.start("word")
    if _OTHER_TEXT_BEHIND.match(text, reference.end("numbers")):
        return True
    return _OTHER_TEXT_BEFORE.search(text[max(0, start - _OTHER_TEXT_CHARS) : start]) is not None


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
        is_fence = FENCE.match(line) is not None
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
