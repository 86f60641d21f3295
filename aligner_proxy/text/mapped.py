"""Text that can be rewritten while each character keeps its position in the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any


class MappedText:
    """A text, and the position of each of its characters in the original."""

    def __init__(self, text: str, origins: Sequence[int] | None = None) -> None:
        self.text = text
        self.origins: Sequence[int] = range(len(text)) if origins is None else origins
        """By character of `text`, its offset in the original."""

    def cut(self, start: int, end: int) -> None:
        """Keep only the characters from `start` to `end`."""
        self.text = self.text[start:end]
        self.origins = self.origins[start:end]

    def replace(self, pattern: Any, by: Callable[[Any], str | None]) -> None:
        """Replace every match by `by(match)`; None leaves it unchanged."""
        self._apply_changes([(*match.span(), by(match)) for match in pattern.finditer(self.text)])

    def replace_words(self, pattern: Any, by: Callable[[str], str | None]) -> None:
        """Replace every match by `by(word)`, which is called once per distinct word; None leaves it unchanged."""
        replacements = dict[str, str | None]()

        def replacement_of(match: Any) -> str | None:
            """The stored replacement of a word; computed the first time."""
            word: str = match[0]
            if word not in replacements:
                replacements[word] = by(word)
            return replacements[word]

        self.replace(pattern, replacement_of)

    def keep_group(self, pattern: Any, group: str) -> None:
        """Reduce every match that has this group to the group."""
        changes = list[tuple[int, int, str | None]]()
        for match in pattern.finditer(self.text):
            if match[group] is not None:
                start, end = match.span(group)
                changes += [(match.start(), start, ""), (end, match.end(), "")]
        self._apply_changes(changes)

    def _apply_changes(self, changes: Iterable[tuple[int, int, str | None]]) -> None:
        """Apply replacements, given in order; None leaves a range unchanged."""
        text = self.text
        changed = [(start, end, new) for start, end, new in changes if new is not None and new != text[start:end]]
        if not changed:
            return
        texts = list[str]()
        position = 0
        for start, end, new in changed:
            texts += (text[position:start], new)
            position = end
        self.text = "".join(texts) + text[position:]
        # Most replacements are as long as the original (letter by letter), and then positions stay the same.
        if any(len(new) != end - start for start, end, new in changed):
            self.origins = self._move_origins(changed)

    def _move_origins(self, changed: Iterable[tuple[int, int, str]]) -> list[int]:
        """The positions of the characters after these changes."""
        old_origins = self.origins
        origins = list[int]()
        position = 0
        for start, end, new in changed:
            origins += old_origins[position:start]
            if len(new) > 1:
                # spread evenly over the characters that it replaces
                origins += [old_origins[start + i * (end - start) // len(new)] for i in range(len(new))]
            elif new:
                origins.append(old_origins[start])
            position = end
        origins += old_origins[position:]
        return origins
