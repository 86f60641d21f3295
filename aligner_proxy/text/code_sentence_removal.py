"""Removal of sentences from a block of code: what goes with them, and what stays so that the code can still be read.

A string keeps its other sentences and its quotation marks, a page its tags. A line of a program that does nothing but
print goes with its last sentence, and so does an element that holds nothing else.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.code_lines import can_go_together, find_code_lines
from aligner_proxy.text.code_sentences import MARKUP_LANGUAGES, TAG_CHARS, CodePassage, find_passages

_PAGE_HEAD = re.compile(rf"\s*[`~]+[ \t]*(?:{'|'.join(sorted(MARKUP_LANGUAGES))})\b", re.IGNORECASE)
_OPENING = re.compile(
    r"<(?!(?:t[dh]|title|textarea|iframe|object|video|audio|canvas)\b)"
    r"(?P<name>[A-Za-z][\w:.-]{0,40})(?:\s[^<>]{0,300})?>[ \t\r\n]*$",
    re.IGNORECASE,
)
"""Matches the tag before a text, unless its element is a cell, or is something without a text, too."""
_SPACE = re.compile(r"(?:\s|<br[ \t]{0,9}/?>)*+", re.IGNORECASE)
_LINE_BREAK_BEFORE = re.compile(r"(?:[ \t]*<br[ \t]*/?>)$", re.IGNORECASE)
_LINE_BREAK_BEHIND = re.compile(r"(?:<br[ \t]*/?>[ \t]*)", re.IGNORECASE)
_PRINTING_CALL = re.compile(
    r"(?:print|puts|echo|alert|console\.(?:log|info|warn|error)|printf|println!?|System\.out\.print(?:ln)?"
    r"|(?:log|logger|logging)\.(?:debug|info|warning|warn|error)|Console\.Write(?:Line)?|fmt\.Print(?:ln)?"
    r"|Write-(?:Host|Output))(?:[ \t]*\([ \t]*\x00+[ \t]*\)|[ \t]+\x00+)[ \t]*;?"
)
"""Matches a line that prints a string, which stands here as NUL characters, and does nothing else."""
_SETTING = re.compile(r"[\w./-]+(?::[ \t]|[ \t]*=)[ \t]*\x00+")
"""Matches a line that sets a value, which stands here as NUL characters."""


def widen_places(block: str, places: Sequence[Place]) -> list[Place]:
    """The places of all that goes with the sentences at `places`; other places stay as they are.

    A sentence takes the white space on one side along. What loses all its sentences takes the line along that only
    prints it, or sets a value without quotation marks, if the block can lose that line, or the element around it.
    """
    ordered = sorted(places)
    starts = [start for start, _ in ordered]
    widened = set(places)
    markup_texts: list[Place] = []
    lines_by_words: dict[Place, Place] = {}  # the places of lines that go, by the place of their words
    for passage in find_passages(block):
        # a place may lack the signs around the words of its sentence
        places_by_sentence = [
            ordered[bisect_left(starts, start) : bisect_left(starts, end)] if is_offered else []
            for (start, end), is_offered in zip(passage.sentences, passage.offered, strict=True)
        ]
        removals = [bool(places_of_sentence) for places_of_sentence in places_by_sentence]
        if not any(removals):
            continue
        widened.difference_update(chain.from_iterable(places_by_sentence))
        words = passage.sentences[0][0], passage.sentences[-1][1]
        if not all(removals):
            widened.update(_widen_some(block, passage, removals))
        elif passage.is_markup:
            markup_texts.append(words)
        else:
            words = _widen_to_spaces(block, passage) if passage.is_quoted else _find_item(block, *words) or words
            widened.add(words)
            if line := _find_line(block, passage):
                lines_by_words[words] = line
    widened.update(_widen_to_elements(block, markup_texts))
    return _replace_by_lines(block, widened, lines_by_words)


def _replace_by_lines(block: str, places: set[Place], lines_by_words: dict[Place, Place]) -> list[Place]:
    """The places, with the lines in place of their words, if the block can lose these lines."""
    code_lines = set(find_code_lines(block)) if lines_by_words else set()
    lines = {words: line for words, line in lines_by_words.items() if line in code_lines}
    if lines and can_go_together(block, list(lines.values())):
        return sorted(places - lines.keys() | set(lines.values()))
    return sorted(places)


def _widen_some(block: str, passage: CodePassage, removals: Sequence[bool]) -> Iterator[Place]:
    """Yield the places of the sentences that go by `removals`, each run with the smaller white space beside it."""
    sentences = passage.sentences
    for is_removal, group in groupby(range(len(removals)), removals.__getitem__):
        if not is_removal:
            continue
        run = list(group)
        start, _ = sentences[run[0]]
        _, end = sentences[run[-1]]
        before = (sentences[run[0] - 1][1], end) if run[0] else None
        behind = (start, sentences[run[-1] + 1][0]) if run[-1] + 1 < len(sentences) else None
        breaks_before = block.count("\n", before[0], start) if before else 0
        breaks_behind = block.count("\n", end, behind[1]) if behind else 0
        if behind and (before is None or breaks_before > breaks_behind):
            yield _keep_indentation(block, *behind)
        else:
            yield before or (start, end)


def _keep_indentation(block: str, start: int, next_start: int) -> Place:
    """The place of a sentence and of the white space up to the next one, which keeps its indentation."""
    line_start = block.rfind("\n", 0, start) + 1
    next_line_break = block.rfind("\n", start, next_start)
    stands_alone = next_line_break >= 0 and not block[line_start:start].strip()
    if stands_alone and not block.endswith("\\\n", 0, line_start):
        return line_start, next_line_break
    return start, next_start


def _widen_to_spaces(block: str, passage: CodePassage) -> Place:
    """The place of all sentences of a string with the spaces around them, of which one stays between other pieces."""
    start, end = passage.sentences[0][0], passage.sentences[-1][1]
    inner_start, inner_end = passage.inner
    space_start = inner_start + len(block[inner_start:start].rstrip(" \t"))
    space_end = inner_end - len(block[end:inner_end].lstrip(" \t"))
    begins_string = space_start == inner_start > passage.start
    ends_string = space_end == inner_end < passage.end
    if begins_string or ends_string:
        return space_start, space_end
    return (space_start, end) if end < space_end else (start, end)


def _find_line(block: str, passage: CodePassage) -> Place | None:
    """The place of the line that is not needed without a passage, without its indentation; None if there is none."""
    line_start = block.rfind("\n", 0, passage.start) + 1
    line_end = block.find("\n", passage.end)
    line_end = len(block) if line_end < 0 else line_end
    line = block[line_start : passage.start] + "\0" * (passage.end - passage.start) + block[passage.end : line_end]
    sets_value = not passage.is_quoted and _SETTING.fullmatch(line.strip()) is not None
    if not sets_value and not _PRINTING_CALL.fullmatch(line.strip()):
        return None
    return line_start + len(line) - len(line.lstrip()), line_start + len(line.rstrip())


def _find_item(block: str, start: int, end: int) -> Place | None:
    """The place of the item of a list in YAML that consists of the words from `start` to `end`; None if there is none.

    There is none without another item beside it, either, because a list needs one.
    """
    line_start = block.rfind("\n", 0, start) + 1
    line_end = block.find("\n", end)
    mark = block[line_start:start]
    if mark.strip() != "-" or not mark.endswith(" ") or block[end:line_end].strip():
        return None
    line_before = block[block.rfind("\n", 0, max(0, line_start - 1)) + 1 : line_start]
    has_neighbour = line_before.startswith(mark) or block.startswith(mark, line_end + 1)
    return (start - len(mark.lstrip()), end) if has_neighbour else None


def _widen_to_elements(block: str, texts: Sequence[Place]) -> Iterator[Place]:
    """Yield the places of texts of markup, each with the elements around it that hold nothing else."""
    runs: list[list[Place]] = []  # each of places with nothing but white space and line breaks between them
    for text in texts:
        run = [_widen_to_element(block, *text)]
        while runs and _SPACE.fullmatch(block, runs[-1][-1][1], run[0][0]):
            longer_run = runs.pop()
            longer_run.extend(run)
            run = longer_run
            place = run[0][0], run[-1][1]
            widened = _widen_to_element(block, *place)
            if widened == place:
                break
            run = [widened]
        runs.append(run)
    for run in runs:
        yield from (_widen_beside_element(block, *place) for place in run)


def _widen_to_element(block: str, start: int, end: int) -> Place:
    """The place from `start` to `end`, with the elements around it that hold nothing else.

    In a program, an element with no other one beside it stays, because the program needs a value there.
    """
    is_page = _PAGE_HEAD.match(block) is not None
    while opening := _OPENING.search(block, max(0, start - TAG_CHARS), start):
        closing = re.compile(rf"[ \t\r\n]*</{re.escape(opening['name'])}>", re.IGNORECASE).match(block, end)
        if closing is None or not (is_page or _stands_between_tags(block, opening.start(), closing.end())):
            break
        start, end = opening.start(), closing.end()
    return start, end


def _stands_between_tags(block: str, start: int, end: int) -> bool:
    """Whether a tag, and not the arrow of a function, stands before `start`, and a tag behind `end`."""
    before = block[max(0, start - TAG_CHARS) : start].rstrip()
    behind = block[end : end + TAG_CHARS].lstrip()
    return before.endswith(">") and not before.endswith("=>") and behind.startswith("<")


def _widen_beside_element(block: str, start: int, end: int) -> Place:
    """The place from `start` to `end` with a `<br>` or a space beside it that divides nothing then."""
    if line_break := _LINE_BREAK_BEHIND.match(block, end):
        return start, line_break.end()
    if line_break := _LINE_BREAK_BEFORE.search(block, max(0, start - TAG_CHARS), start):
        return line_break.start(), end
    if block[start - 1] == " " and block[end : end + 1] in ("<", " "):
        return start - 1, end
    return start, end + (block[start - 1] == ">" and block[end : end + 1] == " ")
