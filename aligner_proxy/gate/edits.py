"""Edits of a correction, found by comparing it with the original, and the effect of each on the segments it covers.

An edit replaces one range of the original, including the white space around it. Applying all edits gives the correction
(except its final white space). Applying none gives the original exactly. Applying some leaves every segment outside
them exactly as it was. A segment covered by an edit stays, is rewritten or is removed. This module does not judge
whether an edit is good.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar

from aligner_proxy.gate.clauses import unchanged_clauses
from aligner_proxy.gate.closed_text import NOTHING_CLOSED, ClosedText, Reader, joins
from aligner_proxy.gate.parallels import BrevityFlags
from aligner_proxy.text import structure
from aligner_proxy.text.facts import FactReader, addresses, numbers
from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.beside import remaining_title
from aligner_proxy.text.pairs import OpenHalves, open_halves
from aligner_proxy.text.pruned_segments import is_pruned
from aligner_proxy.text.structure import Segment, join, split
from aligner_proxy.types import Correction, Objective

_FURTHER_TEXT = "it goes on"
"""Stands for text that follows a segment in its line."""
_T = TypeVar("_T")
COMPARABLE = 400
"""Most segments on either side that are compared, because more take too long; then one edit covers all of them."""


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Replaces the characters from `start` to `end` of the original by `text`."""

    start: int
    end: int
    text: str
    first: int
    """Index of the first segment that the edit covers."""
    last: int
    """Index behind the last covered segment; equals `first` if text is inserted between two segments."""


def apply(original: str, edits: Iterable[Edit]) -> str:
    """The original with these edits applied; they may be in any order."""
    pieces = []
    position = 0
    for edit in sorted(edits):
        pieces += [original[position : edit.start], edit.text]
        position = edit.end
    return "".join(pieces) + original[position:]


def detector_flags(pieces: Sequence[Segment], correction: Correction) -> list[bool] | None:
    """For each segment, whether the detector flagged it; None without a detector, or if it judged other segments."""
    if [verdict.text for verdict in correction.segments] != [segment.text for segment in pieces]:
        return None
    if any(verdict.score is None for verdict in correction.segments):
        return None
    return [verdict.flagged for verdict in correction.segments]


def edits_by_comparison(original: str, pieces: Sequence[Segment], edited: str) -> list[Edit]:
    """Find the edits between two texts if flags are unknown: everything between equal segments is an edit.

    `pieces` are the segments of `original`.
    """
    new_segments = split(edited)
    equal_pairs = _equal_segments([segment.text for segment in pieces], [segment.text for segment in new_segments])
    edits = []
    # indexes of the segments behind the last equal pair, in the original and in the edited text
    old_first = 0
    new_first = 0
    for old_stop, new_stop in [*equal_pairs, (len(pieces), len(new_segments))]:
        old_start = pieces[old_first - 1].end if old_first else 0
        new_start = new_segments[new_first - 1].end if new_first else 0
        is_end = old_stop == len(pieces)
        old_end = len(original) if is_end else pieces[old_stop].start
        new_end = len(edited) if is_end else new_segments[new_stop].start
        text = edited[new_start:new_end]
        # if the last segments are equal, only white space at the very end can differ, which is no edit
        has_same_end = is_end and (old_first, new_first) == (len(pieces), len(new_segments))
        if not has_same_end and original[old_start:old_end] != text:
            edits.append(Edit(old_start, old_end, text, old_first, old_stop))
        old_first = old_stop + 1
        new_first = new_stop + 1
    return edits


def _equal_segments(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield (index in `old`, index in `new`) of equal segments, in order.

    Equal beginnings and ends are compared first, because most edits are small, and comparing the rest takes quadratic
    time.
    """
    prefix_length = common_prefix_length(old, new)
    suffix_length = common_prefix_length(old[prefix_length:][::-1], new[prefix_length:][::-1])
    old_rest = old[prefix_length : len(old) - suffix_length]
    new_rest = new[prefix_length : len(new) - suffix_length]
    yield from ((i, i) for i in range(prefix_length))
    if max(len(old_rest), len(new_rest)) <= COMPARABLE:
        matcher = difflib.SequenceMatcher(None, old_rest, new_rest, autojunk=False)
        for old_start, new_start, size in matcher.get_matching_blocks():
            for i in range(prefix_length, prefix_length + size):
                yield old_start + i, new_start + i
    yield from ((len(old) - i, len(new) - i) for i in range(suffix_length, 0, -1))


def common_prefix_length(old: Sequence[str], new: Sequence[str]) -> int:
    """Number of elements at the beginning that are equal in both."""
    for index, (old_element, new_element) in enumerate(zip(old, new, strict=False)):
        if old_element != new_element:
            return index
    return min(len(old), len(new))


def independent_groups(edits: Sequence[Edit], pieces: Sequence[Segment]) -> list[tuple[Edit, ...]]:
    """Group the edits that depend on each other: an edit that inserts a text, and one that removes it (moved text).

    An unchanged segment always separates two edits, so there are no other dependencies. `pieces` are the segments of
    the original.
    """
    edits = sorted(edits)
    # for each removed text, the index of the edit that removes it
    remover_by_text = {
        pieces[i].text.strip(): index for index, edit in enumerate(edits) for i in range(edit.first, edit.last)
    }
    # a union-find forest: edits with the same root belong to one group
    parents = list(range(len(edits)))
    for index, edit in enumerate(edits):
        for segment in split(edit.text):
            remover = remover_by_text.get(segment.text.strip())
            if remover is not None:
                parents[_find_root(parents, index)] = _find_root(parents, remover)
    groups: dict[int, list[Edit]] = {}
    for index, edit in enumerate(edits):
        groups.setdefault(_find_root(parents, index), []).append(edit)
    return [tuple(group) for group in groups.values()]


def _find_root(parents: list[int], member: int) -> int:
    """The root of a member's group in a union-find forest. Shortens the path to it by half."""
    while parents[member] != member:
        grandparent = parents[parents[member]]
        parents[member] = grandparent
        member = grandparent
    return member


def bundle_groups(groups: Sequence[tuple[Edit, ...]], max_count: int) -> list[tuple[Edit, ...]]:
    """Merge adjacent groups of edits so that at most `max_count` groups remain."""
    # the division rounds up, so that there are never too many bundles
    size = -(-len(groups) // max(max_count, 1))
    starts = range(0, len(groups), max(size, 1))
    return [tuple(edit for group in groups[start : start + size] for edit in group) for start in starts]


class SegmentStatus(StrEnum):
    """The effect of an edit on a segment.

    STAYS includes segments that were changed although they were not flagged: their facts must stay.
    """

    STAYS = "stays"
    REWRITTEN = "rewritten"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of the original and the effect of an edit on it."""

    text: str
    """The text of the original segment."""
    effect: SegmentStatus
    index: int
    """Index of the segment in the answer."""
    kept_text: str = ""
    """What stays of a removed segment: the marker or title of an item, other cells of a row, or the marks around words;
    empty if nothing stays."""
    unchanged_clauses: str = ""
    """The clauses of a rewritten segment that stay word for word; empty if there are none."""
    is_general: bool = False
    """Whether an editor rewrote the segment without any number or address, which loses no more than its removal."""

    @property
    def required_text(self) -> str:
        """The part of the segment of which the facts have to stay."""
        if self.unchanged_clauses:
            return self.unchanged_clauses
        return "" if self.is_general else self.text


def trace_effects(
    edit: Edit, pieces: Sequence[Segment], is_removable: Sequence[bool], *, by_editor: bool = False
) -> tuple[Part, ...]:
    """The effect of `edit` on every segment that it covers, in order.

    `is_removable` says of each segment in `pieces` whether it may be removed, and `by_editor` whether an editor (a
    stronger model) wrote the edit.
    """
    covered = range(edit.first, edit.last)
    new_texts = [segment.text for segment in split(edit.text) if segment.text.strip()]
    # too many to compare; STAYS is the strictest status, because then every fact has to stay
    if max(len(covered), len(new_texts)) > COMPARABLE:
        return tuple(Part(pieces[i].text, SegmentStatus.STAYS, i) for i in covered)
    heirs = match_heirs([pieces[i].text for i in covered], new_texts)
    new_texts_by_segment: dict[int, list[str]] = {}
    for heir, text in zip(heirs, new_texts, strict=False):
        new_texts_by_segment.setdefault(edit.first + heir, []).append(text)
    parts: list[Part] = []
    for i in covered:
        replacements = new_texts_by_segment.get(i, ())
        part = _find_effect(i, pieces, replacements, is_removable=is_removable[i])
        if part.effect is SegmentStatus.REWRITTEN and by_editor:
            part = replace(part, is_general=not any(numbers(text) or addresses(text) for text in replacements))
        parts.append(part)
    return tuple(parts)


def _find_effect(index: int, pieces: Sequence[Segment], replacements: Sequence[str], *, is_removable: bool) -> Part:
    """The effect on segment `index`, in place of which the `replacements` stand now."""
    old_text = pieces[index].text
    if not is_removable:
        return Part(old_text, SegmentStatus.STAYS, index)
    begins_line = index == 0 or "\n" in pieces[index - 1].gap
    if begins_line and _is_mark_alone(old_text, replacements):
        return Part(old_text, SegmentStatus.REMOVED, index)  # `complete_edits` decides whether the marker stays
    title = remaining_title(old_text, _FURTHER_TEXT).strip() if replacements else ""
    # an item of which only its title was kept counts as removed, so its other facts may be lost
    if not replacements or (title and [title] == [text.strip() for text in replacements]):
        return Part(old_text, SegmentStatus.REMOVED, index, title)
    # so does a segment that lost cells, elements or comments and kept the marks around them
    if len(replacements) == 1 and is_pruned(old_text, replacements[0]):
        return Part(old_text, SegmentStatus.REMOVED, index, replacements[0])
    clauses = unchanged_clauses(old_text, " ".join(replacements))
    return Part(old_text, SegmentStatus.REWRITTEN, index, unchanged_clauses=clauses)


def _is_mark_alone(old_text: str, replacements: Sequence[str]) -> bool:
    """Whether only the marker is left of an item, which had more before."""
    mark = marks.read(old_text) if len(replacements) == 1 else None
    if mark is None:
        return False
    mark_text = old_text[: mark.stop].strip()
    return replacements[0].strip() == mark_text and mark_text != old_text.strip()


def match_heirs(old_texts: Sequence[str], new_texts: Sequence[str]) -> list[int]:
    """For each new text, the index of the old text that it replaces: the unused one with most words in common.

    Once all old texts are used, further new texts get the index of the last match. Empty if there is no old text.
    """
    vocabularies = [word_set(text) for text in old_texts]
    unused = list(range(len(old_texts)))
    heirs: list[int] = []
    for text in new_texts:
        if unused:
            vocabulary = word_set(text)
            # `max` takes the first of several equally good texts, so that texts without common words keep their order
            heirs.append(max(unused, key=lambda i: len(vocabulary & vocabularies[i])))
            unused.remove(heirs[-1])
        elif heirs:
            heirs.append(heirs[-1])
    return heirs


@joins(by_line=True)
def has_outline(text: str) -> bool:
    """Whether a text may contain lists, headings or tables."""
    return any(pattern.search(text) for pattern in marks.LINE_FORMS)


def word_set(text: str) -> set[str]:
    """All words, in lower case."""
    return set(re.findall(r"\w+", text.casefold()))


class TextFacts:
    """A text with a cache of its facts."""

    def __init__(self, text: str, closed: ClosedText = NOTHING_CLOSED) -> None:
        self.text = text
        """The whole text, or the open rest if a beginning is closed."""
        self.closed = closed
        """The closed beginning before `text`; empty for a text that does not grow."""
        self._facts: dict[Reader, Any] = {}
        """The facts that were read, by reader."""

    @property
    def whole(self) -> str:
        """The whole text, including the closed beginning."""
        return self.closed.text + self.text

    @property
    def length(self) -> int:
        """Number of characters of the whole text."""
        return len(self.closed.text) + len(self.text)

    def read(self, reader: Callable[[str], _T]) -> _T:
        """The facts that `reader` finds in the whole text, cached."""
        if reader not in self._facts:
            self._facts[reader] = self.closed.read_with(self.text, reader) if self.closed.text else reader(self.text)
        facts: _T = self._facts[reader]
        return facts


@dataclass(frozen=True, slots=True)
class EditGroup:
    """Edits that are kept or dropped together, and the segments that they cover."""

    edits: tuple[Edit, ...]
    parts: tuple[Part, ...]

    @property
    def inserts(self) -> bool:
        """Whether the group inserts new text. If it removes all that it covers, its text is only what stays."""
        return not self.parts or any(part.effect is not SegmentStatus.REMOVED for part in self.parts)


@dataclass(slots=True, eq=False)
class ClosedAnswer:
    """The closed beginning of a growing answer."""

    before: ClosedText = field(default_factory=ClosedText)
    """Its text in the original, undisguised."""
    after: ClosedText = field(default_factory=ClosedText)
    """The text that was sent for it."""
    chars: int = 0
    """Its length in the original with disguises."""
    pieces: list[Segment] = field(default_factory=list)
    """Segments of `before`."""
    removed: set[int] = field(default_factory=set)
    """Indexes of the segments of which nothing is left."""
    open_halves: OpenHalves = field(default_factory=dict)
    """The halves of pairs that are open at its end."""
    piece_chars: int = 0
    """Characters of all closed segments."""
    removed_chars: int = 0
    """Characters of the closed segments that were removed."""

    def extend(
        self, original: str, upstream_pieces: Sequence[Segment], candidate: Candidate, *, ends_in_table: bool
    ) -> None:
        """Extend the closed beginning by `original`, for which the candidate's text was sent.

        `upstream_pieces` are the segments of `original`. `ends_in_table` says whether the rest begins with a further
        row of a table.
        """
        self.open_halves = open_halves(original, upstream_pieces, self.open_halves)
        closed_count = len(self.pieces)
        self.chars += len(original)
        self.removed_chars += sum(len(part.text) for part in candidate.parts(SegmentStatus.REMOVED))
        self.removed |= {closed_count + index for index in candidate.removed_segments}
        self.pieces += candidate.pieces
        self.piece_chars += sum(len(segment.text) for segment in candidate.pieces)
        self.before.extend(candidate.before.text, ends_in_table=ends_in_table)
        self.after.extend(candidate.after.text, ends_in_table=ends_in_table)


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
    """The segments that were flagged for an objective about brevity; None if there are none."""
    clear_harm: Collection[int] = ()
    """Indexes of the segments that are clearly harmful."""
    turn_flags: Collection[int] = ()
    """Indexes of the segments that were flagged for an objective that invented turns violate."""

    @cached_property
    def edits(self) -> list[Edit]:
        """The edits of all changes."""
        return [edit for change in self.changes for edit in change.edits]

    @cached_property
    def after(self) -> TextFacts:
        """The text that would be delivered."""
        return TextFacts(apply(self.before.text, self.edits), self.closed.after)

    @cached_property
    def inserted_texts(self) -> list[str]:
        """The texts of all edits that insert something, without sentences that objectives dictate."""
        texts = (self._drop_dictated(edit.text) for change in self.changes if change.inserts for edit in change.edits)
        return [text for text in texts if text.strip()]

    @cached_property
    def removed_segments(self) -> frozenset[int]:
        """Indexes of the segments of which nothing is left."""
        return frozenset(part.index for part in self.parts(SegmentStatus.REMOVED) if not part.kept_text)

    def parts(self, *effects: SegmentStatus) -> list[Part]:
        """The covered segments with one of these statuses."""
        return [part for change in self.changes for part in change.parts if part.effect in effects]

    def lost_facts(self, read_facts: FactReader) -> set[str]:
        """The facts that had to stay, because their segment stays or is rewritten, and that the new text lacks."""
        covered = self.parts(SegmentStatus.STAYS, SegmentStatus.REWRITTEN)
        required_facts = {fact for part in covered for fact in read_facts(part.required_text)}
        if not required_facts:
            return required_facts
        missing_facts = required_facts - self.after.read(read_facts)
        if missing_facts:
            # a number that has become a marker is still there, though it is no longer read as a number
            parts = (part for part in covered if not self._has_become_mark(part))
            missing_facts &= {fact for part in parts for fact in read_facts(part.required_text)}
        return missing_facts

    def _has_become_mark(self, part: Part) -> bool:
        """Whether a number inside a line ("Go. 2. Rest.") now begins the line, as the marker of an item."""
        mark = marks.read(part.text)
        # only a number alone, followed by more text, can become the marker of an item
        if mark is None or part.text[mark.stop :].strip() or part.index + 1 >= len(self.pieces):
            return False
        segment = self.pieces[part.index]
        if "\n" in segment.gap:
            return False
        item_text = re.escape(segment.text + segment.gap + self.pieces[part.index + 1].text)
        return re.search(rf"^[ \t]*{item_text}", self.after.text, re.MULTILINE) is not None

    def has_more(self, count: Callable[[str], int]) -> bool:
        """Whether an edit's text has a higher `count` than the text that it replaces."""
        return any(
            count(self._drop_dictated(edit.text)) > count(self.before.text[edit.start : edit.end])
            for edit in self.edits
        )

    def added_facts(self, read_facts: FactReader) -> set[str]:
        """Facts in the new text that are not in the original, in a source, or dictated by an objective."""
        added_facts = self.after.read(read_facts) - self.before.read(read_facts)
        if not added_facts:
            return added_facts
        return added_facts - {fact for text in (*self._dictated, *self.sources) for fact in read_facts(text)}

    @property
    def repeats_objective(self) -> bool:
        """Whether an edit inserts a sentence that the original lacks and that repeats an objective."""
        sentences = (segment.text for text in self.inserted_texts for segment in split(text))
        return any(
            structure.repeats_objective(sentence, self._objective_texts)
            for sentence in sentences
            if sentence not in self.before.whole
        )

    @property
    def remaining_chars(self) -> int:
        """Number of characters of the original in segments and clauses that were not removed."""
        removed_chars = self.closed.removed_chars
        removed_chars += sum(len(part.text) for part in self.parts(SegmentStatus.REMOVED))
        for part in self.parts(SegmentStatus.REWRITTEN):
            removed_chars += len(part.text) - len(part.required_text)
        return sum(len(segment.text) for segment in self.pieces) + self.closed.piece_chars - removed_chars

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
        own_texts: list[tuple[str, str]] = []
        has_dictated = False
        for segment in split(text):
            is_dictated = structure.is_dictated(segment.text, self._dictated)
            has_dictated |= is_dictated
            own_texts.append(("" if is_dictated else segment.text, segment.gap))
        # `join` drops the last gap, so a text without dictated sentences is returned as it is
        return join(own_texts) if has_dictated else text
