"""Words of a segment that are judged by themselves, because a detector reads the end of a segment above all.

A row of a table ends with a bar, an element with its tag, a comment or string in the midst of code, and a long sentence
with some other clause. So cells, texts between tags, comments, sentences in code (code_sentences.py) and clauses are
judged alone, without the marks around them. If a segment is flagged, only those of them that are flagged are removed,
and the marks stay. Remarks (remarks.py), and other values in blocks of data, do not raise the score of their segment,
but are removed alone if they are flagged and the rest is not.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise, takewhile
from operator import itemgetter

from aligner_proxy.text.code_comments import comment_ranges
from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.code_lines import SHELL_LANGUAGES, can_go_together, find_code_lines
from aligner_proxy.text.code_sentence_removal import widen_places
from aligner_proxy.text.code_sentences import find_code_sentences
from aligner_proxy.text.comment_removal import remove_comment_words
from aligner_proxy.text.inner_sentences import find_inner_sentences, has_tag
from aligner_proxy.text.lists.beside import OPEN_ROW
from aligner_proxy.text.lists.lines import AMOUNT, BARE_VALUE
from aligner_proxy.text.openings import capitalise
from aligner_proxy.text.reading_form import CELL, CLAUSE_END, CLAUSE_WORDS, MIN_WORDS, SENTENCE_END, TAG
from aligner_proxy.text.remarks import find_remarks
from aligner_proxy.text.sentence_ends import JOINERS, PICTURES, find_beginnings
from aligner_proxy.text.side_clauses import find_side_clauses
from aligner_proxy.text.structure import FENCES, split

_SIGNS_BEFORE_WORDS = re.compile(rf"[\s*_`>#{PICTURES}{JOINERS}]+")
_SIGNS_BEHIND_WORDS = re.compile(rf"(?<![\s*_`{PICTURES}{JOINERS}])[\s*_`{PICTURES}{JOINERS}]++$")
_PICTURE = re.compile(f"[{PICTURES}]")
_WORD = re.compile(r"[^\W\d_][^\s|<>]*")
_EMPTY_ELEMENT_FORM = (
    r"(?:<(?P<{0}>(?!t[dh]\b)[A-Za-z][\w-]{{0,20}})(?:\s[^<>]{{0,300}})?>[ \t]*</(?P={0})>|<!--[ \t]*-->)"
)
_EMPTY_ELEMENT = re.compile(
    rf"[ \t]+{_EMPTY_ELEMENT_FORM.format('last')}(?=</|$)|(?:(?<=[\s>])|^){_EMPTY_ELEMENT_FORM.format('spaced')}[ \t]?"
    rf"|{_EMPTY_ELEMENT_FORM.format('other')}"
)
"""Matches an HTML comment or element without text, except a cell, with one of the spaces around it."""
_BREAK = r"<br[ \t]*/?>"
_REPEATED_BREAKS = re.compile(rf"({_BREAK})(?:[ \t]*{_BREAK})+", re.IGNORECASE)
_BREAKS_AT_EDGE = re.compile(
    rf"(?P<before>(?:\||<(?:p|td|th|li|div|d[dt]|h[1-6])(?:\s[^<>]{{0,300}})?>)[ \t]*)(?:{_BREAK}[ \t]*)+"
    rf"|(?:[ \t]*{_BREAK})+(?=[ \t]*(?:</|\||$))",
    re.IGNORECASE,
)
"""Matches breaks at the beginning or at the end of a cell or element, or at the end of a segment."""
_MARKUP_HEAD = re.compile(r"<(?:\?xml|!DOCTYPE)\b[^<>]*>", re.IGNORECASE)
"""Matches what stands before the root of a page or of a file of XML, and alone is none."""
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
_OUTER_BARS = re.compile(r"^\s*\||\|\s*$")
_NAME_INTRODUCTION = re.compile(
    r"[^:]{1,30}:\s+|(?:versus|vs\.?|unlike|instead of|compared (?:to|with))\s+", re.IGNORECASE
)
_MAX_NAME_WORDS = 4
_MAX_COMPARED_LINES = 300
"""Most lines of a code block that are compared one by one, since the time grows with the square of their number."""
_WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]")
_MAX_COMPARED_WORDS = 600
"""Most words and signs of a code block that are compared one by one."""
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
    return [(start, end) for start, end in trimmed if len(_WORD.findall(text, start, end)) >= _MIN_MARKED_WORDS]


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
        return _find_data_words(text)
    if is_row(text) or TAG.search(text):
        return []
    places = [place for place in find_remarks(text) if _WORD.search(text, *place)]
    return places if len(places) <= _MAX_REMOVABLE else []


def _find_data_words(text: str) -> list[Place]:
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
    places = [place for place in places if len(_WORD.findall(text, *place)) >= _MIN_MARKED_WORDS]
    return places if len(places) <= _MAX_REMOVABLE else []


def _split_value(text: str, start: int, end: int) -> list[Place]:
    """The places of the sentences of the value from `start` to `end`, each with the space before it.

    Only the place of the whole value if one of its sentences is a single word.
    """
    sentences = split(text[start:end])
    if any(len(_WORD.findall(sentence.text)) < _MIN_MARKED_WORDS for sentence in sentences):
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


def without_words(text: str, places: Sequence[Place]) -> str:
    """A segment without the words at `places`: some of its `judged_words`, `find_removable_words` or `find_code_lines`.

    Empty if the segment has no other words.
    """
    if text.lstrip().startswith(FENCES):
        is_data = set(places).issubset(_find_data_words(text))
        pruned = _cut_places(text, places) if is_data else remove_comment_words(text, widen_places(text, places))
        rest = _MARKUP_HEAD.sub("", "".join(pruned.split("\n")[1:-1]))
        return pruned if any(map(str.isalnum, rest)) else ""
    inner_sentences = {sentence.words: sentence.whole for sentence in find_inner_sentences(text)}
    wholes = [inner_sentences.get(place, place) for place in places]
    if None in wholes:
        return ""
    places = sorted(_leave_last_comma(text, place) for place in wholes if place is not None)
    pruned = _drop_emptied(text, _mend_end(text, _cut_places(text, places)))
    pruned = _mend_beginning(text, pruned, places)
    if is_row(text) and (_has_label_alone(text, pruned) or _has_details_alone(text, pruned)):
        return ""
    without_tags = TAG.sub("", pruned)
    if not _WORD.search(without_tags) and not any(map(str.isdigit, without_tags)):
        return ""
    unchanged_lines = set(text.split("\n"))
    return "\n".join(line if line in unchanged_lines else line.rstrip() for line in pruned.split("\n"))


def _leave_last_comma(text: str, place: Place) -> Place:
    """The place without its last comma or semicolon, which ends the words before it if these have no sign of their own.

    "We are late because you dawdled, and it rains." loses " because you dawdled".
    """
    start, end = place
    words_end = len(text[:start].rstrip())
    # a place without characters may stand at the end of the text
    stands_between_words = text[words_end - 1 : words_end].isalnum() and text[start : start + 1].isalnum()
    has_comma = text[end - 1 : end] in (",", ";")
    return (words_end, end - 1) if stands_between_words and has_comma else place


def _cut_places(text: str, places: Sequence[Place]) -> str:
    """The text without the words at `places`; of the spaces around a place only the space before it stays."""
    pieces: list[str] = []
    position = 0
    for start, end in places:
        pieces.append(text[position:start])
        follows_space = text[start - 1 : start] in ("", " ", '"')
        position = end + 1 if follows_space and text[end : end + 1] == " " else end
    return "".join([*pieces, text[position:]])


def _drop_emptied(text: str, pruned: str) -> str:
    """The rest of a segment (`pruned`) without elements that lost their words, and without `<br>` that divides nothing.

    `text` is the segment before words were removed.
    """
    if "<" not in pruned:
        return pruned
    # an element that was empty before may be a picture
    pruned = _EMPTY_ELEMENT.sub(lambda match: match.group() if match.group().strip() in text else "", pruned)
    for superfluous_breaks, replacement in ((_REPEATED_BREAKS, r"\1"), (_BREAKS_AT_EDGE, r"\g<before>")):
        if len(superfluous_breaks.findall(pruned)) > len(superfluous_breaks.findall(text)):
            pruned = superfluous_breaks.sub(replacement, pruned)
    return pruned


def _has_label_alone(text: str, pruned: str) -> bool:
    """Whether of the cells with words in a row (`text`) only the first one, a label, is left in `pruned`."""
    had_words = _find_cells_with_words(text)
    has_words = _find_cells_with_words(pruned)
    is_only_first = has_words[0] and sum(has_words) == 1
    return is_only_first and sum(had_words) > 1


def _has_details_alone(text: str, pruned: str) -> bool:
    """Whether a row (`text`) lost its name, the first cell that is no amount, and `pruned` says nothing without it.

    That is the case if only amounts are left, or a single word, or if the name is one of a company or product.
    """
    cells = _split_cells(pruned)
    has_name = [AMOUNT.fullmatch(cell) is None and any(map(str.isalnum, cell)) for cell in _split_cells(text)]
    name_index = has_name.index(True) if True in has_name else len(cells)
    # a row that lost its last cells has fewer of them
    loses_name = True in has_name and not any(cells[name_index : name_index + 1])
    details = [cell for cell in cells if cell]
    is_single_word = len(details) == 1 and len(details[0].split()) == 1
    if not loses_name:
        return False
    name = _split_cells(text)[name_index]
    return is_single_word or _is_proper_name(name) or all(map(BARE_VALUE.fullmatch, details))


def _is_proper_name(cell: str) -> bool:
    """Whether a cell is the name of a company or product, such as "Acme Bank", "Versus Acme" or "For reference: Acme".

    All words of the name have a capital at the beginning, and are not all in capitals.
    """
    introduction = _NAME_INTRODUCTION.match(cell)
    words = cell[introduction.end() :].split() if introduction else cell.split()
    has_name = len(words) > 1 or introduction is not None
    is_short = 0 < len(words) <= _MAX_NAME_WORDS and SENTENCE_END.search(cell) is None
    return has_name and is_short and all(word[0].isupper() for word in words) and not cell.isupper()


def _find_cells_with_words(row: str) -> list[bool]:
    """For each cell of a row, whether it has words."""
    return [any(map(str.isalnum, cell)) for cell in _split_cells(row)]


def _split_cells(row: str) -> list[str]:
    """The cells of a row, without the space around their words."""
    return [cell.strip() for cell in _OUTER_BARS.sub("", row).split("|")]


def _mend_end(text: str, pruned: str) -> str:
    """The rest of a segment (`pruned`), with the end mark of `text` if that was removed with the last clause."""
    end_mark = SENTENCE_END.search(text)
    words = pruned.rstrip(" ,;:")
    lost_end = pruned[-1:] in (",", ";", " ") and words[-1:].isalnum()
    return words + end_mark.group() if end_mark and lost_end else pruned


def _mend_beginning(text: str, pruned: str, places: Sequence[Place]) -> str:
    """The rest of a segment (`pruned`), with a capital if the first of the removed `places` began the sentence."""
    start = places[0][0] if places else 0
    lost_capital = text[start : start + 1].isupper() and not any(map(str.isalpha, text[:start]))
    if not lost_capital:
        return pruned
    return pruned[:start] + capitalise(pruned[start:])


def is_pruned(text: str, pruned: str) -> bool:
    """Whether `pruned` is the segment `text` without some of its `judged_words`, data or lines, or a side clause.

    `text` may be the undisguised form of a code block, without the fences that `pruned` has.
    """
    lines = pruned.split("\n")
    lacks_fences = pruned.startswith(FENCES) and not text.lstrip().startswith(FENCES)
    if len(lines) > 1 and lacks_fences:
        text = f"{lines[0]}\n{text}\n{lines[-1]}"
    if any(_lacks_only(text, pruned, places) for places in (judged_words(text), _find_data_words(text))):
        return True
    if _lacks_code_lines(text, pruned):
        return True
    return any(_lacks_only(text, pruned, [place]) for place in find_side_clauses(text))


def _lacks_only(text: str, pruned: str, places: Sequence[Place]) -> bool:
    """Whether `pruned` is `text` without the words at some of the `places`."""
    for find_places in (_find_absent_places, _find_absent_repetitions):
        absent_places = find_places(text, pruned, places)
        if absent_places and without_words(text, absent_places).strip() == pruned.strip():
            return True
    return False


def _find_absent_repetitions(text: str, pruned: str, places: Sequence[Place]) -> list[Place]:
    """Those of the `places` in a code block whose words `pruned` lacks there, although it may have them elsewhere.

    Empty if more than `_MAX_COMPARED_WORDS` words or signs may have changed.
    """
    if not text.lstrip().startswith(FENCES):
        return []
    words = list(_WORD_OR_SIGN.finditer(text))
    pruned_words = _WORD_OR_SIGN.findall(pruned)
    first = sum(1 for _ in takewhile(_are_equal, zip(map(re.Match.group, words), pruned_words, strict=False)))
    pairs = zip(map(re.Match.group, reversed(words[first:])), reversed(pruned_words[first:]), strict=False)
    last_count = sum(1 for _ in takewhile(_are_equal, pairs))
    words = words[first : len(words) - last_count]
    pruned_words = pruned_words[first : len(pruned_words) - last_count]
    if len(words) > _MAX_COMPARED_WORDS:
        return []
    matcher = SequenceMatcher(None, [word[0] for word in words], pruned_words, autojunk=False)
    equal_numbers = {
        number for number, _, size in matcher.get_matching_blocks() for number in range(number, number + size)
    }
    lost_starts = [word.start() for number, word in enumerate(words) if number not in equal_numbers]
    counts = {
        sentence: (text.count(sentence), pruned.count(sentence)) for sentence in {text[slice(*p)] for p in places}
    }
    absent_places: list[Place] = []
    for start, end in places:
        count, pruned_count = counts[text[start:end]]
        lost_count = bisect_left(lost_starts, end) - bisect_left(lost_starts, start)
        is_lost = 2 * lost_count > len(_WORD_OR_SIGN.findall(text, start, end))
        if pruned_count == 0 or (pruned_count < count and is_lost):
            absent_places.append((start, end))
    return absent_places


def _are_equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _lacks_code_lines(text: str, pruned: str) -> bool:
    """Whether `pruned` is the code block `text` without lines that can go together, and without words of comments."""
    code_lines = find_code_lines(text)
    if not code_lines:
        return False
    absent_lines = _find_absent_places(text, pruned, code_lines)
    if not absent_lines or not can_go_together(text, absent_lines):
        return False
    return _lacks_only(text, pruned, sorted([*judged_words(text), *code_lines]))


def _find_absent_places(text: str, pruned: str, places: Sequence[Place]) -> list[Place]:
    """Those of the `places` in `text` whose words `pruned` lacks; of code, only changed lines are compared."""
    lines = text.split("\n")
    if not text.lstrip().startswith(FENCES) or len(lines) > _MAX_COMPARED_LINES:
        return [(start, end) for start, end in places if text[start:end].strip() not in pruned]
    pruned_lines = pruned.split("\n")
    equal_blocks = SequenceMatcher(None, lines, pruned_lines, autojunk=False).get_matching_blocks()
    unchanged_numbers = {number for first, _, size in equal_blocks for number in range(first, first + size)}
    kept_numbers = {number for _, first, size in equal_blocks for number in range(first, first + size)}
    changed_text = "\n".join(line for number, line in enumerate(pruned_lines) if number not in kept_numbers)
    return [
        (start, end)
        for start, end in places
        if text.count("\n", 0, start) not in unchanged_numbers and text[start:end].strip() not in changed_text
    ]


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
