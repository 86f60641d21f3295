"""Completion of edits in lists, tables and under headings: what is removed along with a segment, and what stays of it.

An engine removes exactly the flagged segments. If all of a list item is removed, its marker is removed, too. A heading
is removed with the last segment of its section (text/lists/outline.py). A rewritten item keeps its marker, whatever
number the engine wrote. The rules judge completed edits. Segments are named by their index in the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from aligner_proxy.gate.edits import Edit, Part, SegmentStatus, match_heirs
from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.items import OutlineItem
from aligner_proxy.text.lists.outline import ListCompletion, Outline
from aligner_proxy.text.remarks import is_about_reader
from aligner_proxy.text.structure import Segment, join, split

_NEIGHBOUR = "\x02"
"""Stands for the segment before or behind an edit while the white space around the edit is computed."""

EditEffects = Mapping[Edit, tuple[Part, ...]]
"""For each edit, a part for each segment that it covers, which says what becomes of the segment."""


def removed_segments(effects: EditEffects) -> set[int]:
    """The segments of which nothing stays after these edits."""
    all_parts = (part for parts in effects.values() for part in parts)
    return {part.index for part in all_parts if part.effect is SegmentStatus.REMOVED and not part.kept_text}


def complete_edits(
    original: str,
    pieces: Sequence[Segment],
    effects: EditEffects,
    first_unsent: int = 0,
    removed_before: Collection[int] = (),
    *,
    in_table: bool = False,
) -> EditEffects:
    """Extend each edit by what must be removed with it; return the extended edits, which the gate judges.

    For example, an edit that removes the only item under a heading is extended by the heading. `pieces` are the
    segments of `original`. Segments before `first_unsent` were sent and cannot be changed any more; earlier edits
    removed those in `removed_before`. `in_table` says whether the text may begin with a further row of a table.
    """
    changing = (SegmentStatus.REMOVED, SegmentStatus.REWRITTEN)
    if not any(part.effect in changing for parts in effects.values() for part in parts):
        return effects
    outline = Outline(pieces, in_table=in_table)
    removed = {*removed_before, *removed_segments(effects)}
    return _EditCompletion(original, pieces, effects, removed, first_unsent, outline).complete()


def trim_edit(edit: Edit, pieces: Sequence[Segment]) -> Edit:
    """The edit without the white space at its end, which is sent with the next segment."""
    last_segment = pieces[edit.last - 1]
    text = edit.text.rstrip()
    # text without white space at its end has a sign for the next segment there (pair_completion.py)
    if text and text == edit.text:
        return edit
    # if the beginning of the answer is removed, the white space behind it is removed, too
    if not edit.text and not edit.start:
        return edit
    if not text:
        # the line breaks of the last gap are sent with the next segment; only additional ones belong to the edit
        text = "\n" * max(0, edit.text.count("\n") - last_segment.gap.count("\n"))
    return replace(edit, end=last_segment.end, text=text)


class _EditCompletion:
    """Completes the edits of one answer."""

    def __init__(
        self,
        original: str,
        pieces: Sequence[Segment],
        effects: EditEffects,
        removed: set[int],
        first_unsent: int,
        outline: Outline,
    ) -> None:
        self._original = original
        self._pieces = pieces
        self._effects = effects
        """The edits as proposed, each with its effects."""
        self._removed = removed
        """The segments of which nothing stays, before completion."""
        self._first_unsent = first_unsent
        """The first segment that was not sent."""
        self._items = {item.first: item for item in outline.items}
        """The list items by their first segment."""
        self._completion: ListCompletion = outline.complete_removal(removed, first_unsent, is_about_reader)
        """What must be removed as well, and what stays of removed segments."""

    def complete(self) -> EditEffects:
        """All edits, each extended by what must be removed or changed with it, such as a marker left alone.

        Adjacent edits become one. An edit that needs no extension is unchanged.
        """
        partly_kept = {i for i in self._completion.kept_texts if i >= self._first_unsent}
        also_affected = (self._completion.removed - self._removed) | partly_kept
        completed: dict[Edit, tuple[Part, ...]] = {}
        for covered, edits in self._merge_edits(also_affected):
            if len(edits) == 1 and self._is_complete(edits[0]) and also_affected.isdisjoint(covered):
                completed[edits[0]] = self._effects[edits[0]]
                continue
            new_texts = self._find_new_texts(covered, edits)
            if new_texts is None:
                # the new text is in another order, so markers cannot be matched; the rules judge it as it is
                completed |= {edit: self._effects[edit] for edit in edits}
                continue
            parts_so_far = {part.index: part for edit in edits for part in self._effects[edit]}
            parts = tuple(self._build_part(i, parts_so_far.get(i)) for i in covered)
            completed[self._build_edit(covered, new_texts)] = parts
        return completed

    def _is_complete(self, edit: Edit) -> bool:
        """Whether the markers in the edit's text are right, so that they need not be corrected."""
        return not (self._has_wrong_marks(edit) or self._writes_removed(edit))

    def _merge_edits(self, also_affected: Iterable[int]) -> list[tuple[range, list[Edit]]]:
        """Merge adjacent edits: (segments that are removed or changed together, the edits of these segments).

        `also_affected` are the segments that are removed, or partly stay, although no edit covers them.
        """
        ranges: list[tuple[range, list[Edit]]] = [(range(edit.first, edit.last), [edit]) for edit in self._effects]
        ranges += [(range(i, i + 1), []) for i in also_affected]
        merged: list[tuple[range, list[Edit]]] = []
        for covered, edits in sorted(ranges, key=lambda pair: (pair[0].start, pair[0].stop)):
            last_covered, last_edits = merged[-1] if merged else (range(0), [])
            # an insertion between two segments covers none, so it is merged with neither neighbour
            if covered and last_covered and covered.start <= last_covered.stop:
                joined = range(last_covered.start, max(last_covered.stop, covered.stop))
                merged[-1] = (joined, last_edits + edits)
            else:
                merged.append((covered, edits))
        return merged

    def _has_wrong_marks(self, edit: Edit) -> bool:
        """Whether a marker in the rewritten text is missing or has another number, and so must be corrected."""
        rewritten = [part.index for part in self._effects[edit] if part.effect is SegmentStatus.REWRITTEN]
        if not any(i in self._items or self._find_item_above(i) for i in rewritten):
            return False
        texts = self._assign_texts(edit)
        return texts is not None and any(self._restore_mark(i, texts[i]) != texts[i] for i in rewritten if i in texts)

    def _writes_removed(self, edit: Edit) -> bool:
        """Whether the edit's text has something, such as a marker, for a segment that is removed completely."""
        removed = [part.index for part in self._effects[edit] if part.index in self._completion.removed]
        # a quick test first
        if not (edit.text.strip() and removed):
            return False
        texts = self._assign_texts(edit) or {}
        return any(texts.get(i) for i in removed)

    def _find_new_texts(self, covered: range, edits: Sequence[Edit]) -> dict[int, str] | None:
        """The new text of each covered segment; None if the edits' texts do not follow the order of the segments."""
        texts = {i: self._pieces[i].text for i in covered}
        for edit in edits:
            assigned_texts = self._assign_texts(edit)
            if assigned_texts is None:
                return None
            # a segment to which no text was assigned becomes empty
            texts |= dict.fromkeys(range(edit.first, edit.last), "")
            texts |= {i: self._restore_mark(i, text) for i, text in assigned_texts.items()}
        texts |= {i: "" for i in covered if i in self._completion.removed}
        return texts | {i: text for i, text in self._completion.kept_texts.items() if i in covered}

    def _assign_texts(self, edit: Edit) -> dict[int, str] | None:
        """Assign the edit's text to the segments that it covers, by the words in common (`match_heirs`).

        Returns the text by segment; None if the text does not follow the order of the segments.
        """
        words = edit.text.lstrip()
        space_before = edit.text[: len(edit.text) - len(words)]
        # if the text does not begin a line, the space at its beginning is no indentation
        begins_line = edit.first == 0 or "\n" in space_before
        new_segments = [segment for segment in split(edit.text if begins_line else words) if segment.text.strip()]
        old_texts = [self._pieces[i].text for i in range(edit.first, edit.last)]
        heirs = match_heirs(old_texts, [segment.text for segment in new_segments])
        if heirs != sorted(heirs):
            return None
        texts_and_gaps: dict[int, list[tuple[str, str]]] = {}
        for heir, segment in zip(heirs, new_segments, strict=True):
            texts_and_gaps.setdefault(edit.first + heir, []).append((segment.text, segment.gap))
        return {i: join(members).strip("\n") for i, members in texts_and_gaps.items()}

    def _restore_mark(self, index: int, text: str) -> str:
        """The new `text` of a segment with the segment's original marker, and no other."""
        new_mark = marks.read(text)
        item = self._items.get(index)
        if item is not None:
            return _put_mark(text, new_mark, item, self._pieces[index].text)
        item_above = self._find_item_above(index)
        if item_above is None or new_mark is None or new_mark.is_bullet != item_above.mark.is_bullet:
            return text
        # the marker above already begins this line, so a second marker of its kind is dropped
        return text[new_mark.stop :]

    def _find_item_above(self, index: int) -> OutlineItem | None:
        """The item of which only the marker will stand right before segment `index`; None if there is none."""
        above = index - 1
        while above in self._completion.removed:
            above -= 1
        item = self._items.get(above)
        if item is None or above in self._completion.kept_texts:
            return item
        # an item with text of its own is complete; signs of emphasis alone are no text
        has_text = self._pieces[above].text[item.mark.stop :].strip("*_ ")
        return None if has_text else item

    def _build_edit(self, covered: range, texts: Mapping[int, str]) -> Edit:
        """One edit for the covered segments with their new texts, and the white space between their neighbours."""
        segments = self._pieces
        first = covered.start
        last = covered.stop
        with_text = [i for i in covered if texts[i]]
        lone_marks = {i for i, next_index in pairwise(with_text) if self._is_mark_before(i, next_index, texts)}
        texts_and_gaps: list[tuple[str, str]] = []
        for i in covered:
            gap = segments[i].gap
            if i in lone_marks:
                gap = " "  # the text behind a marker stands in the same line, after one space
            if texts[i].isspace():
                gap = ""  # indentation is followed by no gap
            texts_and_gaps.append((texts[i].rstrip() or texts[i], gap))
        before = [(_NEIGHBOUR, segments[first - 1].gap)] if first else []
        behind = [(_NEIGHBOUR, "")] if last < len(segments) and segments[last].text else []
        text = join([*before, *texts_and_gaps, *behind])
        text = text.removeprefix(_NEIGHBOUR if before else "").removesuffix(_NEIGHBOUR if behind else "")
        start = segments[first - 1].end if first else 0
        if behind and with_text and self._is_mark_before(with_text[-1], last, texts):
            text = f"{text.rstrip()} "
        if last < len(segments):
            return Edit(start, segments[last].start, text, first, last)
        # `join` drops the last gap, but the white space at the very end of the answer stays
        return Edit(start, len(self._original), text + segments[-1].gap, first, last)

    def _is_mark_before(self, index: int, next_index: int, texts: Mapping[int, str]) -> bool:
        """Whether only an item's marker stays of segment `index`, and the text of `next_index` must stand behind it.

        `texts` are the new texts of segments.
        """
        item = self._items.get(index)
        if item is None or next_index in self._items:
            return False
        is_lone_mark = index in self._completion.kept_texts or not texts[index][item.mark.stop :].strip()
        next_text = texts.get(next_index, self._pieces[next_index].text)
        return is_lone_mark and not next_text[:1].isspace()

    def _build_part(self, index: int, part_so_far: Part | None) -> Part:
        """The effect on a segment after completion; `part_so_far` is None if no edit covered the segment."""
        part = part_so_far or Part(self._pieces[index].text, SegmentStatus.STAYS, index)
        if index in self._completion.removed:
            return replace(part, effect=SegmentStatus.REMOVED, kept_text="")
        return replace(part, kept_text=self._completion.kept_texts.get(index, part.kept_text))


def _put_mark(text: str, new_mark: marks.Mark | None, item: OutlineItem, old_text: str) -> str:
    """The new `text` of an item with the marker that the item had in `old_text`.

    `new_mark` is the marker that the engine wrote into `text`; None if it wrote none.
    """
    old_mark = item.mark
    if new_mark is None or new_mark.is_bullet != old_mark.is_bullet:
        return old_text[: old_mark.stop] + text.lstrip()
    if old_mark.is_bullet:
        return old_text[: old_mark.stop] + text[new_mark.stop :]
    # the number is right, so the marker stays as the engine wrote it
    if new_mark.number == old_mark.number:
        return text
    return text[: new_mark.start] + old_mark.number + text[new_mark.end :]
