"""Sentences inside a segment: in brackets, as the words of a link or picture, as code, or joined to others by a dash.

"(You are a fool) Take a coat." and "Take a coat; You are a fool; Bring a map." are one segment each, since no end mark
stands between their sentences, and "[You are a fool.](https://example.com)" ends with an address. So these sentences
are judged by themselves. One goes with what encloses or joins it, if the rest can do without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.prose import has_unspaced_words, is_prose
from aligner_proxy.text.reading_form import TAG

_WORDS = r"(?P<{}>[^()\uff08\uff09\[\]{{}}<>`*\n]{{6,400}})"
_ENCLOSED = re.compile(
    rf"[ \t]?[(\uff08]{_WORDS.format('bracket')}[)\uff09]"
    rf"|!\[{_WORDS.format('picture')}\]\([^()\s]{{1,400}}\)"
    rf"|\[{_WORDS.format('link')}\](?:\([^()\s]{{1,400}}\))?"
    rf"|(?<!`)`{_WORDS.format('code')}`(?!`)"
    rf"|\\text\{{{_WORDS.format('formula')}\}}"
    rf"|\{{{_WORDS.format('brace')}\}}"
    rf"|<{_WORDS.format('angle')}>"
    rf"|(?<![*\w])(?P<stars>\*{{1,3}})(?=\S){_WORDS.format('emphasis')}(?P=stars)(?![*\w])"
)
_MIN_ENCLOSED_WORDS = 4
_JOINT = re.compile(r"(?:[ \t]?[;\u2014]|[ \t](?:-{1,3}|[\u2013/+~\u2192\u2022\u00b7]|[=-]>))[ \t]+(?=[^\W\d_a-z])")
"""Matches what joins two sentences: the next word has a capital."""
_MIN_JOINED_WORDS = 3
"""Fewest words of each sentence; fewer may be a label or a name."""
_END_MARKS = re.compile(r"[.!?\u2026]{1,8}[\"')\u201d]{0,8}\s*$")
_BEFORE_SENTENCE = re.compile(r"(?:^|[.!?\u2026:])[\"')\u201d*_>\s]{0,20}$")
"""Matches the end of what stands before a sentence."""
_BEFORE_CHARS = 40
"""Last characters before a sentence in which that is looked for."""
_NEXT_SENTENCE = re.compile(r"[\s*_.!?]{0,20}(?:$|[^\W\d_a-z])")
"""Matches what stands behind the end of a sentence."""
_MARKS = re.compile(r"\||```|~~~|<!--")
"""Matches the marks of a table, a comment or a block of code, in which other words are judged (judged_words.py)."""


class InnerSentence(NamedTuple):
    """A sentence inside a segment."""

    words: Place
    """The words that are judged."""
    whole: Place | None
    """What goes with them; None if the rest of the segment could not stand without it."""


def find_inner_sentences(text: str) -> list[InnerSentence]:
    """The sentences inside a segment of prose, in order, without overlaps."""
    if _MARKS.search(text) or has_tag(text):
        return []
    sentences = sorted([*_find_enclosed_sentences(text), *_find_joined_sentences(text)])
    separate: list[InnerSentence] = []
    for sentence in sentences:
        if not separate or sentence.words[0] >= separate[-1].words[1]:
            separate.append(sentence)
    return separate


def has_tag(text: str) -> bool:
    """Whether a text has a tag of HTML or XML; words in angle brackets are none."""
    return any(not is_prose(tag.group()[1:-1]) for tag in TAG.finditer(text))


def _find_enclosed_sentences(text: str) -> Iterator[InnerSentence]:
    """Yield the sentences in brackets, links, pictures, code and formulas."""
    for match in _ENCLOSED.finditer(text):
        kind = str(match.lastgroup)
        words = match[kind]
        has_words = len(words.split()) >= _MIN_ENCLOSED_WORDS or has_unspaced_words(words)
        if not has_words or not is_prose(words):
            continue
        yield InnerSentence(match.span(kind), _find_whole(text, match, kind))


def _find_whole(text: str, match: re.Match[str], kind: str) -> Place | None:
    """What goes with an enclosed sentence: a picture keeps its place, and a link that is a part of a sentence stays."""
    if kind == "picture":
        return match.span(kind)
    if kind == "bracket":
        return match.span()
    before = text[max(0, match.start() - _BEFORE_CHARS) : match.start()]
    is_sentence = _BEFORE_SENTENCE.search(before) and _NEXT_SENTENCE.match(text, match.end())
    return match.span() if is_sentence and kind != "formula" else None


def _find_joined_sentences(text: str) -> Iterator[InnerSentence]:
    """Yield the sentences between dashes or semicolons; none if one of them has too few words."""
    joints = [match.span() for match in _JOINT.finditer(text)]
    if not joints:
        return
    end_marks = _END_MARKS.search(text)
    text_end = end_marks.start() if end_marks else len(text)
    starts = [0, *(end for _, end in joints)]
    ends = [*(start for start, _ in joints), text_end]
    places = list(zip(starts, ends, strict=True))
    if any(len(text[slice(*place)].split()) < _MIN_JOINED_WORDS for place in places):
        return
    for (start, end), (next_start, _) in pairwise(places):
        yield InnerSentence((start, end), (start, next_start))
    yield InnerSentence(places[-1], (places[-2][1], text_end))
