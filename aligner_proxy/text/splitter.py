"""Splitter that divides a growing text into the segments that `structure.split` would find in the whole text."""

from __future__ import annotations

from aligner_proxy.text.structure import BoundaryFinder, Segment, cut


class Splitter:
    """Cuts a growing text into segments. A segment is finished as soon as the next one has begun."""

    def __init__(self) -> None:
        self._finder = BoundaryFinder()
        self._boundaries: list[int] = []
        """The boundaries in the text that was not returned."""
        self._texts: list[str] = []
        """The text that was not returned, as it was fed."""
        self._start = 0
        """Offset at which that text begins."""

    def feed(self, text: str) -> list[Segment]:
        """Add text and return the segments that it finished."""
        self._texts.append(text)
        new_boundaries = list(self._finder.read(text))
        self._boundaries += new_boundaries
        # without a new boundary, white space finishes no segment
        if not self._boundaries or (not new_boundaries and text.isspace()):
            return []
        *finished, last = self.end()
        self._start = last.start
        self._texts = [last.text + last.gap]
        # of the empty lines behind the last segment only the first and the last one matter
        boundaries = [boundary for boundary in self._boundaries if boundary >= last.end]
        self._boundaries = [*boundaries[:1], *boundaries[1:][-1:]]
        return finished

    def end(self) -> list[Segment]:
        """Return the remaining segments, once the text has ended."""
        return cut("".join(self._texts), self._boundaries, self._start)
