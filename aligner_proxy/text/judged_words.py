"""Words of a segment that are judged by themselves, because a detector reads the end of a segment above all.

A row of a table ends with a bar, an element with its tag, a comment or string in the midst of code, and a long sentence
with some other clause. So cells, texts between tags, comments, sentences in code (code_sentences.py) and clauses are
judged alone, without the marks around them. If a segment is flagged, only those of them that are flagged are removed
(word_removal.py), and the marks stay. Remarks (remarks.py), and other values in blocks of data, do not raise the score
of their segment, but are removed alone if they are flagged and the rest is not.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from operator import itemgetter

from aligner_proxy.text.code_comments import comment_ranges
from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.code_lines import SHELL_LANGUAGES
from aligner_proxy.text.code_sentences import find_code_sentences
from aligner_proxy.text.inner_sentences import find_inner_sentences, has_tag
from aligner_proxy.text.lists.beside import OPEN_ROW
from aligner_proxy.text.reading_form import CELL, CLAUSE_END, CLAUSE_WORDS, MIN_WORDS, SENTENCE_END, TAG
from aligner_proxy.text.remarks import find_remarks
from aligner_proxy.text.sentence_ends import JOINERS, PICTURES, find_beginnings
from aligner_proxy.text.structure import FENCES, split

_SIGNS_BEFORE_WORDS = re.compile(rf"[\s*_`>#{PICTURES}{JOINERS}]+")
_SIGNS_BEHIND_WORDS = re.compile(rf"(?<![\s*_`{PICTURES}{JOINERS}])[\s*_`{PICTURES}{JOINERS}]++$")
_PICTURE = re.compile(f"[{PICTURES}]")
WORD = re.compile(r"[^\W\d_][^\s|<>]*")
"""Matches a word within the marks of a segment."""
_JSON_LANGUAGES = frozenset({"json", "jsonl", "jsonc", "json5"})
_CSV_LANGUAGES = frozenset({"csv", "tsv"})
"""Languages of blocks of data, as their first line names them."""
_PRINTING_LANGUAGES = SHELL_LANGUAGES | {"console"}
_PRINTING_LINE = re.compile(
    r"(?<=\n)(?<!\\\n)(?<!&&\n)(?<!\|\n)"
    r"(?:echo|printf)[ \t]+(?:-[en]+[ \t]+)?(?P<sign>[\"'])[^\"'`$\\\n]*(?P=sign)[ \t]*\n"
)
"""Matches a line of a script that only prints words, and is not indented, as the only line of a block would be."""
_MAX_REMOVABLE = 32
"""Most places that are judged by themselves. A segment with more would take long, so it is removed as a whole."""
_CSV_LINE = re.compile(r"[^\n]*\n")
_JSON_STRING = re.compile(r'(?<=[\[:,{\s])"(?P<value>(?:[^"\\\n]|\\.)*+)"(?!\s*:)')
"""Matches a string that is a value, and no key."""
_LONG_SENTENCE_WORDS = 28
"""Fewest words of a sentence with an end whose clauses are judged by themselves."""
_MIN_MARKED_WORDS = 2
"""Fewest words of a cell, element or comment that is judged by itself."""


def marked_words(text: str) -> list[Place]:
    """The places of the words between the marks of a segment, in order; empty for plain text."""
    if text.lstrip().startswith(FENCES):
        places: Iterable[Place] = _find_words_of_code(text)
    elif is_row(text):
        places = (place for match in CELL.finditer(text) for place in _between_tags(text, *match.span()))
    elif has_tag(text):
        places = _between_tags(text, 0, len(text))
    elif _PICTURE.search(text):
        places = [(0, len(text))]
    else:
        return []
    trimmed = (_trim(text, *place) for place in places)
    return [(start, end) for start, end in trimmed if len(WORD.findall(text, start, end)) >= _MIN_MARKED_WORDS]


def _find_words_of_code(block: str) -> list[Place]:
    """The places of the sentences of comments in a code block, and of those in its strings and texts, in order."""
    comments = comment_ranges(block)
    ends = [end for _, end in comments]
    places = list(comments)
    for start, end in find_code_sentences(block):
        # in a block without a language, a line that begins with the sign of a comment is both
        index = bisect_right(ends, start)
        if index == len(comments) or comments[index][0] >= end:
            places.append((start, end))
    return sorted(places)


def clauses(text: str) -> list[Place]:
    """The places of the clauses of a long segment, in order; empty for a short one.

    A segment without an end mark counts as long from fewer words on than a sentence.
    """
    if text.lstrip().startswith(FENCES) or is_row(text):
        return []
    has_end = SENTENCE_END.search(_SIGNS_BEHIND_WORDS.sub("", text)) is not None
    min_words = _LONG_SENTENCE_WORDS if has_end else CLAUSE_WORDS
    if len(text.split()) < min_words:
        return []
    ends = sorted({match.end() for match in CLAUSE_END.finditer(text)} | set(find_beginnings(text)) | {len(text)})
    places: list[Place] = []
    start = 0
    for end in ends:
        # a clause of few words is joined to the next one
        if len(text[start:end].split()) >= MIN_WORDS or end == len(text):
            places.append(_trim(text, start, end))
            start = end
    return places


def find_removable_words(text: str) -> list[Place]:
    """The places of words that are removed alone if they are flagged and the rest is not, in order.

    In prose these are remarks (`find_remarks`), such as " (you fool)" in "Take a coat (you fool).", in a block of JSON
    the sentences of the values, in a block of CSV the rows below the head, and in a script the lines that only print
    words. Empty if there are more than `_MAX_REMOVABLE`.
    """
    if text.lstrip().startswith(FENCES):
        return find_data_words(text)
    if is_row(text) or TAG.search(text):
        return []
    places = [place for place in find_remarks(text) if WORD.search(text, *place)]
    return places if len(places) <= _MAX_REMOVABLE else []


def find_data_words(text: str) -> list[Place]:
    """The places of sentences in values of JSON, of rows of CSV, or of printing lines of a script, in a code block."""
    first_line = text.lstrip().split("\n", 1)[0]
    if not first_line.startswith(FENCES):
        return []
    language = first_line.strip("`~ \t").lower()
    places: list[Place] = []
    if language in _CSV_LANGUAGES:
        # the first two lines are the opening fence and the head
        places = [line.span() for line in list(_CSV_LINE.finditer(text))[2:]]
    elif language in _PRINTING_LANGUAGES:
        places = [line.span() for line in _PRINTING_LINE.finditer(text)]
    elif language in _JSON_LANGUAGES:
        values = [string.span("value") for string in _JSON_STRING.finditer(text)]
        places = [place for value in values for place in _split_value(text, *value)]
        if len(places) > _MAX_REMOVABLE:
            places = values  # whole values, which are fewer
    places = [place for place in places if len(WORD.findall(text, *place)) >= _MIN_MARKED_WORDS]
    return places if len(places) <= _MAX_REMOVABLE else []


def _split_value(text: str, start: int, end: int) -> list[Place]:
    """The places of the sentences of the value from `start` to `end`, each with the space before it.

    Only the place of the whole value if one of its sentences is a single word.
    """
    sentences = split(text[start:end])
    if any(len(WORD.findall(sentence.text)) < _MIN_MARKED_WORDS for sentence in sentences):
        return [(start, end)]
    ends = [start, *(start + sentence.end for sentence in sentences)]
    return list(pairwise(ends))


def judged_words(text: str) -> list[Place]:
    """The places of the words of a segment that are judged alone: between marks, or inner sentences and clauses."""
    marked_places = marked_words(text)
    if marked_places or text.lstrip().startswith(FENCES) or is_row(text):
        return marked_places
    inner_places = [sentence.words for sentence in find_inner_sentences(text)]
    other_clauses = [place for place in clauses(text) if not _overlaps(place, inner_places)]
    return sorted([*inner_places, *other_clauses])


def _overlaps(place: Place, places: Sequence[Place]) -> bool:
    """Whether a place overlaps with one of `places`, which are in order and do not overlap."""
    start, end = place
    index = bisect_left(places, end, key=itemgetter(0))  # of the first that begins behind it
    return index > 0 and places[index - 1][1] > start


def sentence_of(words: str) -> str:
    """Words of a segment written as a sentence, with a capital at the beginning and an end mark."""
    sentence = words[:1].upper() + words[1:].rstrip(" ,;")
    return sentence if SENTENCE_END.search(sentence) else f"{sentence}."


def without_last_marks(text: str) -> str:
    """A text without the lines at its end that are rows of a table or have tags."""
    lines = text.splitlines(keepends=True)
    while lines and (is_row(lines[-1]) or TAG.search(lines[-1])):
        lines.pop()
    return "".join(lines)


def is_row(text: str) -> bool:
    """Whether a segment is a row of a table; a single bar inside counts only with spaces around it."""
    bars = text.count("|")
    return bars > 1 or text.lstrip().startswith("|") or (bars == 1 and OPEN_ROW.search(text) is not None)


def _between_tags(text: str, start: int, end: int) -> Iterator[Place]:
    """Yield the places before, between and behind the tags in `text` from `start` to `end`."""
    for match in TAG.finditer(text, start, end):
        yield start, match.start()
        start = match.end()
    yield start, end


def _trim(text: str, start: int, end: int) -> Place:
    """The place from `start` to `end` without the signs around its words."""
    signs_before = _SIGNS_BEFORE_WORDS.match(text, start, end)
    if signs_before is not None:
        start = signs_before.end()
    signs_behind = _SIGNS_BEHIND_WORDS.search(text[start:end])
    if signs_behind is not None:
        end = start + signs_behind.start()
    return start, end
