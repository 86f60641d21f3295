"""What a judge or an editor is shown: sentences in doubt as marked passages, and references by numbered lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from aligner_proxy.correctors import editor_prompt
from aligner_proxy.correctors.editor_prompt import Passage
from aligner_proxy.text.structure import Segment
from aligner_proxy_grounding.references import Reference

REFERENCE_CHARS = 12_000
"""If all references together are no longer than this, they are shown whole; of longer ones the headings
and the lines near a possible contradiction, at most this many characters of each."""
_LINES_NEAR = 12
"""How many lines before and after a possible contradiction are shown."""


def mark_passages(segments: Sequence[Segment], starts: Set[int]) -> list[Passage]:
    """The segments that begin at these positions as passages; at most as many as one call may ask about."""
    places = [at for at, segment in enumerate(segments) if segment.start in starts][: editor_prompt.MAX_PASSAGES]
    return [editor_prompt.make_passage(number, at, segments[at].text) for number, at in enumerate(places, 1)]


def quote_references(references: Sequence[Reference], sources: Set[str]) -> list[Mapping[str, str]]:
    """Name and text of each reference, with numbered lines; of long ones only headings and the lines near `sources`.

    `sources` are the lines in question as "name:line".
    """
    all_fit = sum(len(reference.text) for reference in references) <= REFERENCE_CHARS
    excerpts: list[Mapping[str, str]] = []
    for reference in references:
        lines = reference.text.splitlines()
        # the last colon, since a label may contain one
        split_sources = (source.rpartition(":") for source in sources)
        doubted_lines = {int(number) for label, _, number in split_sources if label == reference.label}
        quoted_lines = [
            f"{number} {line}"
            for number, line in enumerate(lines, 1)
            if all_fit or line.startswith("#") or any(abs(number - doubted) <= _LINES_NEAR for doubted in doubted_lines)
        ]
        if quoted_lines:
            excerpts.append({"name": reference.label, "text": "\n".join(quoted_lines)[:REFERENCE_CHARS]})
    return excerpts
