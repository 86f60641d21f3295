"""Numbering of lists: which markers form a list, the new numbers when items are removed, and references to them.

A list is a sequence of consecutive numbers with markers of one style. A reference ("see step 3", "points 2 and 4")
means the list it is in, or the last list before it with this number, or else the next list. Text is read once, in
order, so that an answer can be numbered while it is still being written. A number that was sent in a reference is
fixed, and so are the numbers of its list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import islice

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.counts import update_counts
from aligner_proxy.text.lists.ideographic_references import (
    IDEOGRAPHIC_REFERENCE,
    begins_sentence,
    read_number,
    write_number,
)
from aligner_proxy.text.lists.joints import move_joints
from aligner_proxy.text.lists.marks import Family, Mark, MarkKind
from aligner_proxy.text.lists.nesting import Nesting
from aligner_proxy.text.lists.numbered_list import NumberedItem, NumberedList
from aligner_proxy.text.lists.ordinals import ENGLISH_ORDINALS, Ordinals
from aligner_proxy.text.lists.outline import Outline
from aligner_proxy.text.lists.references import (
    ANY_REFERENCE,
    BRACKETED_REFERENCE,
    FENCE,
    FIRST_LETTER,
    NUMBER_IN_REFERENCE,
    ORDINAL_REFERENCE,
    PROGRESS,
    REFERENCE,
    REFERENCE_BY_NOUN,
    ROMAN_PART,
    means_other_document,
    means_other_text,
    read_noun,
    replace_outside_code,
    to_singular,
    without_code,
)
from aligner_proxy.text.lists.totals import update_totals
from aligner_proxy.text.structure import Segment, split

_LINE = re.compile(r"[^\n]*\n?")
_NUMBER_COLUMN_HEADS = frozenset(
    {"", "#", "no", "no.", "nr", "nr.", "n\u00b0", "\u2116", "step", "schritt", "paso", "item"}
)
"""What the head of a column that numbers the rows may say, in lower case."""
_MAX_SEARCHED = 64
"""Most lists that are remembered, and most items among which a line's item is searched. A hostile text may have
thousands."""
_LETTER_KINDS = (MarkKind.LETTER, MarkKind.CAPITAL)
_LIST_KINDS_BY_NOTATION = {
    MarkKind.DIGIT: (MarkKind.DIGIT, MarkKind.CIRCLED),
    MarkKind.LETTER: _LETTER_KINDS,
    MarkKind.CAPITAL: _LETTER_KINDS,
    MarkKind.CAPITAL_ROMAN: (MarkKind.CAPITAL_ROMAN,),
}
"""For each notation of a number in a reference, the kinds of lists that it may mean."""


class _LineMarks:
    """Reads the markers of lines; that of a table row is its number, if the rows of the table have numbers."""

    def __init__(self) -> None:
        self._in_table = False
        """Whether the last line was a row of a table."""
        self._numbers_rows = False
        """Whether the first column of the present table numbers its rows."""

    def read(self, segment: Segment) -> Mark | None:
        """The marker of a segment that begins a line; None if there is none."""
        if not segment.text.lstrip().startswith("|"):
            self._in_table = False
            return marks.read(segment.text)
        if not self._in_table:
            self._in_table = True
            first_head = segment.text.strip().strip("|").partition("|")[0]
            self._numbers_rows = first_head.strip(" \t*_:").lower() in _NUMBER_COLUMN_HEADS
        return marks.row_number(segment.text) if self._numbers_rows else None


class Numbering:
    """The lists of an answer as far as it was read, with the old and new numbers of their items.

    A list is open as long as a further item may be added, and recent if an item of it is in the output.
    """

    def __init__(self) -> None:
        self.changed = 0
        """Number of markers and references that got another number."""
        self.dangling = 0
        """Number of references to a removed item."""
        self._open: dict[tuple[MarkKind, Family], NumberedList] = {}
        """Lists to which a further item may be added, by what their markers have in common; oldest first."""
        self._all: list[NumberedList] = []
        """All lists, in the order in which they began."""
        self._recent: list[NumberedList] = []
        """Lists of which an item is in the output; that with the latest item first."""
        self._begins_line = True
        """Whether the next segment begins a line."""
        self._text_above = ""
        """The last segment."""
        self._line_marks = _LineMarks()
        self._expected_numbers: set[tuple[int, ...]] = set()
        """The parts of each number that was referred to before an item with this number had come."""
        self._has_removed_items = False
        """Whether any item was removed, so that numbers may change."""
        self._in_item = False
        """Whether the present line of the output is inside a list item."""
        self._after_empty_line = False
        """Whether the last line of the output is empty."""

    def renumber(self, pieces: Sequence[Segment], removed: Collection[int], text: str, *, ends: bool = True) -> str:
        """Update the numbers in `text`, which is what is left of the segments `pieces` without those in `removed`.

        `ends` says whether the answer ends with it. If not, the item that a reference means may still come.
        """
        remaining_items = list(self._read(pieces, removed))
        if not self._has_removed_items:
            self._record_lists(remaining_items, text, ends=ends)
            return text
        return "".join(self._renumber_lines(remaining_items, text, ends=ends))

    def continue_lists(self, original: str, text: str) -> str:
        """Renumber the next part of an answer so that its lists continue those of the parts before.

        `text` replaces `original` and is numbered correctly within itself. If a list is shorter than in `original`, the
        parts that follow are renumbered, too, because the upstream model continues from its own last number.
        """
        original_numbering = deepcopy(self)
        original_numbering.renumber(split(original), (), original)
        text = self.renumber(split(text), (), text)
        for key, open_list in self._open.items():
            original_list = original_numbering._open.get(key)
            # the next item comes with the number behind the upstream's last one
            if original_list is not None and original_list.last != open_list.last:
                open_list.last = original_list.last
                self._has_removed_items = True
        return text

    def _read(self, pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[NumberedItem]:
        """Add the items in these segments to their lists; yield those that remain."""
        for index, segment in enumerate(pieces):
            mark = self._line_marks.read(segment) if self._begins_line else None
            text_above = self._text_above
            self._text_above = segment.text
            self._begins_line = "\n" in segment.gap or not segment.text.strip()
            if mark is not None and mark.is_bullet:
                self._close_lists(mark)
            if mark is None or mark.is_bullet:
                continue
            list_and_value = self._assign_list(mark, text_above)
            if list_and_value is None:
                continue
            numbered_list, value = list_and_value
            remains = index not in removed
            self._has_removed_items |= not remains
            numbered_list.add_item(value, remains=remains)
            if remains:
                yield NumberedItem(mark, numbered_list, value)

    def _assign_list(self, mark: Mark, text_above: str) -> tuple[NumberedList, int] | None:
        """Find or begin the list of a marker: (the list, the number of the marker's item in it). Close other lists.

        None for a line like "Step 3: ..." that continues no list.
        """
        for kind, value in mark.readings:
            open_list = self._open.get((kind, mark.family))
            if open_list is not None and value == open_list.last + 1:
                self._close_lists(mark, behind=open_list)
                return open_list, value
        kind, value = mark.readings[0]
        if value > 1 and mark.has_word:
            return None
        self._close_lists(mark)
        new_list = NumberedList(
            kind=kind,
            style=mark.style,
            first=value,
            last=value,
            depth=-1 if mark.level else mark.indent // 2,
            parents=mark.parents,
            parent=self._find_parent(mark),
            # a reference that was sent may mean an item of this list
            noun=read_noun(text_above),
            fixed=any(mark.parents == tuple(parents) and value <= last for *parents, last in self._expected_numbers),
        )
        # removed first, so that the list is put last and the oldest list is dropped first
        self._open.pop((kind, mark.family), None)
        self._open[kind, mark.family] = new_list
        if len(self._open) > _MAX_SEARCHED:
            del self._open[next(iter(self._open))]
        self._all.append(new_list)
        return new_list, value

    def _close_lists(self, mark: Mark, behind: NumberedList | None = None) -> None:
        """Close the lists that a line with this marker ends: those that are indented more.

        If the marker continues the list `behind`, lists that began after it with the same indentation are closed, too.
        """
        mark_family = mark.family
        # going back from the newest list, the lists before `behind` is reached began after it
        is_later = behind is not None
        for kind, family in reversed(tuple(self._open)):
            is_later &= self._open[kind, family] is not behind
            is_ended = family.depth > mark_family.depth or (is_later and family.depth == mark_family.depth)
            # a heading ends the lists in the text before it, but no list of other headings
            is_text_before_heading = mark_family.level > family.level == 0
            if (family.level == mark_family.level and is_ended) or is_text_before_heading:
                del self._open[kind, family]

    def _find_parent(self, mark: Mark) -> tuple[NumberedList, int] | None:
        """The item above a compound number: (its list, its number). It must be the last item of an open list."""
        if not mark.parents:
            return None
        *parents_above, number = mark.parents
        for (_, family), open_list in reversed(self._open.items()):
            has_number = open_list.kind is MarkKind.DIGIT and open_list.last == number
            if has_number and family.parents == tuple(parents_above):
                return open_list, number
        return None

    def _record_lists(self, items: Sequence[NumberedItem], text: str, *, ends: bool) -> None:
        """Record the lists of these items as recent, and the references in `text`, if nothing was removed so far."""
        for item in items:
            self._move_to_front(item.list)
        if ends:
            return
        # more text follows, and items to which this text refers must keep their numbers
        # a number in code is often that of another text, and stays
        has_code = "`" in text or "~~~" in text
        for match in REFERENCE.finditer(without_code(text) if has_code else text):
            if PROGRESS.fullmatch(match.group()):
                continue
            for number in NUMBER_IN_REFERENCE.findall(match["numbers"]):
                self._expect_number(number)
        for match in IDEOGRAPHIC_REFERENCE.finditer(text):
            self._expect_number(str(read_number(match["number"])))

    def _expect_number(self, number: str) -> None:
        """Remember the number of a reference if no recent list has an item with this number yet.

        Lists that end before the number become fixed, since the reference may mean a later item of theirs.
        """
        if not number[0].isdecimal():
            return
        *parents, value = map(int, number.split("."))
        candidates = [candidate for candidate in self._all if candidate.parents == tuple(parents)]
        if not any(recent.has_number(value) for recent in self._recent if recent in candidates):
            self._expected_numbers.add((*parents, value))
            for candidate in candidates:
                candidate.fixed |= candidate.last < value

    def _move_to_front(self, latest: NumberedList) -> None:
        """Make a list the first of the recent lists."""
        if not self._recent or self._recent[0] is not latest:
            self._recent = [latest, *(other for other in self._recent if other is not latest)][:_MAX_SEARCHED]

    def _renumber_lines(self, items: Sequence[NumberedItem], text: str, *, ends: bool) -> Iterator[str]:
        """Yield the lines of `text` with new numbers in markers and references; `items` are the items in it."""
        in_code = False
        next_item = 0
        for match in _LINE.finditer(text):
            line = match.group()
            is_fence = FENCE.match(line) is not None
            if in_code or is_fence:
                in_code ^= is_fence
                yield line
                continue
            mark = marks.read(line) or marks.row_number(line)
            self._follow_item(line, mark)
            index = _find_line_item(items, next_item, mark)
            if mark is None or index is None:
                yield self._renumber_references(line, ends=ends)
                continue
            item = items[index]
            next_item = index + 1
            self._move_to_front(item.list)
            self.changed += item.new_number != mark.number
            new_mark = line[: mark.start] + item.new_number + line[mark.end : mark.stop]
            yield new_mark + self._renumber_references(line[mark.stop :], ends=ends)

    def _follow_item(self, line: str, mark: Mark | None) -> None:
        """Record whether this line is inside an item: whether it has a marker, or continues an item."""
        if mark is not None:
            self._in_item = True
        elif line.strip():
            # after an empty line only indented text continues the item
            self._in_item &= not self._after_empty_line or line[0].isspace()
        self._after_empty_line = not line.strip()

    def _renumber_references(self, line: str, *, ends: bool) -> str:
        """The line with its references and ordinals updated, except in code spans.

        `ends` says whether no more text follows.
        """
        line = replace_outside_code(BRACKETED_REFERENCE, line, self._drop_dangling)
        line = replace_outside_code(ANY_REFERENCE, line, partial(self._renumber_reference, ends=ends))
        line = replace_outside_code(ROMAN_PART, line, self._renumber_roman)
        if any(recent.noun for recent in self._recent):
            line = replace_outside_code(REFERENCE_BY_NOUN, line, self._renumber_by_noun)
        line = replace_outside_code(IDEOGRAPHIC_REFERENCE, line, partial(self._renumber_ideographic, ends=ends))
        return ORDINAL_REFERENCE.sub(self._renumber_ordinal, line)

    def _drop_dangling(self, match: re.Match[str]) -> str:
        """A reference in brackets; empty if all items that it means are removed."""
        return "" if self._means_removed(match) else match.group()

    def _renumber_reference(self, match: re.Match[str], *, ends: bool) -> str:
        """A reference with its new numbers or letter; unchanged if it means another text."""
        if match["word"] is None:
            return self._renumber_letter(match)
        if means_other_text(match) or self._is_of_other_steps(match):
            return match.group()
        new_numbers = NUMBER_IN_REFERENCE.sub(
            lambda number_match: self._find_new_number(match, number_match, ends=ends), match["numbers"]
        )
        return match.string[match.start() : match.start("numbers")] + new_numbers

    def _is_of_other_steps(self, reference: re.Match[str]) -> bool:
        """Whether a reference such as "Step 3/7" or "step 3 of 7" names a total that no list here has."""
        progress = PROGRESS.fullmatch(reference.group())
        if progress is None:
            return False
        first_number = NUMBER_IN_REFERENCE.search(reference.string, reference.start("numbers"))
        list_and_value = None if first_number is None else self._find_item(reference, first_number)
        return list_and_value is None or list_and_value[0].last != int(progress["total"])

    def _means_removed(self, reference: re.Match[str]) -> bool:
        """Whether all items that a reference means are removed."""
        if means_other_text(reference):
            return False
        for number_match in NUMBER_IN_REFERENCE.finditer(reference["numbers"]):
            list_and_value = self._find_item(reference, number_match)
            if list_and_value is None:
                return False
            target_list, value = list_and_value
            if value in target_list.new_numbers:
                return False
        return True

    def _find_new_number(self, reference: re.Match[str], number_match: re.Match[str], *, ends: bool) -> str:
        """The new number in a reference; unchanged if it refers to nothing known, or to a removed item.

        `number_match` is the match of the number within the reference, and `ends` whether no more text follows.
        """
        number = number_match.group()
        list_and_value = self._find_item(reference, number_match)
        if list_and_value is None:
            if not ends and not number.isalpha():
                self._expect_number(number)
            return number
        target_list, value = list_and_value
        # a reference to a flagged clause is no reason to keep the clause, so it does not count
        may_dangle = not reference["clause"]
        return self._write_number(target_list, value, _kind_of_number(number), number, may_dangle=may_dangle)

    def _write_number(
        self, target_list: NumberedList, value: int, kind: MarkKind, number: str, *, may_dangle: bool = True
    ) -> str:
        """The new number of the item `value` in the notation of `number`, which stands in a reference; count it.

        Unchanged if the item is removed; then the reference counts as dangling if `may_dangle` is true.
        """
        if value not in target_list.new_numbers:
            self.dangling += may_dangle
            return number
        new_number = target_list.write_number(value, kind, number)
        self.changed += new_number != number
        return new_number

    def _find_item(self, reference: re.Match[str], number_match: re.Match[str]) -> tuple[NumberedList, int] | None:
        """The item that a number in a reference means: (its list, its number there); None if it means none.

        A capital without a bracket counts only where the word stands before the letters of the list ("Option B:"). A
        section counts where the word stands before the numbers, in headings and in compound numbers.
        """
        word = reference["word"]
        number = number_match.group()
        *parents, last_part = number.split(".")
        kind = _kind_of_number(number)
        value = marks.value_of(kind, last_part)
        target_list = self._referenced_list(word, value, _LIST_KINDS_BY_NOTATION[kind], tuple(map(int, parents)))
        if target_list is None:
            return None
        has_bracket = number_match.string[number_match.end() : number_match.end() + 1] == ")"
        is_bare_letter = number.isalpha() and not has_bracket and kind is not MarkKind.CAPITAL_ROMAN
        if is_bare_letter and not (target_list.has_word(word) and value in target_list.new_numbers):
            return None
        if reference["section"] and not (parents or target_list.depth < 0 or target_list.has_word(word)):
            return None
        return target_list, value

    def _renumber_letter(self, match: re.Match[str]) -> str:
        """A reference to a letter with the new letter of the item; unchanged if it means no list of letters."""
        group = "letter" if match["letter"] else "answer"
        letter = match[group]
        before = match.string[: match.start()]
        # a line with an "a)" has letters of its own: "We have a) tea, b) milk."
        is_other = before.rfind("(") > before.rfind(")") or FIRST_LETTER.search(match.string) is not None
        kind = _kind_of_number(letter)
        value = marks.value_of(kind, letter)
        target_list = self._referenced_list("", value, (kind,) if match["letter"] else _LETTER_KINDS) if value else None
        if target_list is None or (is_other and group == "letter"):
            return match.group()
        new_letter = self._write_number(target_list, value, kind, letter)
        return match.string[match.start() : match.start(group)] + new_letter

    def _renumber_roman(self, match: re.Match[str]) -> str:
        """The new Roman numeral in a reference such as "III.A" to a heading; unchanged if it means no remaining one."""
        number = match["number"]
        value = marks.value_of(MarkKind.CAPITAL_ROMAN, number)
        target_list = self._referenced_list("", value, (MarkKind.CAPITAL_ROMAN,)) if value else None
        if target_list is None or target_list.depth >= 0:
            return number
        return self._write_number(target_list, value, MarkKind.CAPITAL_ROMAN, number, may_dangle=False)

    def _renumber_ideographic(self, match: re.Match[str], *, ends: bool) -> str:
        """A Chinese or Japanese reference with the new number of its item; unchanged if it means no remaining one."""
        number = match["number"]
        value = read_number(number)
        # at the beginning of a line, and before a sign, it numbers its own sentence
        if begins_sentence(match):
            return match.group()
        target_list = self._referenced_list("", value, (MarkKind.DIGIT, MarkKind.CIRCLED))
        if target_list is None:
            if not ends:
                self._expect_number(str(value))
            return match.group()
        if value not in target_list.new_numbers:
            self.dangling += 1
            return match.group()
        new_value = target_list.new_numbers[value]
        if new_value == value:
            return match.group()
        self.changed += 1
        return match.group()[: match.start("number") - match.start()] + write_number(new_value, number)

    def _renumber_by_noun(self, match: re.Match[str]) -> str:
        """The new numbers of a reference such as "exercise 3", if the line above a list names exercises."""
        # a reference with a word such as "step" has its new number already
        if REFERENCE.fullmatch(match.group()) is not None:
            return match.group()
        noun = to_singular(match["word"])
        target_list = next(
            (recent for recent in self._recent if recent.noun == noun and recent.kind is MarkKind.DIGIT), None
        )
        if target_list is None or target_list.parents or means_other_document(match):
            return match.group()

        def renumber(number_match: re.Match[str]) -> str:
            value = int(number_match.group())
            return str(target_list.new_numbers.get(value, number_match.group()))

        text = re.sub(r"\d+", renumber, match["numbers"])
        self.changed += text != match["numbers"]
        return match.string[match.start() : match.start("numbers")] + text

    def _renumber_ordinal(self, match: re.Match[str]) -> str:
        """The ordinal and its word ("third step") with the new number of the item; unchanged if it means none.

        Only lists before it count: "The second question asks ..." before a list is about something else. An ordinal
        that means a removed item does not count as dangling.
        """
        old_ordinal = match["ordinal"]
        value = ENGLISH_ORDINALS.index(old_ordinal.lower()) + 1
        if not any(recent.kind is MarkKind.DIGIT and recent.has_number(value) for recent in self._recent):
            return match.group()
        word = match.group().split()[-1]
        target_list = self._referenced_list(word, value, (MarkKind.DIGIT,))
        # in a list that does not begin at 1, "third" and item 3 are different items
        if target_list is None or target_list.first != 1:
            return match.group()
        new_value = target_list.new_numbers.get(value, value)
        if new_value == value:
            return match.group()
        self.changed += 1
        new_ordinal = ENGLISH_ORDINALS[new_value - 1]
        if old_ordinal[0].isupper():
            new_ordinal = new_ordinal.capitalize()
        return new_ordinal + match.group()[len(old_ordinal) :]

    def _referenced_list(
        self, word: str, value: int, kinds: Collection[MarkKind], parents: tuple[int, ...] = ()
    ) -> NumberedList | None:
        """The list that a reference means: one whose markers have its `word`, else the last one that has the number.

        `value` is the number, `parents` the parts of a compound number before it, and `kinds` the kinds of lists that
        count. Outside of items, outer lists take precedence over nested lists. None if no list has the number.
        """

        def has_number(candidate: NumberedList) -> bool:
            has_parents = not parents or candidate.parents == parents
            return has_parents and candidate.kind in kinds and candidate.has_number(value)

        candidates = list(filter(has_number, self._recent))
        # a list that lost all its items, or an older one, is not among the recent lists
        if not candidates:
            candidates = list(islice(filter(has_number, self._all), _MAX_SEARCHED))
        if not self._in_item:
            candidates.sort(key=lambda candidate: candidate.depth)
        # "steps 2 and 3" means the list of "Step 2:"
        for candidate in candidates:
            if candidate.has_word(word):
                return candidate
        return candidates[0] if candidates else None


def renumber_text(pieces: Sequence[Segment], removed: Collection[int], text: str) -> tuple[str, int]:
    """Update what depends on removed items: (the new text, how many numbers changed).

    These are numbers of items, references to them, counts, totals, ordinals, the "and" before the last item, and how
    far nested items are indented. `text` is what is left of the segments `pieces` without those at the indexes
    `removed`.
    """
    outline = Outline(pieces)
    text, changed_counts = update_counts(outline, pieces, removed, text)
    text, changed_totals = update_totals(outline, removed, text)
    text = move_joints(outline, pieces, removed, text)
    numbering = Numbering()
    text = numbering.renumber(pieces, removed, text)
    ordinals = Ordinals()
    text = ordinals.renumber(pieces, removed, text)
    text = Nesting().move_up(pieces, removed, text)
    return text, changed_counts + changed_totals + numbering.changed + ordinals.changed


def _kind_of_number(number: str) -> MarkKind:
    """The numbering system of the number in a reference."""
    if number[0].isdecimal():
        return MarkKind.DIGIT
    if len(number) > 1:
        return MarkKind.CAPITAL_ROMAN
    return MarkKind.LETTER if number.islower() else MarkKind.CAPITAL


def _find_line_item(items: Sequence[NumberedItem], start: int, mark: Mark | None) -> int | None:
    """The index, from `start` on, of the item that a line with this marker begins; None if no item nearby fits."""
    if mark is None or mark.is_bullet:
        return None
    for index in range(start, min(len(items), start + _MAX_SEARCHED)):
        item_mark = items[index].mark
        if item_mark.number == mark.number and item_mark.family == mark.family:
            return index
    return None
