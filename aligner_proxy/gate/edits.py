"""Edits of a correction, found by comparing it with the original, and the effect of each on the segments it covers.

An edit replaces one range of the original, including the white space around it. Applying all edits gives the correction
(except its final white space). Applying none gives the original exactly. Applying some leaves every segment outside
them exactly as it was. A segment covered by an edit stays, is rewritten or is removed. This module does not judge
whether an edit is good.

The facts of a text are read once. For a growing text, the facts of the closed beginning are stored and joined with
those of the open rest. This works for facts within a sentence, since a text is closed before a sentence begins. It
works for facts of a line (`by_line`), since those are read from the beginning of the line.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

from aligner_proxy.gate.clauses import unchanged_clauses
from aligner_proxy.gate.parallels import BrevityFlags
from aligner_proxy.text import structure
from aligner_proxy.text.facts import FactReader, addresses, numbers
from aligner_proxy.text.judged_words import is_pruned
from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.beside import remaining_title
from aligner_proxy.text.pairs import OpenHalves, open_halves
from aligner_proxy.text.structure import Segment, join, split
from aligner_proxy.types import Correction, Objective

_GOES_ON = "it goes on"
"""Placeholder for the text that follows a segment in its line."""
COMPARABLE = 400
"""Maximum number of segments compared on either side, because more take too long; then one edit covers all of them."""
_T = TypeVar("_T")


_Read = Callable[[str], Any]
"""A reader: is given a text and returns the facts of one kind in it, such as a set of numbers."""
_LINE_CHARS = 200
"""Characters at the start of a line that suffice to recognise a heading, a row, an item or a speaker."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How to join the facts of two consecutive texts."""

    join: Callable[[Any, Any], Any] = operator.or_
    """Is given the facts of the first and of the second text, and returns those of both."""
    by_line: bool = False
    """Whether facts depend on the beginning of their line, so that only whole lines can be read."""


_SET = _Form()
_FORMS: dict[_Read, _Form] = {}
"""For readers whose facts are neither sets nor booleans."""


def joins(
    join: Callable[[Any, Any], Any] = operator.or_, *, by_line: bool = False
) -> Callable[[Callable[[str], _T]], Callable[[str], _T]]:
    """Decorator of a reader: says how its facts of two consecutive texts are joined (`operator.add` for counts).

    `by_line` means that the facts depend on the beginning of a line.
    """

    def declare(reader: Callable[[str], _T]) -> Callable[[str], _T]:
        _FORMS[reader] = _Form(join, by_line)
        return reader

    return declare


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Replaces the characters `start` to `end` by `text`; `first` and `last` bound the covered segments."""

    start: int
    end: int
    text: str
    first: int
    last: int
    """Index after the last segment; equals `first` if text is inserted between two segments."""


def apply(original: str, edits: Iterable[Edit]) -> str:
    """The original with these edits applied, given in any order."""
    pieces = []
    position = 0
    for edit in sorted(edits):
        pieces += [original[position : edit.start], edit.text]
        position = edit.end
    return "".join(pieces) + original[position:]


def detector_flags(pieces: Sequence[Segment], correction: Correction) -> list[bool] | None:
    """Whether the detector flagged each piece; None without a detector, or if it judged other pieces."""
    if [segment.text for segment in correction.segments] != [piece.text for piece in pieces]:
        return None
    if any(segment.score is None for segment in correction.segments):
        return None
    return [segment.flagged for segment in correction.segments]


def edits_by_comparison(original: str, pieces: Sequence[Segment], edited: str) -> list[Edit]:
    """Edits between two texts when flags are unknown: everything between equal segments is an edit."""
    new_pieces = split(edited)
    equal = _equal_segments([piece.text for piece in pieces], [piece.text for piece in new_pieces])
    edits = []
    # numbers of the segments after the last equal ones, in the original and in the edited text
    old_first = 0
    new_first = 0
    for old_stop, new_stop in [*equal, (len(pieces), len(new_pieces))]:
        old_start = pieces[old_first - 1].end if old_first else 0
        new_start = new_pieces[new_first - 1].end if new_first else 0
        is_end = old_stop == len(pieces)
        old_end = len(original) if is_end else pieces[old_stop].start
        new_end = len(edited) if is_end else new_pieces[new_stop].start
        text = edited[new_start:new_end]
        # if the last segments are equal, only white space at the very end can differ, which is no edit
        has_same_end = is_end and (old_first, new_first) == (len(pieces), len(new_pieces))
        if not has_same_end and original[old_start:old_end] != text:
            edits.append(Edit(old_start, old_end, text, old_first, old_stop))
        old_first = old_stop + 1
        new_first = new_stop + 1
    return edits


def _equal_segments(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions with equal segments, in order.

    Equal beginnings and ends are cut off first, because most edits are small and comparing the rest takes quadratic
    time.
    """
    start = common_prefix_length(old, new)
    end = common_prefix_length(old[start:][::-1], new[start:][::-1])
    old_rest = old[start : len(old) - end]
    new_rest = new[start : len(new) - end]
    yield from ((i, i) for i in range(start))
    if max(len(old_rest), len(new_rest)) <= COMPARABLE:
        matcher = difflib.SequenceMatcher(None, old_rest, new_rest, autojunk=False)
        for old_at, new_at, size in matcher.get_matching_blocks():
            yield from ((start + old_at + i, start + new_at + i) for i in range(size))
    yield from ((len(old) - i, len(new) - i) for i in range(end, 0, -1))


def common_prefix_length(old: Sequence[str], new: Sequence[str]) -> int:
    """Number of elements at the beginning that are equal in both."""
    pairs = zip(old, new, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(old), len(new)))


def independent_groups(edits: Sequence[Edit], pieces: Sequence[Segment]) -> list[tuple[Edit, ...]]:
    """Group the edits that depend on each other, that is, if one inserts text that another removes (moved text).

    An unchanged segment always separates two edits, so there are no other dependencies.
    """
    edits = sorted(edits)
    # for each removed text, the number of the edit that removes it
    remover_of = {
        pieces[i].text.strip(): number for number, edit in enumerate(edits) for i in range(edit.first, edit.last)
    }
    # a union-find forest: edits with the same root belong to one group
    parent = list(range(len(edits)))
    for number, edit in enumerate(edits):
        for piece in split(edit.text):
            # an edit that inserts what another one removes joins that one's group; all others stay in their own
            remover = remover_of.get(piece.text.strip(), number)
            parent[_root(parent, number)] = _root(parent, remover)
    groups: dict[int, list[Edit]] = {}
    for number, edit in enumerate(edits):
        groups.setdefault(_root(parent, number), []).append(edit)
    return [tuple(group) for group in groups.values()]


def _root(parent: list[int], member: int) -> int:
    """Root of a member's group in a union-find forest, with path halving."""
    while parent[member] != member:
        grandparent = parent[parent[member]]
        parent[member] = grandparent
        member = grandparent
    return member


def bundle_groups(groups: Sequence[tuple[Edit, ...]], most: int) -> list[tuple[Edit, ...]]:
    """Merge adjacent groups so that at most `most` remain."""
    # rounded up, so that there are never more than `most` bundles
    size = -(-len(groups) // max(most, 1))
    starts = range(0, len(groups), max(size, 1))
    return [tuple(edit for group in groups[at : at + size] for edit in group) for at in starts]


class SegmentStatus(StrEnum):
    """The effect of an edit on a segment.

    STAYS includes changed segments that were not flagged: their facts must survive.
    """

    STAYS = "stays"
    REWRITTEN = "rewritten"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of the original and the effect of an edit on it; `index` is its number in the answer."""

    text: str
    effect: SegmentStatus
    index: int
    kept_text: str = ""
    """What stays of a removed segment: the marker of an item that continues, its title, the other cells of a row, the
    marks around words that are gone."""
    unchanged_clauses: str = ""
    """The clauses of a rewritten segment that stay word for word; empty if none does."""

    is_general: bool = False
    """Whether an editor rewrote the segment without any number or address, which loses no more than its removal."""

    @property
    def required_text(self) -> str:
        """The text whose facts have to stay."""
        return self.unchanged_clauses or ("" if self.is_general else self.text)


def trace_effects(
    edit: Edit, pieces: Sequence[Segment], is_removable: Sequence[bool], *, by_editor: bool = False
) -> tuple[Part, ...]:
    """The effect of `edit` on every segment it covers; `is_removable` says of each segment of the text if it may go.

    `by_editor` says whether a strong model wrote it.
    """
    covered = range(edit.first, edit.last)
    new = [piece.text for piece in split(edit.text) if piece.text.strip()]
    # too many to compare; STAYS is the strictest status, because then every fact has to survive
    if max(len(covered), len(new)) > COMPARABLE:
        return tuple(Part(pieces[i].text, SegmentStatus.STAYS, i) for i in covered)
    # by segment, the new texts that stand in its place
    successors: dict[int, list[str]] = {}
    for heir, text in zip(match_heirs([pieces[i].text for i in covered], new), new, strict=False):
        successors.setdefault(edit.first + heir, []).append(text)
    parts: list[Part] = []
    for i in covered:
        new_texts = successors.get(i, ())
        part = _segment_effect(i, pieces, new_texts, is_removable[i])
        if part.effect is SegmentStatus.REWRITTEN and by_editor:
            part = replace(part, is_general=_has_no_facts(new_texts))
        parts.append(part)
    return tuple(parts)


def _segment_effect(index: int, pieces: Sequence[Segment], new: Sequence[str], is_removable: bool) -> Part:
    """The effect on a segment that is replaced by the texts `new`."""
    old = pieces[index].text
    if not is_removable:
        return Part(old, SegmentStatus.STAYS, index)
    begins = index == 0 or "\n" in pieces[index - 1].gap
    if begins and _is_mark_alone(old, new):
        return Part(old, SegmentStatus.REMOVED, index)  # complete_edits decides whether the marker stays
    title = remaining_title(old, _GOES_ON).strip() if new else ""
    # an item of which only its title was kept counts as removed, so its other facts may go
    if not new or (title and [title] == [text.strip() for text in new]):
        return Part(old, SegmentStatus.REMOVED, index, title)
    # nor is it rewriting when cells, elements or comments are gone and the marks around them stay
    if len(new) == 1 and is_pruned(old, new[0]):
        return Part(old, SegmentStatus.REMOVED, index, new[0])
    return Part(old, SegmentStatus.REWRITTEN, index, unchanged_clauses=unchanged_clauses(old, " ".join(new)))


def _has_no_facts(new: Sequence[str]) -> bool:
    """Whether texts have no numbers and no addresses."""
    return not any(numbers(text) or addresses(text) for text in new)


def _is_mark_alone(old: str, new: Sequence[str]) -> bool:
    """Whether only the marker is left of the first line of an item."""
    mark = marks.read(old) if len(new) == 1 else None
    # the last comparison: an item that was only a marker before has lost nothing
    return mark is not None and new[0].strip() == old[: mark.stop].strip() != old.strip()


def match_heirs(old: Sequence[str], new: Sequence[str]) -> list[int]:
    """For each `new` text, the index of the unused `old` text with most words in common; once all are used, the last.

    Empty if there is no `old` text.
    """
    vocabularies = [word_set(piece) for piece in old]
    unused = list(range(len(old)))
    heirs: list[int] = []
    for piece in new:
        if unused:
            vocabulary = word_set(piece)
            # of several equally good ones the first, so that text without common words keeps its order
            heirs.append(max(unused, key=lambda i: len(vocabulary & vocabularies[i])))
            unused.remove(heirs[-1])
        elif heirs:
            heirs.append(heirs[-1])
    return heirs


@joins(by_line=True)
def has_outline(text: str) -> bool:
    """Whether a text may contain lists, headings or tables."""
    return any(form.search(text) for form in marks.LINE_FORMS)


def word_set(text: str) -> set[str]:
    """All words, in lower case."""
    return set(re.findall(r"\w+", text.casefold()))


class ClosedText:
    """The closed beginning of a growing text, with a cache of the facts read from it."""

    def __init__(self) -> None:
        self.text = ""
        self.ends_in_table = False
        """Whether the open rest begins with a further row of a table."""
        self._last_line_start = 0
        """Offset at which its last line begins."""
        self._facts: dict[_Read, tuple[int, Any]] = {}
        """For each reader, the offset up to which it has read, and the facts found."""

    def extend(self, text: str, *, ends_in_table: bool) -> None:
        """Add `text` to the closed beginning, which then `ends_in_table` or not."""
        self.ends_in_table = ends_in_table
        # 0 if `text` has no line break: then it continues the last line
        line = text.rfind("\n") + 1
        self._last_line_start = len(self.text) + line if line else self._last_line_start
        self.text += text

    @property
    def line(self) -> str:
        """The closed start of the line that the open rest continues, limited to the first characters."""
        return self.text[self._last_line_start : self._last_line_start + _LINE_CHARS]

    def read(self, reader: Callable[[str], _T]) -> _T | None:
        """The facts that `reader` reads in the closed text; each call reads only the text added since the last one.

        Readers of whole lines skip the unfinished last line. None if there is nothing to read.
        """
        form = _FORMS.get(reader, _SET)
        stop = self._last_line_start if form.by_line else len(self.text)
        start, facts_so_far = self._facts.get(reader, (0, None))
        if start < stop:
            new_facts = reader(self.text[start:stop])
            facts_so_far = form.join(facts_so_far, new_facts) if start else new_facts
            self._facts[reader] = (stop, facts_so_far)
        facts: _T | None = facts_so_far
        return facts


NOTHING_CLOSED = ClosedText()
"""The closed beginning of a text that does not grow: empty."""


class TextFacts:
    """A text with a cache of its facts; `text` is the open rest if a beginning is closed."""

    def __init__(self, text: str, closed: ClosedText = NOTHING_CLOSED) -> None:
        self.text = text
        self.closed = closed
        """The closed beginning before `text`; empty for a text that does not grow."""
        self._facts: dict[_Read, Any] = {}
        """The facts read so far, by reader."""

    @property
    def whole(self) -> str:
        """The whole text, including the closed beginning."""
        return self.closed.text + self.text

    @property
    def length(self) -> int:
        return len(self.closed.text) + len(self.text)

    def in_rest(self, reader: Callable[[str, bool], _T]) -> _T:
        """What `reader` reads from the open rest alone, which may begin in a table."""
        return reader(self.text, self.closed.ends_in_table)

    def read(self, reader: Callable[[str], _T]) -> _T:
        """The facts that `reader` reads from the whole text, cached."""
        if reader not in self._facts:
            self._facts[reader] = self._read(reader)
        facts: _T = self._facts[reader]
        return facts

    def _read(self, reader: Callable[[str], _T]) -> _T:
        """Read the open rest, and join its facts with the stored ones of the closed beginning."""
        if not self.closed.text:
            return reader(self.text)
        form = _FORMS.get(reader, _SET)
        # a line that begins in the closed text can only be recognised with its beginning
        text = self.closed.line + self.text if form.by_line else self.text
        facts_of_rest = reader(text)
        facts_so_far = self.closed.read(reader)
        joined: _T = facts_of_rest if facts_so_far is None else form.join(facts_so_far, facts_of_rest)
        return joined


@dataclass(frozen=True, slots=True)
class EditGroup:
    """Edits that are kept or dropped together, and the segments that they cover."""

    edits: tuple[Edit, ...]
    parts: tuple[Part, ...]

    @property
    def inserts(self) -> bool:
        """Whether it brings new text; if all that it covers is removed, its text is only what stays, as markers do."""
        return not self.parts or any(part.effect is not SegmentStatus.REMOVED for part in self.parts)


@dataclass(slots=True, eq=False)
class ClosedAnswer:
    """The closed beginning of a growing answer: its text (`before`) and the text sent for it (`after`)."""

    before: ClosedText = field(default_factory=ClosedText)
    after: ClosedText = field(default_factory=ClosedText)
    chars: int = 0
    """Length in the original; `before` is the undisguised text."""
    pieces: list[Segment] = field(default_factory=list)
    """Segments of `before`."""
    removed: set[int] = field(default_factory=set)
    """Segments of which nothing is left."""
    open_halves: OpenHalves = field(default_factory=dict)
    """The halves of pairs that are open at its end."""
    # characters of all closed segments, and of those removed; the minimum length is computed from them
    piece_chars: int = 0
    removed_chars: int = 0

    def extend(
        self, original: str, upstream_pieces: Sequence[Segment], candidate: Candidate, *, ends_in_table: bool
    ) -> None:
        """Extend the closed beginning by `original`, for which the candidate's text went out.

        If it `ends_in_table`, the rest begins with a further row.
        """
        self.open_halves = open_halves(original, upstream_pieces, self.open_halves)
        first = len(self.pieces)
        self.chars += len(original)
        self.removed_chars += sum(len(part.text) for part in candidate.parts(SegmentStatus.REMOVED))
        self.removed |= {first + index for index in candidate.removed_segments}
        self.pieces += candidate.pieces
        self.piece_chars += sum(len(piece.text) for piece in candidate.pieces)
        after = candidate.after.text
        self.before.extend(candidate.before.text, ends_in_table=ends_in_table)
        self.after.extend(after, ends_in_table=ends_in_table)


NOTHING = ClosedAnswer()
"""The closed beginning of an answer that does not grow: empty."""


@dataclass(frozen=True)
class Candidate:
    """The original with some of the changes applied; for a growing answer, only the open rest after `closed`."""

    before: TextFacts
    """The original, undisguised."""
    pieces: Sequence[Segment]
    """Segments of `before`."""
    objectives: Sequence[Objective]
    changes: Sequence[EditGroup]
    """The changes that are applied."""
    sources: Sequence[str] = ()
    """Texts from plugins; facts that they contain do not count as invented."""
    closed: ClosedAnswer = NOTHING
    torn: Collection[Edit] = ()
    """Edits that have half a pair of signs (pair_completion.py)."""
    brevity_flags: BrevityFlags | None = None
    """The pieces that were flagged for an objective about brevity; None if there are none."""
    clear_harm: Collection[int] = ()
    """The numbers of the pieces that are clearly harmful."""

    @cached_property
    def after(self) -> TextFacts:
        """The text that would be delivered."""
        edits = (edit for change in self.changes for edit in change.edits)
        return TextFacts(apply(self.before.text, edits), self.closed.after)

    @cached_property
    def inserted_texts(self) -> list[str]:
        """The texts of all edits that insert something, without what objectives dictate."""
        texts = (self._drop_dictated(edit.text) for change in self.changes if change.inserts for edit in change.edits)
        return [text for text in texts if text.strip()]

    @cached_property
    def removed_segments(self) -> frozenset[int]:
        """Segments of which nothing is left."""
        return frozenset(part.index for part in self.parts(SegmentStatus.REMOVED) if not part.kept_text)

    def parts(self, *effects: SegmentStatus) -> list[Part]:
        """The covered segments with one of these statuses."""
        return [part for change in self.changes for part in change.parts if part.effect in effects]

    def lost_facts(self, facts: FactReader) -> set[str]:
        """Facts of the covered segments that stay or are rewritten which are missing in the new text."""
        covered = self.parts(SegmentStatus.STAYS, SegmentStatus.REWRITTEN)
        required = {fact for part in covered for fact in facts(part.required_text)}
        missing_facts = required - self.after.read(facts) if required else required
        if missing_facts:
            # a number that has become a marker is still there, though it is no longer read as a number
            parts = (part for part in covered if not self._is_mark_now(part))
            missing_facts &= {fact for part in parts for fact in facts(part.required_text)}
        return missing_facts

    def _is_mark_now(self, part: Part) -> bool:
        """Whether a number inside a line ("Go. 2. Rest.") now begins the line, as the marker of an item."""
        mark = marks.read(part.text)
        # only a number alone, followed by more text, can become the marker of an item
        if mark is None or part.text[mark.stop :].strip() or part.index + 1 >= len(self.pieces):
            return False
        piece = self.pieces[part.index]
        line = re.escape(piece.text + piece.gap + self.pieces[part.index + 1].text)
        return "\n" not in piece.gap and re.search(rf"^[ \t]*{line}", self.after.text, re.MULTILINE) is not None

    def has_more(self, count: Callable[[str], int]) -> bool:
        """Whether some edit's text has a higher `count` than the text it replaces."""
        edits = (edit for change in self.changes for edit in change.edits)
        return any(
            count(self._drop_dictated(edit.text)) > count(self.before.text[edit.start : edit.end]) for edit in edits
        )

    def added_facts(self, facts: FactReader) -> set[str]:
        """Facts in the new text that are not in the original, in a source, or dictated by an objective."""
        added = self.after.read(facts) - self.before.read(facts)
        if not added:
            return added
        return added - {fact for text in (*self._dictated, *self.sources) for fact in facts(text)}

    def repeats(self, is_repetition: Callable[[str, Sequence[str]], bool]) -> bool:
        """Whether some edit inserts a sentence that the original lacks and that `is_repetition` finds in objectives."""
        new = (piece.text for text in self.inserted_texts for piece in split(text))
        return any(
            is_repetition(sentence, self._objective_texts) for sentence in new if sentence not in self.before.whole
        )

    @property
    def remaining_chars(self) -> int:
        """Number of characters in segments and clauses that were not removed."""
        removed = sum(len(part.text) for part in self.parts(SegmentStatus.REMOVED)) + self.closed.removed_chars
        rewritten = self.parts(SegmentStatus.REWRITTEN)
        removed += sum(len(part.text) - len(part.required_text) for part in rewritten)
        return sum(len(piece.text) for piece in self.pieces) + self.closed.piece_chars - removed

    @cached_property
    def _dictated(self) -> list[str]:
        """The sentences that objectives quote for the answer to use."""
        return structure.dictated_texts(self._objective_texts)

    @cached_property
    def _objective_texts(self) -> list[str]:
        return [objective.text for objective in self.objectives]

    def _drop_dictated(self, text: str) -> str:
        """An inserted text without the sentences that an objective dictates."""
        if not self._dictated:
            return text
        pieces = [(piece.text, piece.gap) for piece in split(text)]
        dictated = self._dictated
        own_pieces = [("" if structure.is_dictated(sentence, dictated) else sentence, gap) for sentence, gap in pieces]
        # `join` drops the final gap, so a text without dictated sentences is returned as it is
        return text if own_pieces == pieces else join(own_pieces)
