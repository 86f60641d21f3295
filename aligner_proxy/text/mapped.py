"""Text that is rewritten while each of its characters keeps its place in the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any


class MappedText:
    """A text, and where each of its characters comes from."""

    def __init__(self, text: str, origins: Sequence[int] | None = None) -> None:
        self.text = text
        self.origins: Sequence[int] = range(len(text)) if origins is None else origins

    def cut(self, start: int, end: int) -> None:
        """Keep only these characters."""
        self.text = self.text[start:end]
        self.origins = self.origins[start:end]

    def replace(self, pattern: Any, by: Callable[[Any], str | None]) -> None:
        """Put `by(match)` in place of every match; None leaves it."""
        self._put([(*match.span(), by(match)) for match in pattern.finditer(self.text)])

    def replace_words(self, pattern: Any, by: Callable[[str], str | None]) -> None:
        """The same where what stands in place of a match depends on nothing else; each word is asked for once."""
        replacements = dict[str, str | None]()

        def replacement_of(match: Any) -> str | None:
            word: str = match[0]
            if word not in replacements:
                replacements[word] = by(word)
            return replacements[word]

        self.replace(pattern, replacement_of)

    def keep(self, pattern: Any, group: str) -> None:
        """Of every match that has this group leave nothing else."""
        changes = list[tuple[int, int, str | None]]()
        for match in pattern.finditer(self.text):
            if match[group] is not None:
                start, end = match.span(group)
                changes += [(match.start(), start, ""), (end, match.end(), "")]
        self._put(changes)

    def _put(self, changes: Iterable[tuple[int, int, str | None]]) -> None:
        """Texts in place of others, in order; None leaves one."""
        text = self.text
        changed = [(start, end, new) for start, end, new in changes if new is not None and new != text[start:end]]
        if not changed:
            return
        texts = list[str]()
        at = 0
        for start, end, new in changed:
            texts += (text[at:start], new)
            at = end
        self.text = "".join(texts) + text[at:]
        # Most are as long as what they stand for: letters for letters.
        if any(len(new) != end - start for start, end, new in changed):
            self.origins = self._move_origins(changed)

    def _move_origins(self, changed: Iterable[tuple[int, int, str]]) -> list[int]:
        """Where the characters come from with these changes made."""
        before = self.origins
        origins = list[int]()
        at = 0
        for start, end, new in changed:
            origins += before[at:start]
            if len(new) > 1:
                origins += [before[start + i * (end - start) // len(new)] for i in range(len(new))]
            elif new:
                origins.append(before[start])
            at = end
        origins += before[at:]
        return origins
