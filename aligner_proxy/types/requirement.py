"""What a plugin requires of answers besides the objectives, and the problems that its stages find in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class Requirement:
    """A plugin's requirement on answers besides the objectives, given as the value of a policy key.

    Every default requires nothing. With a requirement in its policy, an answer is checked even without objectives. An
    empty value counts as no requirement.
    """

    __slots__ = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that describe the requirement to operators."""
        return ()

    @property
    def source_texts(self) -> tuple[str, ...]:
        """Texts whose facts an edit may state; the gate does not count them as invented."""
        return ()

    @property
    def operator_settings(self) -> object:
        """The operator's settings as JSON-able data, for the policy hash; nothing from the request."""
        return ()

    @property
    def header_names(self) -> tuple[str, ...]:
        """Request headers that the requirement reads (`RequestFacts.given`)."""
        return ()

    @property
    def reads_tool_results(self) -> bool:
        """Whether the requirement reads tool results (`RequestFacts.tool_results`)."""
        return False

    @property
    def file_names(self) -> tuple[str, ...]:
        """Paths of the files that the requirement uses, as written in the policies file."""
        return ()

    def read_files(self, place: Callable[[int], str], path: Callable[[str], Path]) -> Mapping[str, str]:
        """Read the files; return their texts by the name in `file_names`.

        `place` returns the position of an entry of the requirement, by its number, in the policies file; a
        `ConfigError` names it. `path` returns the path of a file by its name.
        """
        return {}

    def with_files(self, texts: Mapping[str, str]) -> Requirement:
        """A copy of the requirement that holds the texts of its files, by file name."""
        return self


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that a stage found in a passage of an answer, and the replacement of the passage."""

    against: str
    """Name of the requirement or rule that the passage violates, comparable to an objective's name."""
    start: int
    """Offset of the passage in the text before the replacement."""
    end: int
    kind: str
    """Kind of the problem, in the words of the stage."""
    source: str
    """The evidence for the problem, such as a reference line, written "name:line"."""
    text: str | None = field(default=None, repr=False)
    """The replacement text; None if the passage was not replaced."""

    @property
    def is_replaced(self) -> bool:
        """Whether the passage was replaced."""
        return self.text is not None


MAX_FINDINGS = 32
"""At most this many findings are listed in a record, for replaced and for unsettled ones each."""
