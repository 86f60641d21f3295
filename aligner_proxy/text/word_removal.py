"""Removal of words from a segment, so that what stays is whole: marks, commas, capitals and ends are mended.

Words of code go with `comment_removal.py` and `code_sentence_removal.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.code_sentence_removal import widen_places
from aligner_proxy.text.comment_removal import remove_comment_words
from aligner_proxy.text.inner_sentences import find_inner_sentences
from aligner_proxy.text.judged_words import WORD, find_data_words, is_row
from aligner_proxy.text.lists.lines import AMOUNT, BARE_VALUE
from aligner_proxy.text.openings import capitalise
from aligner_proxy.text.reading_form import SENTENCE_END, TAG
from aligner_proxy.text.structure import FENCES

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
_OUTER_BARS = re.compile(r"^\s*\||\|\s*$")
_NAME_INTRODUCTION = re.compile(
    r"[^:]{1,30}:\s+|(?:versus|vs\.?|unlike|instead of|compared (?:to|with))\s+", re.IGNORECASE
)
_MAX_NAME_WORDS = 4


def without_words(text: str, places: Sequence[Place]) -> str:
    """A segment without the words at `places`: some of its `judged_words`, `find_removable_words` or `find_code_lines`.

    Empty if the segment has no other words.
    """
    if text.lstrip().startswith(FENCES):
        is_data = set(places).issubset(find_data_words(text))
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
    if not WORD.search(without_tags) and not any(map(str.isdigit, without_tags)):
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
