"""Completion of edits in lists, tables and under headings: what is removed along with a segment, and what stays of it.

An engine removes exactly the flagged segments. If that was a list item, its marker is removed, too, but stays if the
item continues. A heading is removed with the last segment of its section (text/lists/outline.py). Rewritten text keeps
the marker of its item, whatever number the engine wrote. Whether an edit is good is judged afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from aligner_proxy.gate.edits import Edit, Part, SegmentStatus, match_heirs
from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.outline import ListCompletion, Outline, OutlineItem
from aligner_proxy.text.remarks import is_about_reader
from aligner_proxy.text.structure import Segment, join, split

_BEFORE = "\x02"
"""Placeholder for the segments around an edit while its white space is computed."""

EditEffects = Mapping[Edit, tuple[Part, ...]]
"""Edits, and what each does to the segments it covers."""


def removed_segments(effects: EditEffects) -> set[int]:
    """The segments of which nothing stays."""
    removal = SegmentStatus.REMOVED
    return {part.index for parts in effects.values() for part in parts if part.effect is removal and not part.kept_text}


def complete_edits(
    original: str,
    pieces: Sequence[Segment],
    effects: EditEffects,
    first_open: int = 0,
    before: Collection[int] = (),
    *,
    in_table: bool = False,
) -> EditEffects:
    """Extend each edit by what has to go with it; return the edits as the gate judges and delivers them.

    Example: an edit that removes the only item under a heading comes back as one that removes the heading, too.
    Segments before `first_open` have gone out, and cannot be changed any more. Those in `before` were removed by
    earlier edits. The text may begin `in_table`, that is, with a further row of a table.
    """
    touched = (SegmentStatus.REMOVED, SegmentStatus.REWRITTEN)
    if not any(part.effect in touched for parts in effects.values() for part in parts):
        return effects
    outline = Outline(pieces, in_table=in_table)
    removed = {*before, *removed_segments(effects)}
    return _EditCompletion(original, pieces, effects, removed, first_open, outline).complete()


def trim_edit(edit: Edit, pieces: Sequence[Segment]) -> Edit:
    """The edit without its final white space, which is sent with the next segment."""
    last = pieces[edit.last - 1]
    text = edit.text.rstrip()
    # a sign behind the white space belongs to the next segment (pair_completion.py)
    if text and text == edit.text:
        return edit
    # at the beginning of an answer no white space stays
    if not edit.text and not edit.start:
        return edit
    if not text:
        # the line breaks of the last gap go out with the next segment; only further ones belong to the edit
        text = "\n" * max(0, edit.text.count("\n") - last.gap.count("\n"))
    return replace(edit, end=last.end, text=text)


class _EditCompletion:
    """Completes the edits of one answer."""

    def __init__(
        self,
        original: str,
        pieces: Sequence[Segment],
        effects: EditEffects,
        removed: set[int],
        first_open: int,
        outline: Outline,
    ) -> None:
        self._original = original
        self._pieces = pieces
        self._effects = effects
        """The edits as proposed, each with its effects."""
        self._removed = removed
        """Numbers of the segments of which nothing stays, before completion."""
        self._first_open = first_open
        """Number of the first segment that has not gone out."""
        self._items = {item.first: item for item in outline.items}
        """The list items, by the number of their first segment."""
        self._completion: ListCompletion = outline.complete_removal(removed, first_open, is_about_reader)
        """What must be removed as well, and what stays of removed segments."""

    def complete(self) -> EditEffects:
        """All edits, each extended by what must go or change with it, as a list mark left alone or half a pair.

        An edit that needs nothing more is unchanged.
        """
        remaining = {i for i in self._completion.kept_texts if i >= self._first_open}
        also_affected = (self._completion.removed - self._removed) | remaining
        result: dict[Edit, tuple[Part, ...]] = {}
        for covered, edits in self._merge_runs(also_affected):
            single = edits[0] if len(edits) == 1 else None
            has_wrong_marks = single is not None and (self._mends_marks(single) or self._leaves_marks(single))
            if single is not None and not has_wrong_marks and not any(i in also_affected for i in covered):
                result[single] = self._effects[single]
                continue
            texts = self._new_texts(covered, edits)
            if texts is None:
                # the written text is in another order, so markers cannot be matched; the rules judge it as it is
                result |= {edit: self._effects[edit] for edit in edits}
                continue
            parts = {part.index: part for edit in edits for part in self._effects[edit]}
            result[self._build_edit(covered, texts)] = tuple(self._build_part(i, parts.get(i)) for i in covered)
        return result

    def _merge_runs(self, also_affected: Iterable[int]) -> Iterable[tuple[range, list[Edit]]]:
        """Ranges of adjacent segments that are removed or changed together, each with its edits.

        `also_affected` are the segments that are removed, or partly stay, although no edit says so.
        """
        stretches: list[tuple[int, int, list[Edit]]] = [(edit.first, edit.last, [edit]) for edit in self._effects]
        stretches += [(i, i + 1, []) for i in also_affected]
        merged: list[tuple[int, int, list[Edit]]] = []
        for first, last, edits in sorted(stretches, key=lambda stretch: stretch[:2]):
            # an insertion between two segments covers none, so it is merged with neither neighbour
            if merged and first < last and first <= merged[-1][1] and merged[-1][0] < merged[-1][1]:
                before = merged.pop()
                merged.append((before[0], max(before[1], last), before[2] + edits))
            else:
                merged.append((first, last, edits))
        return [(range(first, last), edits) for first, last, edits in merged]

    def _mends_marks(self, edit: Edit) -> bool:
        """Whether a marker in the rewritten text is missing or has another number, and so must be corrected."""
        indices = [part.index for part in self._effects[edit] if part.effect is SegmentStatus.REWRITTEN]
        if not any(i in self._items or self._mark_above(i) for i in indices):
            return False
        texts = self._texts_by_segment(edit)
        return texts is not None and any(self._restore_mark(i, texts[i]) != texts[i] for i in indices if i in texts)

    def _leaves_marks(self, edit: Edit) -> bool:
        """Whether the edit wrote the marker of an item that is removed completely."""
        removed_numbers = [part.index for part in self._effects[edit] if part.index in self._completion.removed]
        # the texts are looked for only if there can be any
        if not (edit.text.strip() and removed_numbers):
            return False
        texts = self._texts_by_segment(edit) or {}
        return any(texts.get(number) for number in removed_numbers)

    def _new_texts(self, covered: range, edits: Sequence[Edit]) -> dict[int, str] | None:
        """The new text of each segment; None if the written text does not follow the order of the segments."""
        texts = {i: self._pieces[i].text for i in covered}
        for edit in edits:
            own_texts = self._texts_by_segment(edit)
            if own_texts is None:
                return None
            # a covered segment that no written text continues becomes empty
            texts |= dict.fromkeys(range(edit.first, edit.last), "")
            texts |= {i: self._restore_mark(i, text) for i, text in own_texts.items()}
        texts |= {i: "" for i in covered if i in self._completion.removed}
        return texts | {i: text for i, text in self._completion.kept_texts.items() if i in covered}

    def _texts_by_segment(self, edit: Edit) -> dict[int, str] | None:
        """The new text of each segment that the edit continues, by the words in common (`match_heirs`).

        None if the new texts do not follow the order of the segments.
        """
        body = edit.text.lstrip()
        lead = edit.text[: len(edit.text) - len(body)]
        # if the text does not begin a line, its leading space is no indentation
        begins_line = edit.first == 0 or "\n" in lead
        new = [piece for piece in split(edit.text if begins_line else body) if piece.text.strip()]
        heirs = match_heirs([self._pieces[i].text for i in range(edit.first, edit.last)], [piece.text for piece in new])
        if heirs != sorted(heirs):
            return None
        texts: dict[int, list[tuple[str, str]]] = {}
        for number, piece in zip(heirs, new, strict=True):
            texts.setdefault(edit.first + number, []).append((piece.text, piece.gap))
        return {i: join(members).strip("\n") for i, members in texts.items()}

    def _restore_mark(self, number: int, text: str) -> str:
        """The written text with the original marker of the segment, and no other."""
        new_mark = marks.read(text)
        item = self._items.get(number)
        if item is not None:
            return _put_mark(text, new_mark, item, self._pieces[number].text)
        above = self._mark_above(number)
        if above is None or new_mark is None or new_mark.is_bullet != above.mark.is_bullet:
            return text
        # the marker above already begins this line, so a second one of its kind is dropped
        return text[new_mark.stop :]

    def _mark_above(self, number: int) -> OutlineItem | None:
        """The item whose marker will directly precede a segment that has no marker."""
        above = number - 1
        while above in self._completion.removed:
            above -= 1
        item = self._items.get(above)
        if item is None or above in self._completion.kept_texts:
            return item
        # an item with text of its own is complete; signs of emphasis alone are no text
        return None if self._pieces[above].text[item.mark.stop :].strip("*_ ") else item

    def _build_edit(self, covered: range, texts: Mapping[int, str]) -> Edit:
        """One edit for the covered segments, with the white space that remains between their neighbours."""
        pieces = self._pieces
        first = covered.start
        last = covered.stop
        with_text = [i for i in covered if texts[i]]
        lone_marks = {i for i, following in pairwise(with_text) if self._is_mark_of(i, following, texts)}
        members: list[tuple[str, str]] = []
        for i in covered:
            gap = pieces[i].gap
            if i in lone_marks:
                gap = " "  # text that continues a marker stands in the same line, after one space
            if texts[i].isspace():
                gap = ""  # indentation is followed by none
            members.append((texts[i].rstrip() or texts[i], gap))
        before = [(_BEFORE, pieces[first - 1].gap)] if first else []
        behind = [(_BEFORE, "")] if last < len(pieces) and pieces[last].text else []
        text = join([*before, *members, *behind])
        text = text.removeprefix(_BEFORE if before else "").removesuffix(_BEFORE if behind else "")
        start = pieces[first - 1].end if first else 0
        if behind and with_text and self._is_mark_of(with_text[-1], last, texts):
            text = f"{text.rstrip()} "
        if last < len(pieces):
            return Edit(start, pieces[last].start, text, first, last)
        # `join` drops the last gap, but the white space at the very end of the answer stays
        return Edit(start, len(self._original), text + pieces[-1].gap, first, last)

    def _is_mark_of(self, number: int, following: int, texts: Mapping[int, str]) -> bool:
        """Whether only an item's marker stays of segment `number`, and `following` continues the item at the margin."""
        item = self._items.get(number)
        if item is None or following in self._items:
            return False
        is_lone_mark = number in self._completion.kept_texts or not texts[number][item.mark.stop :].strip()
        text = texts.get(following, self._pieces[following].text)
        return is_lone_mark and not text[:1].isspace()

    def _build_part(self, number: int, part_so_far: Part | None) -> Part:
        """The effect on a segment after completion; one that no edit covered stays unless it is removed now."""
        part = part_so_far or Part(self._pieces[number].text, SegmentStatus.STAYS, number)
        if number in self._completion.removed:
            return replace(part, effect=SegmentStatus.REMOVED, kept_text="")
        return replace(part, kept_text=self._completion.kept_texts.get(number, part.kept_text))


def _put_mark(text: str, new_mark: marks.Mark | None, item: OutlineItem, old: str) -> str:
    """A text with the original marker of its item, whether the engine left it out or wrote another one."""
    old_mark = item.mark
    if new_mark is None or new_mark.is_bullet != old_mark.is_bullet:
        return old[: old_mark.stop] + text.lstrip()
    if old_mark.is_bullet:
        return old[: old_mark.stop] + text[new_mark.stop :]
    # the marker is right, so its form is left as the engine wrote it
    if new_mark.number == old_mark.number:
        return text
    return text[: new_mark.start] + old_mark.number + text[new_mark.end :]
