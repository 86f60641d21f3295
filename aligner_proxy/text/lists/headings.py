"""Headings: lines that are a title of the text below, in Markdown, HTML, LaTeX, wikis and lists of questions.

A level ranks headings: 1 is the highest, as "#" in Markdown.
"""

from __future__ import annotations

import re

from aligner_proxy.text.lists.marks import QUESTION, Mark

_MARKDOWN_HEADING = re.compile(r"[ \t>]*(#{1,6})[ \t]")
_HTML_HEADING = re.compile(r"[ \t]*<h([1-6])\b[^<>]{0,300}>.*</h\1>[ \t]*", re.IGNORECASE)
_TEX_HEADING = re.compile(
    r"[ \t]*\\(?P<name>part|chapter|(?:sub){0,2}section|(?:sub)?paragraph)\*?\{[^{}]{1,200}\}[ \t]*"
)
_TEX_LEVELS = {
    "part": 1,
    "chapter": 1,
    "section": 2,
    "subsection": 3,
    "subsubsection": 4,
    "paragraph": 5,
    "subparagraph": 6,
}
_WIKI_HEADING = re.compile(r"(={2,6})[ \t]*(?=[^\s=])[^\n]{1,200}(?<![\s=])[ \t]*\1[ \t]*")
_TITLE_ELEMENT = re.compile(r"[ \t]*(?:<p>)?<(strong|b)>[^<]{0,79}[^<.!?]</\1>:?(?:</p>)?[ \t]*", re.IGNORECASE)
_EMPHASISED_TITLE = re.compile(r"[ \t>]*(\*{2,3}|__)(?=\S)(?:(?!\1).){1,80}\1[ \t]*:?[ \t]*")
_ALERT = re.compile(r"[ \t]*>[ \t]*\[!\w{1,20}\][ \t]*")
"""Matches the first line of a quotation in Markdown that is a note, a tip or a warning ("> [!NOTE]")."""
_ADMONITION = re.compile(r"[ \t]*(?:!!!|\?\?\?)\+?[ \t]+\w[\w -]{0,30}(?:[ \t]+\"[^\"\n]{0,80}\")?[ \t]*")
"""Matches the first line of a note in MkDocs and the like, whose text is indented below it."""
_NUMBERED_TITLE = re.compile(
    r"[ \t]*(?:(?P<sign>\u00a7)[ \t]?\d{1,3}[a-z]?(?=[ \t:.\u2013-])"
    r"|(?P<word>article|artikel|art\u00edculo|section|abschnitt|secci\u00f3n|chapter|kapitel|chapitre|cap\u00edtulo|appendix|annexe?|anhang|anexo|schedule|exhibit|part|teil|partie|parte|"
    r"module?|lesson|unit|day|tag|d\u00eda|jour|week|woche|semana|semaine)[ \t](?:\d{1,3}|[IVX]{1,5}|[A-Z])"
    r"(?=[ \t]*[:.\u2013\u2014-]|[ \t]*$))[^\n]{0,80}(?<![.!?:;,])",
    re.IGNORECASE,
)
"""Matches a title of a word and a number, such as "Day 2: Museums". Its number is never changed, since it may be that
of another text."""
_RUN_IN_TITLE = re.compile(r"[ \t>]*(?P<sign>\*\*|__)(?=\S)(?P<title>(?:(?!(?P=sign))[^\n]){1,40}[.!])(?P=sign)[ \t]*")
"""Matches a title in emphasis that is a sentence of its own, as in "**Storage.** Keep it cool."."""
_YES_OR_NO = re.compile(r"(?:yes|no|never|always|maybe|ja|nein|nie|oui|non|jamais|s\u00ed|nunca)\W*", re.IGNORECASE)
_MAX_RUN_IN_WORDS = 2
"""Most words of a run-in title; "**Bring a towel.**" says something itself."""
_QUESTION = re.compile(rf"[ \t>]*[*_]{{0,3}}{QUESTION}[*_]{{0,3}}[ \t]+(?=\S)")
TITLE_LEVEL = 7
"""Level of a line in emphasis, which ranks below every heading."""
_QUESTION_LEVEL = 8
"""Level of a question with a label ("Q:")."""


def is_question(text: str) -> bool:
    """Whether a line begins with the label of a question ("Q:"), and words follow."""
    return _QUESTION.match(text) is not None


def is_admonition(text: str) -> bool:
    """Whether a line is the first line of a note ("!!! warning") whose text is indented below it."""
    return _ADMONITION.fullmatch(text) is not None


def read_title_word(text: str) -> str:
    """The word of a numbered title, in lower case: "day" of "Day 2: Museums"; empty for any other line."""
    match = _NUMBERED_TITLE.fullmatch(text)
    if match is None:
        return ""
    return str(match["word"] or match["sign"]).lower()


def is_run_in_title(text: str, start: int = 0) -> bool:
    """Whether a segment from offset `start` on is a run-in title, which makes no sense without the text behind it.

    A run-in title is a sentence in emphasis of at most `_MAX_RUN_IN_WORDS` words, such as "**Storage.**".
    """
    match = _RUN_IN_TITLE.fullmatch(text, start)
    if match is None or _YES_OR_NO.fullmatch(match["title"]):
        return False
    return len(match["title"].split()) <= _MAX_RUN_IN_WORDS


def read_heading_level(text: str, mark: Mark | None) -> int:
    """The level of a heading or title; 0 for any other line. `mark` is the list marker with which the line begins."""
    heading = _MARKDOWN_HEADING.match(text) or _HTML_HEADING.fullmatch(text) or _WIKI_HEADING.fullmatch(text)
    if heading:
        # the group is a number in HTML, otherwise a run of signs
        level_sign = heading[1]
        return int(level_sign) if level_sign.isdecimal() else len(level_sign)
    tex = _TEX_HEADING.fullmatch(text)
    if tex:
        return _TEX_LEVELS[tex["name"]]
    if mark is None and is_question(text):
        return _QUESTION_LEVEL
    # neither a code block nor emphasis after a bullet is a title
    if "\n" in text or (mark is not None and mark.is_bullet):
        return 0
    is_title = any(pattern.fullmatch(text) for pattern in (_EMPHASISED_TITLE, _ALERT, _TITLE_ELEMENT))
    if mark is not None and not is_title:
        is_title = _EMPHASISED_TITLE.fullmatch(text[mark.stop :]) is not None
    return TITLE_LEVEL if is_title else 0
