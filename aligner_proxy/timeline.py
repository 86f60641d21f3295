"""Latency of one stream: when text came from the upstream, and when it went to the client (seconds, monotonic)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timeline:
    """Only text counts: roles, usage and other events are no tokens."""

    began: float = field(default_factory=time.perf_counter)
    came_first: float | None = None
    came_last: float | None = None
    went_first: float | None = None
    went_last: float | None = None

    def came(self) -> None:
        """Text came from the upstream."""
        self.came_last = time.perf_counter()
        self.came_first = self.came_first or self.came_last

    def went(self) -> None:
        """Text goes to the client."""
        self.went_last = time.perf_counter()
        self.went_first = self.went_first or self.went_last

    @property
    def first_s(self) -> float | None:
        """From the start of the stream to the first delivered token."""
        return None if self.went_first is None else self.went_first - self.began

    @property
    def first_added_s(self) -> float | None:
        """How much later the client got its first token than it would have from the upstream."""
        return _between(self.came_first, self.went_first)

    @property
    def last_added_s(self) -> float | None:
        """How much later the client had the whole answer."""
        return _between(self.came_last, self.went_last)


def _between(came: float | None, went: float | None) -> float | None:
    return None if came is None or went is None else max(0.0, went - came)
