"""Numbering of lists: which markers form a list, the new numbers when items are removed, and references to them.

A list is a sequence of consecutive numbers with markers of one style. A reference ("see step 3", "points 2 and 4")
means the list it is in, or the last list before it with this number, or else the next one. Text is read once, in
order, so that an answer can be numbered while it is still being written. A number that has gone out in a reference is
fixed, and so are the numbers of its list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.counts import update_counts
from aligner_proxy.text.lists.joints import move_joints
from aligner_proxy.text.lists.marks import Family, Mark, MarkKind
from aligner_proxy.text.lists.nesting import Nesting
from aligner_proxy.text.lists.ordinals import ENGLISH_ORDINALS, Ordinals
from aligner_proxy.text.structure import Segment, split

_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_LINE = re.compile(r"[^\n]*\n?")
_CODE_SPAN = re.compile(r"`[^`\n]{1,200}`")
_HEADS_OF_NUMBERS = frozenset(
    {"", "#", "no", "no.", "nr", "nr.", "n\u00b0", "\u2116", "step", "schritt", "paso", "item"}
)
"""Heads of a first column that numbers the rows of a table, in lower case."""
_ONE = (
    r"(?:no\.?[ \t]*|#|\()?(?:\d{1,3}(?:\.\d{1,2}){0,3}(?![\d%\u00b0]|[.,:]\d)"
    r"|[a-zA-Z](?=\))|(?-i:[A-Z]|[IVX]{2,6})(?![\w'\u2019]|\.\w))\)?"
)
_JOINED = r"[ \t]*(?:,[ \t]*(?:and |or )?|\b(?:and|or|to|through|und|oder|bis|et|ou|y|o|e|en|of)\b|&|-|\u2013|/)[ \t]*"
_MOST = 64
"""Maximum number of lists remembered and of items searched for a marker, since a hostile text may have thousands."""
_CLAUSE = r"clauses?|klauseln?|ziffern?|cl\u00e1usulas?"
_SECTION = r"(?:sub)?sections?|paragraphs?|abschnitte?n?|apartados?|secci\u00f3n|secciones"
_REFERENCE = re.compile(
    rf"\b(?P<word>{marks.WORDS}|see (?:number|no\.?)|(?P<clause>{_CLAUSE}|(?P<section>{_SECTION})))[ \t]+"
    rf"(?P<numbers>{_ONE}(?:{_JOINED}{_ONE}){{0,8}})(?!\w)",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(
    rf"[ \t]{{1,4}}\((?:(?:please )?(?:see(?: also)?|cf\.|siehe(?: auch)?|vgl\.|voir|v\u00e9ase|ver)[ \t]+)?"
    rf"(?P<reference>{_REFERENCE.pattern})\)",
    re.IGNORECASE,
)
"""Matches a reference in brackets with the space before it."""
_OF_ANOTHER = re.compile(
    r"[ \t]*(?:\([^()\n]{1,20}\)[ \t]*)?,?[ \t]+(?:(?:of|in|under|to|des|der|du|de|del|dans)\b"
    r"(?! (?:this|these|our|dieser|dieses|ce|cet|cette|este|esta)\b)|(?-i:[A-Z]{2,}))",
    re.IGNORECASE,
)
"""Matches what follows a clause or section that is one of another text: "section 3 of the Act", "Article 6 GDPR"."""
_OWNER = re.compile(r"(?:[A-Z]{2,}|['\u2019]s)[ \t]+$")
"""Matches what precedes one: "GDPR Article 6"."""
_OWNER_CHARS = 40
"""Characters that are searched for that."""
_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,2})*|\b[a-zA-Z](?=\))|\b(?:[A-Z]|[IVX]{2,6})\b")
_ROMAN_PART = re.compile(r"(?<![\w.])(?P<number>[IVX]{1,6})(?=\.(?:[A-Z]|\d{1,2})\b(?!\.\w))")
"""Matches the Roman numeral of a reference such as "III.A"."""
_LETTERS = (MarkKind.LETTER, MarkKind.CAPITAL)
_KINDS_OF_REFERENCES = {
    MarkKind.DIGIT: (MarkKind.DIGIT, MarkKind.CIRCLED),
    MarkKind.LETTER: _LETTERS,
    MarkKind.CAPITAL: _LETTERS,
    MarkKind.CAPITAL_ROMAN: (MarkKind.CAPITAL_ROMAN,),
}
"""By the notation of a number in a reference, the lists that it may mean."""
_ORDINAL = re.compile(rf"\b(?P<ordinal>{'|'.join(ENGLISH_ORDINALS)})[ \t]+(?:{marks.WORDS})\b", re.IGNORECASE)


@dataclass(slots=True)
class NumberedList:
    """One list: the numbers that were read, and which of these items remain."""

    kind: MarkKind
    style: tuple[str, str]
    """The signs before and after its numbers."""
    first: int
    """Number of its first item."""
    last: int
    """Number of the last item read."""
    depth: int
    """Depth of its indentation in steps of two columns; -1 for lists of headings."""
    parents: tuple[int, ...] = ()
    """The parts of its compound numbers before the last: (2,) of "2.1"."""
    parent: tuple[NumberedList, int] | None = None
    """The list and the number that these parts refer to, if it was read."""
    fixed: bool = False
    """Whether its numbers have gone out in a reference and may no longer change."""
    new_numbers: dict[int, int] = field(default_factory=dict)
    """Maps the number of each remaining item to its new number."""

    def add_item(self, value: int, *, remains: bool) -> None:
        """Add the next item with this number; an item that `remains` gets the next new number."""
        self.last = value
        if remains:
            self.new_numbers[value] = value if self.fixed else self.first + len(self.new_numbers)

    def has_word(self, word: str) -> bool:
        """Whether this word, or its plural, stands before the numbers."""
        return self.style[0].strip("*_#(").rstrip("s") == word.lower().rstrip("s.")

    def has_number(self, value: int) -> bool:
        """Whether an item has or had this number."""
        return self.first <= value <= self.last

    def write_number(self, value: int, kind: MarkKind, like: str) -> str:
        """The new number of a remaining item in this notation, with those of the items above it if `like` has them.

        `like` is a number in the same notation.
        """
        *above, last = like.split(".")
        number = marks.format_number(kind, self.new_numbers[value], last)
        return ".".join([*map(str, self._new_parents()), number]) if above else number

    def _new_parents(self) -> tuple[int, ...]:
        """The parts before the last, with the new numbers of the items that they refer to."""
        parents = list(self.parents)
        above = self.parent
        for index in range(len(parents) - 1, -1, -1):
            # the parts further up refer to no list that was read, so they stay
            if above is None:
                break
            parent_list, value = above
            parents[index] = parent_list.new_numbers.get(value, value)
            above = parent_list.parent
        return tuple(parents)


@dataclass(frozen=True, slots=True)
class NumberedItem:
    """A remaining item of a list: its marker, and its number before renumbering."""

    mark: Mark
    list: NumberedList
    value: int

    @property
    def new_number(self) -> str:
        """Its new number; if compound, with the new numbers of the items above it."""
        return self.list.write_number(self.value, self.list.kind, self.mark.number)


class Numbering:
    """The lists of an answer read so far, with the old and new numbers of their items."""

    def __init__(self) -> None:
        self.changed = 0
        """Number of markers and references that got another number."""
        self.dangling = 0
        """Number of references to a removed item."""
        self._open: dict[tuple[MarkKind, Family], NumberedList] = {}
        """Lists to which a further item may be added, oldest first."""
        self._all: list[NumberedList] = []
        """All lists, in the order in which they began."""
        self._recent: list[NumberedList] = []
        """Lists in the order in which they last occurred in the output, latest first."""
        self._begins_line = True
        """Whether the next segment begins a line."""
        self._in_table = False
        """Whether the last line was a row of a table."""
        self._numbers_rows = False
        """Whether the first column of that table numbers its rows."""
        self._promised: set[tuple[int, ...]] = set()
        """Numbers of references to items that had not come yet."""
        self._has_removed_items = False
        """Whether any item was removed, so that numbers may change."""
        self._in_item = False
        """Whether the present line of the output is inside a list item."""
        self._after_empty_line = False
        """Whether the last line of the output is empty."""

    def renumber(self, pieces: Sequence[Segment], removed: Collection[int], text: str, *, ends: bool = True) -> str:
        """Update the numbers in `text`, the output for these pieces, of which some are `removed`.

        If not `ends`, more of the answer follows, perhaps with the item that a reference means.
        """
        standing = list(self._read(pieces, removed))
        if not self._has_removed_items:
            self._note_lists(standing, text, ends=ends)
            return text
        return "".join(self._renumber_lines(standing, text, ends=ends))

    def continue_lists(self, original: str, text: str) -> str:
        """Renumber the next part of an answer so that its lists continue those of the parts before.

        `text` replaces `original`, and its lists are in order by themselves. If a list is shorter than in `original`,
        the next part is renumbered, too, because the upstream counts on from its own last number.
        """
        original_numbering = deepcopy(self)
        original_numbering.renumber(split(original), (), original)
        text = self.renumber(split(text), (), text)
        for key, open_list in self._open.items():
            original_list = original_numbering._open.get(key)
            # the list ends at another number than the upstream's
            if original_list is not None and original_list.last != open_list.last:
                open_list.last = original_list.last
                self._has_removed_items = True
        return text

    def _read(self, pieces: Sequence[Segment], removed: Collection[int]) -> Iterator[NumberedItem]:
        """Read these segments and yield the numbered items that remain."""
        for number, piece in enumerate(pieces):
            mark = self._read_mark(piece) if self._begins_line else None
            self._begins_line = "\n" in piece.gap or not piece.text.strip()
            if mark is not None and mark.is_bullet:
                self._close(mark)
            if mark is None or mark.is_bullet:
                continue
            place = self._assign_list(mark)
            if place is None:
                continue
            numbered, value = place
            remains = number not in removed
            self._has_removed_items |= not remains
            numbered.add_item(value, remains=remains)
            if remains:
                yield NumberedItem(mark, numbered, value)

    def _read_mark(self, piece: Segment) -> Mark | None:
        """The marker of a segment that begins a line; a table row has one if its first column holds numbers."""
        if not piece.text.lstrip().startswith("|"):
            self._in_table = False
            return marks.read(piece.text)
        if not self._in_table:
            self._in_table = True
            head = piece.text.strip().strip("|").partition("|")[0]
            self._numbers_rows = head.strip(" \t*_:").lower() in _HEADS_OF_NUMBERS
        return marks.row_number(piece.text) if self._numbers_rows else None

    def _assign_list(self, mark: Mark) -> tuple[NumberedList, int] | None:
        """Find or begin the list of a marker, and close others; return the list and the marker's number in it.

        None for a line like "Step 3: ..." on its own.
        """
        for kind, value in mark.readings:
            open_list = self._open.get((kind, mark.family))
            if open_list is not None and value == open_list.last + 1:
                self._close(mark, behind=open_list)
                return open_list, value
        kind, value = mark.readings[0]
        if value > 1 and mark.has_word:
            return None
        self._close(mark)
        depth = -1 if mark.level else mark.indent // 2
        # a reference that has gone out may mean an item of this list
        fixed = any(mark.parents == tuple(above) and value <= number for *above, number in self._promised)
        parent = self._find_parent(mark)
        new_list = NumberedList(kind, mark.style, value, value, depth, mark.parents, parent, fixed=fixed)
        # taken out first, so that it is put last and the oldest list is dropped first
        self._open.pop((kind, mark.family), None)
        self._open[kind, mark.family] = new_list
        if len(self._open) > _MOST:
            del self._open[next(iter(self._open))]
        self._all.append(new_list)
        return new_list, value

    def _close(self, mark: Mark, behind: NumberedList | None = None) -> None:
        """Close lists that are deeper than this marker, or that began after the list `behind` that it continues."""
        mark_family = mark.family
        # going from the newest list back, those before `behind` is reached began after it
        is_later = behind is not None
        for kind, family in reversed(tuple(self._open)):
            is_later &= self._open[kind, family] is not behind
            is_deeper = family.depth > mark_family.depth or (is_later and family.depth == mark_family.depth)
            # a heading ends the lists in the text before it, but no list of other headings
            is_text_before_heading = mark_family.level > family.level == 0
            if (family.level == mark_family.level and is_deeper) or is_text_before_heading:
                del self._open[kind, family]

    def _find_parent(self, mark: Mark) -> tuple[NumberedList, int] | None:
        """The item above a compound number: the last item of a list, if its number matches; otherwise None."""
        if not mark.parents:
            return None
        *above, number = mark.parents
        lists = (candidate for (_, family), candidate in reversed(self._open.items()) if family.parents == tuple(above))
        candidate = next(
            (candidate for candidate in lists if candidate.kind is MarkKind.DIGIT and candidate.last == number), None
        )
        return None if candidate is None else (candidate, number)

    def _note_lists(self, standing: Sequence[NumberedItem], text: str, *, ends: bool) -> None:
        """Record the lists of these items and the references in their text, of which nothing is removed."""
        for item in standing:
            self._move_to_front(item.list)
        if ends:
            return
        # more text follows, so what this text refers to must keep its number
        for match in _REFERENCE.finditer(text):
            for number in _NUMBER.findall(match["numbers"]):
                self._promise(number)

    def _promise(self, number: str) -> None:
        """Remember a reference to an item that no recent list has yet.

        Lists that end before that number keep their numbers, since the reference may mean an item that they still get.
        """
        if not number[0].isdecimal():
            return
        *above, value = map(int, number.split("."))
        lists = [numbered for numbered in self._all if numbered.parents == tuple(above)]
        if not any(numbered.has_number(value) for numbered in self._recent if numbered in lists):
            self._promised.add((*above, value))
            for numbered in lists:
                numbered.fixed |= numbered.last < value

    def _move_to_front(self, latest: NumberedList) -> None:
        """Make a list the latest of the recent ones."""
        if not self._recent or self._recent[0] is not latest:
            self._recent = [latest, *(other for other in self._recent if other is not latest)][:_MOST]

    def _renumber_lines(self, standing: Sequence[NumberedItem], text: str, *, ends: bool) -> Iterator[str]:
        """Yield the lines of the text with the remaining items' markers and the references renumbered."""
        in_code = False
        next_item = 0
        for match in _LINE.finditer(text):
            line = match.group()
            is_fence = _FENCE.match(line) is not None
            if in_code or is_fence:
                in_code ^= is_fence
                yield line
                continue
            mark = marks.read(line) or marks.row_number(line)
            self._note_item(line, mark)
            index = _find_item(standing, next_item, mark)
            if mark is None or index is None:
                yield self._renumber_references(line, ends=ends)
                continue
            item = standing[index]
            next_item = index + 1
            self._move_to_front(item.list)
            self.changed += item.new_number != mark.number
            head = line[: mark.start] + item.new_number + line[mark.end : mark.stop]
            yield head + self._renumber_references(line[mark.stop :], ends=ends)

    def _note_item(self, line: str, mark: Mark | None) -> None:
        """Record whether this line is inside an item: it has a marker, or continues one."""
        if mark is not None:
            self._in_item = True
        elif line.strip():
            # after an empty line only indented text goes on with the item
            self._in_item &= not self._after_empty_line or line[0].isspace()
        self._after_empty_line = not line.strip()

    def _renumber_references(self, line: str, *, ends: bool) -> str:
        """The line with its references and ordinals updated, except in code spans."""
        spans = [match.span() for match in _CODE_SPAN.finditer(line)]

        def is_in_code(match: re.Match[str]) -> bool:
            """Whether a match has characters in a code span."""
            return any(start < match.end() and match.start() < end for start, end in spans)

        def renumber_reference(match: re.Match[str]) -> str:
            """The reference with its new numbers; unchanged in code, and where it means another text."""
            if is_in_code(match) or _means_other_text(match):
                return match.group()
            numbers_start = match.start("numbers") - match.start()
            numbers = _NUMBER.sub(lambda one: self._find_new_number(match, one, ends), match["numbers"])
            return match.group()[:numbers_start] + numbers

        if _IN_BRACKETS.search(line):
            line = _IN_BRACKETS.sub(lambda m: "" if not is_in_code(m) and self._means_removed(m) else m[0], line)
            spans = [match.span() for match in _CODE_SPAN.finditer(line)]
        line = _REFERENCE.sub(renumber_reference, line)
        line = _ROMAN_PART.sub(lambda match: match[0] if is_in_code(match) else self._renumber_roman(match), line)
        return _ORDINAL.sub(self._renumber_ordinal, line)

    def _means_removed(self, reference: re.Match[str]) -> bool:
        """Whether all items that a reference means are removed."""
        if _means_other_text(reference):
            return False
        places = [self._find_item(reference, one) for one in _NUMBER.finditer(reference["numbers"])]
        return all(place is not None and place[1] not in place[0].new_numbers for place in places)

    def _find_new_number(self, reference: re.Match[str], one: re.Match[str], ends: bool) -> str:
        """The new number in a reference; unchanged if it refers to nothing known, or to a removed item."""
        number = one.group()
        place = self._find_item(reference, one)
        if place is None:
            if not ends and not number.isalpha():
                self._promise(number)
            return number
        target, value = place
        if value not in target.new_numbers:
            # a flagged clause need not stay because another one names it
            self.dangling += not reference["clause"]
            return number
        new = target.write_number(value, _kind_of_number(number), number)
        self.changed += new != number
        return new

    def _find_item(self, reference: re.Match[str], one: re.Match[str]) -> tuple[NumberedList, int] | None:
        """The list and the number that a number in a reference means; None if it means nothing known.

        A capital without a bracket counts only where the word stands before the letters of the list ("Option B:"). A
        section counts where the word stands before the numbers, in headings and in compound numbers.
        """
        word = reference["word"]
        number = one.group()
        is_bare = number.isalpha() and one.string[one.end() : one.end() + 1] != ")"
        *above, last = number.split(".")
        kind = _kind_of_number(number)
        kinds = _KINDS_OF_REFERENCES[kind]
        value = marks.value_of(kind, last)
        target = self._referenced_list(word, value, kinds, tuple(map(int, above)))
        if target is None:
            return None
        is_bare &= kind is not MarkKind.CAPITAL_ROMAN
        if is_bare and not (target.has_word(word) and value in target.new_numbers):
            return None
        if reference["section"] and not (above or target.depth < 0 or target.has_word(word)):
            return None
        return target, value

    def _renumber_roman(self, match: re.Match[str]) -> str:
        """The Roman numeral in a reference such as "III.A" with the new number of the heading."""
        value = marks.value_of(MarkKind.CAPITAL_ROMAN, match["number"])
        target = self._referenced_list("", value, (MarkKind.CAPITAL_ROMAN,)) if value else None
        if target is None or target.depth >= 0 or value not in target.new_numbers:
            return match.group()
        new = target.write_number(value, MarkKind.CAPITAL_ROMAN, match["number"])
        self.changed += new != match["number"]
        return new

    def _renumber_ordinal(self, match: re.Match[str]) -> str:
        """The ordinal and its word ("third step") with the new number of the item; unchanged if it means none.

        Only lists before it count: "The second question asks ..." before a list is about something else. A reference
        of this kind to a removed item does not count as dangling.
        """
        value = ENGLISH_ORDINALS.index(match["ordinal"].lower()) + 1
        # in a list that does not begin at 1, "third" and item 3 are different items
        is_known = any(numbered.kind is MarkKind.DIGIT and numbered.has_number(value) for numbered in self._recent)
        target = self._referenced_list(match.group().split()[-1], value, (MarkKind.DIGIT,)) if is_known else None
        new = target.new_numbers.get(value, value) if target is not None and target.first == 1 else value
        if new == value:
            return match.group()
        self.changed += 1
        ordinal = ENGLISH_ORDINALS[new - 1]
        ordinal = ordinal.capitalize() if match["ordinal"][0].isupper() else ordinal
        return ordinal + match.group()[len(match["ordinal"]) :]

    def _referenced_list(
        self, word: str, value: int, kinds: Collection[MarkKind], parents: tuple[int, ...] = ()
    ) -> NumberedList | None:
        """The list that a reference means: one whose markers have its word, else the last that has the number.

        `parents` are the parts of a compound number before the `value`. Outside of items, outer lists take precedence
        over nested ones.
        """

        def fits(numbered: NumberedList) -> bool:
            """Whether a list has the number."""
            has_parents = not parents or numbered.parents == parents
            return has_parents and numbered.kind in kinds and numbered.has_number(value)

        # no list in the output may have it: the list may have lost all its items, or be an older one
        fitting = list(filter(fits, self._recent)) or list(islice(filter(fits, self._all), _MOST))
        if not self._in_item:
            fitting.sort(key=lambda numbered: numbered.depth)
        # "steps 2 and 3" means the list of "Step 2:"
        by_word = (numbered for numbered in fitting if numbered.has_word(word))
        return next(by_word, next(iter(fitting), None))


def renumber_text(pieces: Sequence[Segment], removed: Collection[int], text: str) -> tuple[str, int]:
    """Update the numbers of lists and the references to them: (the new text, how many numbers changed).

    `text` is what is left of `pieces` without the `removed` ones. Items move up that lost the item above them.
    """
    text, counts = update_counts(pieces, removed, text)
    text = move_joints(pieces, removed, text)
    numbering = Numbering()
    text = numbering.renumber(pieces, removed, text)
    ordinals = Ordinals()
    text = ordinals.renumber(pieces, removed, text)
    text = Nesting().move_up(pieces, removed, text)
    return text, counts + numbering.changed + ordinals.changed


def has_reference(text: str) -> bool:
    """Whether the text may contain a reference to an item."""
    return _REFERENCE.search(text) is not None


def _kind_of_number(number: str) -> MarkKind:
    """The numbering system of the number in a reference."""
    if number[0].isdecimal():
        return MarkKind.DIGIT
    if len(number) > 1:
        return MarkKind.CAPITAL_ROMAN
    return MarkKind.LETTER if number.islower() else MarkKind.CAPITAL


def _means_other_text(reference: re.Match[str]) -> bool:
    """Whether a reference to a clause or section means one of another text, as "section 3 of the Act" does."""
    text = reference.string
    start = reference.start("word")
    return reference["clause"] is not None and bool(
        _OF_ANOTHER.match(text, reference.end("numbers")) or _OWNER.search(text[max(0, start - _OWNER_CHARS) : start])
    )


def _find_item(standing: Sequence[NumberedItem], first: int, mark: Mark | None) -> int | None:
    """Index of the first item from `first` on whose marker a line begins with; None if there is none nearby."""
    if mark is None or mark.is_bullet:
        return None
    near = range(first, min(len(standing), first + _MOST))
    key = (mark.number, mark.family)
    return next((i for i in near if (standing[i].mark.number, standing[i].mark.family) == key), None)
