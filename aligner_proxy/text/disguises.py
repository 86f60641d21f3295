"""Removal of disguises from a text: what a reader sees, for a detector that was trained on plain letters.

These disguises are removed: invisible characters, styled letters, letters of other alphabets in Latin words and the
reverse, combining marks on every letter, letters separated by something, digits and signs used as letters, and prose
formatted as code. Undisguised text is unchanged: words in any script, emoji sequences, code, formulas.

Each segment is undisguised separately, so the finished segments of a growing text do not change. Every character of the
undisguised text maps to a position in the original, and segments correspond one to one. A segment never becomes empty.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from aligner_proxy.text import look_alikes
from aligner_proxy.text.disguise_rules import TWO_ACCENTS, apply_rules
from aligner_proxy.text.mapped import MappedText
from aligner_proxy.text.structure import Segment, split

_MAX_CACHED_CHARS = 2_000
"""Longest segment whose undisguised form is cached."""
# ASCII text without a match contains no disguise.
_ASCII_DISGUISE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f`~&]|[A-Za-z][0134578@$!]|[0134578@$!][A-Za-z]|[A-Za-z]\*{1,3}[A-Za-z]|[A-Za-z]</?[!A-Za-z]"
    r"|([a-z])\1\1|[a-z][A-Z][a-z][A-Z]|[A-Z]{2}\W{1,3}(?:[A-Z]\W{1,3})?[A-Z]{2}"
    r"|(?<![A-Za-z0-9])[A-Za-z0-9@$!](?P<gap>[^\w\n]|_)[^\w\n]{0,2}[A-Za-z0-9@$!](?P=gap)"
)


@dataclass(frozen=True, slots=True)
class UndisguisedText:
    """A text as a reader sees it; identical to the original if nothing is disguised."""

    text: str
    origins: tuple[int, ...] = ()
    """For each character its position in the original, and last the original's length; empty if nothing differs."""

    def place_in_undisguised(self, place: int) -> int:
        """Translate a position in the original to the undisguised text."""
        return bisect_left(self.origins, place) if self.origins else place

    def place_in_original(self, place: int) -> int:
        """Translate a position in the undisguised text to the original."""
        return self.origins[place] if self.origins else place

    @property
    def length(self) -> int:
        """Number of characters of the original."""
        return self.origins[-1] if self.origins else len(self.text)

    def cut(self, start: int, end: int) -> UndisguisedText:
        """The undisguised form of the original from position `start` to `end` (exclusive)."""
        if not self.origins:
            return UndisguisedText(self.text[start:end])
        first = self.place_in_undisguised(start)
        last = self.place_in_undisguised(end)
        origins = [place - start for place in self.origins[first:last]]
        return UndisguisedText(self.text[first:last], (*origins, end - start))

    def segments(self, pieces: Iterable[Segment]) -> list[Segment]:
        """The segments of the undisguised text that correspond to these segments of the original, one to one."""
        return [self._translate_segment(segment) for segment in pieces] if self.origins else list(pieces)

    def _translate_segment(self, segment: Segment) -> Segment:
        """The segment of the undisguised text that corresponds to this segment of the original."""
        start = self.place_in_undisguised(segment.start)
        end = self.place_in_undisguised(segment.end)
        return Segment(start, self.text[start:end], segment.gap)


SAME = UndisguisedText("")
"""The undisguised form of a text that stays as it is."""


def undisguise(text: str) -> UndisguisedText:
    """The text without disguises; if there are none, its `text` is the same string."""
    if not _may_be_disguised(text):
        return UndisguisedText(text)
    parts: list[UndisguisedText] = []
    for segment in split(text):
        parts += (undisguise_segment(segment.text), UndisguisedText(segment.gap))
    undisguised = join_undisguised(parts)
    return undisguised if undisguised.origins else UndisguisedText(text)


def undisguise_segment(text: str) -> UndisguisedText:
    """The text of one segment without disguises."""
    undisguised, origins = _undisguise_cached(text) if len(text) <= _MAX_CACHED_CHARS else _undisguise(text)
    return UndisguisedText(text) if undisguised == text else UndisguisedText(undisguised, (*origins, len(text)))


def join_undisguised(parts: Iterable[UndisguisedText]) -> UndisguisedText:
    """Concatenate undisguised texts."""
    parts = list(parts)
    text = "".join(part.text for part in parts)
    if not any(part.origins for part in parts):
        return UndisguisedText(text)
    origins = list[int]()
    start = 0
    for part in parts:
        # a part without origins is the original itself; otherwise its last origin is the length of its original
        part_origins = part.origins[:-1] or range(len(part.text))
        origins += [start + place for place in part_origins]
        start += part.length
    return UndisguisedText(text, (*origins, start))


def restore_disguises(text: str, original: str) -> str:
    """Write the segments of `text` that were not edited as they stand in `original`, with their disguises.

    `text` is an edited version of the undisguised `original`.
    """
    undisguised = undisguise(original)
    has_disguises = bool(undisguised.origins)
    if not has_disguises:
        return text
    if text.strip() == undisguised.text.strip():
        return original
    segments = split(original)
    undisguised_segments = undisguised.segments(segments)
    original_by_undisguised = {
        undisguised_segment.text.strip(): segment.text.strip()
        for undisguised_segment, segment in zip(undisguised_segments, segments, strict=True)
    }
    return "".join(
        original_by_undisguised.get(segment.text.strip(), segment.text) + segment.gap for segment in split(text)
    )


def _may_be_disguised(text: str) -> bool:
    """Whether a text may contain disguises, by a quick test."""
    if _ASCII_DISGUISE.search(text) is not None:
        return True
    return not text.isascii() and (TWO_ACCENTS.search(text) is not None or any(map(_may_be_in_disguise, set(text))))


@lru_cache(maxsize=8192)
def _may_be_in_disguise(char: str) -> bool:
    """Whether a character is not ASCII and can be part of a disguise."""
    if char.isascii():
        return False
    is_invisible = unicodedata.category(char) in ("Cc", "Cf", "Mn", "Me") or char in "\u2800\u3164\uffa0\u115f\u1160"
    return is_invisible or char.isspace() or bool(look_alikes.plain(char)) or "\U0001f1e6" <= char <= "\U0001f1ff"


def _undisguise(segment: str) -> tuple[str, Sequence[int]]:
    """The undisguised text of one segment, and for each of its characters the position in `segment`."""
    if not _may_be_disguised(segment):
        return segment, range(len(segment))
    mapped = MappedText(segment)
    apply_rules(mapped)
    if not mapped.text.strip():
        # of a segment that is all invisible, one character stays: a segment never becomes empty
        return segment[:1], range(1)
    if mapped.text == segment:
        return segment, range(len(segment))
    # An array, because hundreds of results are cached, and a list takes nine times as much memory per position.
    return mapped.text, array("I", mapped.origins)


_undisguise_cached = lru_cache(maxsize=512)(_undisguise)
"""Caches results, because an answer that is still being written is undisguised again and again."""
