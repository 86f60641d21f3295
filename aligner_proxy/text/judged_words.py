"""Words of a segment that are judged by themselves, because a detector reads the end of a segment above all.

A row of a table ends with a bar, an element with its tag, a comment within code, and a long piece of text that runs on
with some other clause. So cells, texts between tags, comments and clauses are judged without the marks around them.
Of a flagged segment only those that are flagged go, and the marks around them stay. Remarks (remarks.py), and
values in blocks of data, do not raise the score of their segment, but go alone if they are flagged and the rest is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from aligner_proxy.text.code_comments import Place, comment_ranges
from aligner_proxy.text.comment_removal import remove_comment_words
from aligner_proxy.text.lists.beside import OPEN_ROW
from aligner_proxy.text.reading_form import CELL, CLAUSE_END, CLAUSE_WORDS, MIN_WORDS, SENTENCE_END, TAG
from aligner_proxy.text.remarks import find_remarks
from aligner_proxy.text.sentence_ends import JOINERS, PICTURES, find_beginnings
from aligner_proxy.text.structure import FENCES, split

_SIGNS = re.compile(rf"[\s*_`>#{PICTURES}{JOINERS}]+")
_TAIL = re.compile(rf"(?<![\s*_`{PICTURES}{JOINERS}])[\s*_`{PICTURES}{JOINERS}]++$")
_PICTURE = re.compile(f"[{PICTURES}]")
_WORD = re.compile(r"[^\W\d_][^\s|<>]*")
_ELEMENT = r"(?:<(?P<{0}>(?!t[dh]\b)[A-Za-z][\w-]{{0,20}})(?:\s[^<>]{{0,300}})?>[ \t]*</(?P={0})>|<!--[ \t]*-->)"
_EMPTY = re.compile(
    rf"[ \t]+{_ELEMENT.format('last')}(?=</|$)|(?:(?<=[\s>])|^){_ELEMENT.format('spaced')}[ \t]?"
    rf"|{_ELEMENT.format('other')}"
)
"""Matches a comment or element without text, but for cells; of the spaces on both sides one stays."""
_BREAK = r"<br[ \t]*/?>"
_BREAKS = re.compile(rf"({_BREAK})(?:[ \t]*{_BREAK})+", re.IGNORECASE)
_HANGING = re.compile(
    rf"(?P<before>(?:\||<(?:p|td|th|li|div|d[dt]|h[1-6])(?:\s[^<>]{{0,300}})?>)[ \t]*)(?:{_BREAK}[ \t]*)+"
    rf"|(?:[ \t]*{_BREAK})+(?=[ \t]*(?:</|\||$))",
    re.IGNORECASE,
)
"""Matches breaks at the beginning or at the end of a cell or element, or at the end of a segment."""
_JSON = frozenset({"json", "jsonl", "jsonc", "json5"})
_CSV = frozenset({"csv", "tsv"})
"""Languages of blocks of data, as their first line names them."""
_SHELL = frozenset({"bash", "sh", "shell", "zsh", "console"})
_PRINTED = re.compile(
    r"(?<=\n)(?<!\\\n)(?<!&&\n)(?<!\|\n)"
    r"(?:echo|printf)[ \t]+(?:-[en]+[ \t]+)?(?P<sign>[\"'])[^\"'`$\\\n]*(?P=sign)[ \t]*\n"
)
"""Matches a line of a script that only prints words, and stands in no block, where it might be the only command."""
_MOST_REMOVABLE = 32
"""Each is read by itself, so that a block with many values would take long; it goes as a whole."""
_CSV_LINE = re.compile(r"[^\n]*\n")
_JSON_STRING = re.compile(r'(?<=[\[:,{\s])"(?P<value>(?:[^"\\\n]|\\.)*+)"(?!\s*:)')
"""Matches a string that is a value, and no key."""
_OUTER_BARS = re.compile(r"^\s*\||\|\s*$")
_LONG_SENTENCE = 28
"""Fewest words of a sentence with an end whose clauses are judged by themselves."""
_FEWEST = 2
"""Fewest words in a cell, element or comment that can say anything about anybody."""


def marked_words(text: str) -> list[Place]:
    """The words between the marks of a segment, in order; empty for plain text."""
    if text.lstrip().startswith(FENCES):
        places: Iterable[Place] = comment_ranges(text)
    elif is_row(text):
        places = (place for match in CELL.finditer(text) for place in _between_tags(text, *match.span()))
    elif TAG.search(text):
        places = _between_tags(text, 0, len(text))
    elif _PICTURE.search(text):
        places = [(0, len(text))]
    else:
        return []
    trimmed = (_trim(text, *place) for place in places)
    return [(start, end) for start, end in trimmed if len(_WORD.findall(text, start, end)) >= _FEWEST]


def clauses(text: str) -> list[Place]:
    """The clauses of a long segment, in order; empty for a short one.

    Words that run on without the end of a sentence count as long sooner.
    """
    if text.lstrip().startswith(FENCES) or is_row(text):
        return []
    has_end = SENTENCE_END.search(_TAIL.sub("", text)) is not None
    fewest_words = _LONG_SENTENCE if has_end else CLAUSE_WORDS
    if len(text.split()) < fewest_words:
        return []
    ends = sorted({match.end() for match in CLAUSE_END.finditer(text)} | set(find_beginnings(text)) | {len(text)})
    parts: list[Place] = []
    start = 0
    for end in ends:
        if len(text[start:end].split()) >= MIN_WORDS or end == len(text):
            parts.append(_trim(text, start, end))
            start = end
    return parts


def find_removable_words(text: str) -> list[Place]:
    """The places of words that go alone if they are flagged and the rest is not, in order.

    Those are remarks (`find_remarks`): in "Take a coat (you fool)." the place of " (you fool)".
    In a block of JSON they are the sentences of the values, in a block of CSV the rows below the head, and in a script
    the lines that only print words. Empty if there are more than `_MOST_REMOVABLE`.
    """
    if text.lstrip().startswith(FENCES):
        return _find_data_words(text)
    if is_row(text) or TAG.search(text):
        return []
    places = [place for place in find_remarks(text) if _WORD.search(text, *place)]
    return places if len(places) <= _MOST_REMOVABLE else []


def _find_data_words(text: str) -> list[Place]:
    """The places of values with words in a block of JSON, of rows in one of CSV, and of printing lines in a script."""
    opening = text.lstrip().split("\n", 1)[0]
    if not opening.startswith(FENCES):
        return []
    language = opening.strip("`~ \t").lower()
    places: list[Place] = []
    if language in _CSV:
        # without the opening fence and the head
        places = [line.span() for line in list(_CSV_LINE.finditer(text))[2:]]
    elif language in _SHELL:
        places = [line.span() for line in _PRINTED.finditer(text)]
    elif language in _JSON:
        values = [string.span("value") for string in _JSON_STRING.finditer(text)]
        places = [place for value in values for place in _split_value(text, *value)]
        places = places if len(places) <= _MOST_REMOVABLE else values
    places = [place for place in places if len(_WORD.findall(text, *place)) >= _FEWEST]
    return places if len(places) <= _MOST_REMOVABLE else []


def _split_value(text: str, start: int, end: int) -> list[Place]:
    """The places of the sentences of a value, each with the space before it; of the value, if one is a single word."""
    sentences = split(text[start:end])
    if any(len(_WORD.findall(sentence.text)) < _FEWEST for sentence in sentences):
        return [(start, end)]
    ends = [start, *(start + sentence.end for sentence in sentences)]
    return list(pairwise(ends))


def judged_words(text: str) -> list[Place]:
    """The words of a segment that are judged by themselves and may go alone: those between marks, or clauses."""
    return marked_words(text) or clauses(text)


def sentence_of(words: str) -> str:
    """Words of a segment as a plain sentence, which begins with a capital and has an end mark."""
    sentence = words[:1].upper() + words[1:].rstrip(" ,;")
    return sentence if SENTENCE_END.search(sentence) else f"{sentence}."


def without_last_marks(text: str) -> str:
    """A text without the rows and elements in the lines at its end."""
    lines = text.splitlines(keepends=True)
    while lines and (is_row(lines[-1]) or TAG.search(lines[-1])):
        lines.pop()
    return "".join(lines)


def without_words(text: str, places: Sequence[Place]) -> str:
    """A segment without the words at these places; empty if it has no other words.

    The places are some of its `judged_words` or `find_removable_words`.
    """
    if text.lstrip().startswith(FENCES):
        is_data = set(places).issubset(_find_data_words(text))
        pruned = _cut_places(text, places) if is_data else remove_comment_words(text, places)
        return pruned if any(map(str.isalnum, _without_fences(pruned))) else ""
    pruned = _drop_emptied(text, _mend_end(text, _cut_places(text, places)))
    pruned = _mend_beginning(text, pruned, places)
    if is_row(text) and _has_label_alone(text, pruned):
        return ""
    without_tags = TAG.sub("", pruned)
    if not _WORD.search(without_tags) and not any(map(str.isdigit, without_tags)):
        return ""
    unchanged_lines = set(text.split("\n"))
    return "\n".join(line if line in unchanged_lines else line.rstrip() for line in pruned.split("\n"))


def _cut_places(text: str, places: Sequence[Place]) -> str:
    """The text without what stands at these places; of the spaces on both sides of one, the one behind goes as well."""
    pieces: list[str] = []
    position = 0
    for start, end in places:
        pieces.append(text[position:start])
        position = end + (text[end : end + 1] == " " and text[start - 1 : start] in ("", " ", '"'))
    return "".join([*pieces, text[position:]])


def _drop_emptied(text: str, pruned: str) -> str:
    """What is left of a segment (`pruned`) without elements that lost their words, and breaks that divide nothing."""
    # an element that was empty before may be a picture
    pruned = _EMPTY.sub(lambda match: match.group() if match.group().strip() in text else "", pruned)
    for breaks, replacement in ((_BREAKS, r"\1"), (_HANGING, r"\g<before>")):
        if len(breaks.findall(pruned)) > len(breaks.findall(text)):
            pruned = breaks.sub(replacement, pruned)
    return pruned


def _has_label_alone(text: str, pruned: str) -> bool:
    """Whether only the first cell is left of a row that said something about it."""
    had_words = _find_cells_with_words(text)
    has_words = _find_cells_with_words(pruned)
    return sum(had_words) > 1 and has_words[0] and sum(has_words) == 1


def _find_cells_with_words(row: str) -> list[bool]:
    """For each cell of a row, whether it has words."""
    return [any(map(str.isalnum, cell)) for cell in _OUTER_BARS.sub("", row).split("|")]


def _mend_end(text: str, pruned: str) -> str:
    """What is left of a segment (`pruned`), with the mark at its end if that went with the last clause of `text`."""
    mark = SENTENCE_END.search(text)
    body = pruned.rstrip(" ,;:")
    lost_mark = mark is not None and pruned[-1:] in (",", ";", " ") and body[-1:].isalnum()
    return body + mark.group() if mark and lost_mark else pruned


def _mend_beginning(text: str, pruned: str, places: Sequence[Place]) -> str:
    """What is left of a segment (`pruned`), with a capital where the beginning of the sentence is gone."""
    start = places[0][0] if places else 0
    lost_capital = text[start : start + 1].isupper() and not any(map(str.isalpha, text[:start]))
    return pruned[:start] + pruned[start : start + 1].upper() + pruned[start + 1 :] if lost_capital else pruned


def is_pruned(text: str, pruned: str) -> bool:
    """Whether `pruned` is a segment of which only some of its `judged_words` are gone, or of its data.

    A block of code that reads like prose may have lost its fences in `text`.
    """
    lines = pruned.split("\n")
    if len(lines) > 1 and pruned.startswith(FENCES) and not text.lstrip().startswith(FENCES):
        text = f"{lines[0]}\n{text}\n{lines[-1]}"
    return any(_lacks_only(text, pruned, places) for places in (judged_words(text), _find_data_words(text)))


def _lacks_only(text: str, pruned: str, places: Sequence[Place]) -> bool:
    """Whether `pruned` is `text` without the words at some of these places."""
    absent = [place for place in places if text[slice(*place)].strip() not in pruned]
    return bool(absent) and without_words(text, absent).strip() == pruned.strip()


def is_row(text: str) -> bool:
    """Whether a segment is a row of a table; a single bar without spaces around it makes no row."""
    bars = text.count("|")
    return bars > 1 or text.lstrip().startswith("|") or (bars == 1 and OPEN_ROW.search(text) is not None)


def _without_fences(text: str) -> str:
    """A code block without its first and last line; any other text unchanged."""
    return "\n".join(text.split("\n")[1:-1]) if text.lstrip().startswith(FENCES) else text


def _between_tags(text: str, start: int, end: int) -> Iterator[Place]:
    """Yield the places before, between and behind the tags from `start` to `end`."""
    for match in TAG.finditer(text, start, end):
        yield start, match.start()
        start = match.end()
    yield start, end


def _trim(text: str, start: int, end: int) -> Place:
    """A place without the signs around its words."""
    lead = _SIGNS.match(text, start, end)
    start = lead.end() if lead else start
    tail = _TAIL.search(text[start:end])
    return start, start + tail.start() if tail else end
