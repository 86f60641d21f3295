"""Text that can be rewritten while each character keeps its position in the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any


class MappedText:
    """A text, and the position of each of its characters in the original."""

    def __init__(self, text: str, origins: Sequence[int] | None = None) -> None:
        self.text = text
        self.origins: Sequence[int] = range(len(text)) if origins is None else origins
        """For each character of `text`, its offset in the original."""

    def keep_only(self, start: int, end: int) -> None:
        """Keep only the characters from offset `start` of `text` to `end` (exclusive)."""
        self.text = self.text[start:end]
        self.origins = self.origins[start:end]

    def replace(self, pattern: Any, find_replacement: Callable[[Any], str | None]) -> None:
        """Replace every match by the text that `find_replacement` returns for it; None leaves the match unchanged."""
        self._apply_changes([(*match.span(), find_replacement(match)) for match in pattern.finditer(self.text)])

    def replace_words(self, pattern: Any, respell: Callable[[str], str | None]) -> None:
        """Replace every matched word by what `respell` returns for it; None leaves the word unchanged.

        `respell` is called only once for a word that occurs several times.
        """
        replacements = dict[str, str | None]()

        def find_replacement(match: Any) -> str | None:
            word: str = match[0]
            if word not in replacements:
                replacements[word] = respell(word)
            return replacements[word]

        self.replace(pattern, find_replacement)

    def keep_group(self, pattern: Any, group: str) -> None:
        """Replace every match by what its group of this name matched; a match without the group stays unchanged."""
        changes = list[tuple[int, int, str | None]]()
        for match in pattern.finditer(self.text):
            if match[group] is not None:
                start, end = match.span(group)
                changes += [(match.start(), start, ""), (end, match.end(), "")]
        self._apply_changes(changes)

    def _apply_changes(self, changes: Iterable[tuple[int, int, str | None]]) -> None:
        """Apply changes, each (start, end, new text), given in order; a new text of None leaves the range unchanged."""
        text = self.text
        replacements = [(start, end, new) for start, end, new in changes if new is not None and new != text[start:end]]
        if not replacements:
            return
        pieces = list[str]()
        position = 0
        for start, end, new in replacements:
            pieces += (text[position:start], new)
            position = end
        self.text = "".join(pieces) + text[position:]
        # Most replacements are as long as the original (letter by letter), and then positions stay the same.
        if any(len(new) != end - start for start, end, new in replacements):
            self.origins = self._compute_origins(replacements)

    def _compute_origins(self, replacements: Iterable[tuple[int, int, str]]) -> list[int]:
        """The `origins` after these replacements, each (start, end, new text)."""
        old_origins = self.origins
        origins = list[int]()
        position = 0
        for start, end, new in replacements:
            origins += old_origins[position:start]
            if len(new) > 1:
                # the origins of the new text are spread evenly over the characters that it replaces
                origins += [old_origins[start + i * (end - start) // len(new)] for i in range(len(new))]
            elif new:
                origins.append(old_origins[start])
            position = end
        origins += old_origins[position:]
        return origins
