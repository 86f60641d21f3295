"""What does a rule of the gate get to read? The original, a choice of edits, and the text that they would make.

Facts of a text are read when a rule first asks for them and then remembered for as long as the gate works on this one
answer, never longer. A sentence that an objective dictates word for word is nobody's invention, nor are its facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from aligner_proxy import dictated
from aligner_proxy.edits import Edit, apply
from aligner_proxy.facts import FactReader
from aligner_proxy.fate import Fate, Part
from aligner_proxy.segments import Segment, join, split
from aligner_proxy.types import Objective

_T = TypeVar("_T")


class Reading:
    """One text and what has been found in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._found: dict[Callable[[str], Any], Any] = {}

    def of(self, reader: Callable[[str], _T]) -> _T:
        """What `reader` finds in the text."""
        if reader not in self._found:
            self._found[reader] = reader(self.text)
        found: _T = self._found[reader]
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """Edits that are kept or dropped together, and what became of the segments that they cover."""

    edits: tuple[Edit, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Candidate:
    """The original with some of the changes in it."""

    before: Reading
    pieces: Sequence[Segment]
    objectives: Sequence[Objective]
    changes: Sequence[Change]

    @cached_property
    def after(self) -> Reading:
        """The text that would be delivered."""
        return Reading(apply(self.before.text, (edit for change in self.changes for edit in change.edits)))

    @cached_property
    def new(self) -> list[str]:
        """What the edits put in, and nobody dictated."""
        texts = (self._own(edit.text) for change in self.changes for edit in change.edits)
        return [text for text in texts if text.strip()]

    def parts(self, *fates: Fate) -> list[Part]:
        """The covered segments with one of these fates."""
        return [part for change in self.changes for part in change.parts if part.fate in fates]

    def lost(self, facts: FactReader, fates: Iterable[Fate] = (Fate.STAYS, Fate.REWRITTEN)) -> set[str]:
        """Facts of the covered segments of these fates that the new text has nowhere."""
        owed = {fact for part in self.parts(*fates) for fact in facts(part.text)}
        return owed - self.after.of(facts) if owed else owed

    def more(self, count: Callable[[str], int]) -> bool:
        """Whether some edit has more of something than what it replaces."""
        edits = (edit for change in self.changes for edit in change.edits)
        return any(count(self._own(edit.text)) > count(self.before.text[edit.start : edit.end]) for edit in edits)

    def added(self, facts: FactReader) -> set[str]:
        """Facts of the new text that stand nowhere in the original, and that no objective dictates."""
        found = self.after.of(facts) - self.before.of(facts)
        return found - {fact for text in self._dictated for fact in facts(text)} if found else found

    def repeats(self, of_these: Callable[[str, Sequence[str]], bool]) -> bool:
        """Whether some edit puts in a sentence of the objectives that the original does not have."""
        new = (piece.text for text in self.new for piece in split(text))
        return any(of_these(said, self._asked) for said in new if said not in self.before.text)

    @cached_property
    def _dictated(self) -> list[str]:
        return dictated.by(self._asked)

    @cached_property
    def _asked(self) -> list[str]:
        return [objective.text for objective in self.objectives]

    def _own(self, text: str) -> str:
        """What an edit puts in, without the sentences that an objective dictates."""
        if not self._dictated:
            return text
        pieces = [(piece.text, piece.gap) for piece in split(text)]
        own = [("" if dictated.is_dictated(said, self._dictated) else said, gap) for said, gap in pieces]
        return text if own == pieces else join(own)
