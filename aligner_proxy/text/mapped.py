"""Text that is rewritten while each of its characters keeps its place in the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        texts = list[str]()
        origins = list[int]()
        at = 0
        for match in pattern.finditer(self.text):
            new = by(match)
            if new is None or new == match.group():
                continue
            start, end = match.span()
            texts += [self.text[at:start], new]
            origins += self.origins[at:start]
            origins += [self.origins[start + i * (end - start) // len(new)] for i in range(len(new))]
            at = end
        if at:
            self.text = "".join(texts) + self.text[at:]
            origins += self.origins[at:]
            self.origins = origins

    def keep(self, pattern: Any, group: str) -> None:
        """Of every match that has this group leave nothing else."""
        texts = list[str]()
        origins = list[int]()
        at = 0
        for match in pattern.finditer(self.text):
            if match[group] is None:
                continue
            inner, outer = match.span(group)
            texts += [self.text[at : match.start()], match[group]]
            origins += self.origins[at : match.start()]
            origins += self.origins[inner:outer]
            at = match.end()
        if at:
            self.text = "".join(texts) + self.text[at:]
            origins += self.origins[at:]
            self.origins = origins
