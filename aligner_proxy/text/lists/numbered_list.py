"""A numbered list as far as it was read, and its items that remain, with their old and new numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.marks import Mark, MarkKind


@dataclass(slots=True)
class NumberedList:
    """One list as far as it was read, and the new numbers of the items that remain."""

    kind: MarkKind
    style: tuple[str, str]
    """(signs before the numbers, signs after them)."""
    first: int
    """Number of the first item."""
    last: int
    """Number of the last item read."""
    depth: int
    """Depth of the indentation in steps of two columns; -1 for lists of headings."""
    parents: tuple[int, ...] = ()
    """The parts of compound numbers before the last: (2,) of "2.1"."""
    parent: tuple[NumberedList, int] | None = None
    """(list of the item above a compound number, the item's number in it); None if that item was not read."""
    fixed: bool = False
    """Whether the numbers were sent in a reference and may no longer change."""
    noun: str = ""
    """The singular of what the line above the list names last, in lower case; empty if it names nothing."""
    new_numbers: dict[int, int] = field(default_factory=dict)
    """Maps the number of each remaining item to its new number."""

    def add_item(self, value: int, *, remains: bool) -> None:
        """Add the next item with the number `value`. `remains` says whether it stays, so that it gets a new number."""
        self.last = value
        if remains:
            self.new_numbers[value] = value if self.fixed else self.first + len(self.new_numbers)

    def has_word(self, word: str) -> bool:
        """Whether the markers have this word, or its singular or plural, before the number ("Step 2:")."""
        return self.style[0].strip("*_#(").rstrip("s") == word.lower().rstrip("s.")

    def has_number(self, value: int) -> bool:
        """Whether an item has or had this number."""
        return self.first <= value <= self.last

    def write_number(self, value: int, kind: MarkKind, like: str) -> str:
        """The new number of the remaining item `value` in the notation `kind`.

        `like` is a number in this notation. If it is compound ("2.1"), so is the result.
        """
        *parents, last_part = like.split(".")
        number = marks.format_number(kind, self.new_numbers[value], last_part)
        return ".".join([*map(str, self._new_parents()), number]) if parents else number

    def _new_parents(self) -> tuple[int, ...]:
        """The `parents` with the new numbers of the items above."""
        new_parents = list(self.parents)
        parent = self.parent
        for index in range(len(new_parents) - 1, -1, -1):
            # parts further up belong to no list that was read, so they stay
            if parent is None:
                break
            parent_list, value = parent
            new_parents[index] = parent_list.new_numbers.get(value, value)
            parent = parent_list.parent
        return tuple(new_parents)


@dataclass(frozen=True, slots=True)
class NumberedItem:
    """An item of a list that remains."""

    mark: Mark
    list: NumberedList
    value: int
    """The item's number before renumbering; of a compound number the last part."""

    @property
    def new_number(self) -> str:
        """The new number as it is written; a compound number with the new numbers of the items above."""
        return self.list.write_number(self.value, self.list.kind, self.mark.number)
