"""Parts of a prompt for a judge or an editor: sentences to decide about as marked passages, and references by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from aligner_proxy.correctors import editor_prompt
from aligner_proxy.correctors.editor_prompt import Passage
from aligner_proxy.text.structure import Segment
from aligner_proxy_grounding.references import Reference

REFERENCE_CHARS = 12_000
"""References that together have at most this many characters are shown whole. Of longer ones, headings and the lines
near a possible contradiction are shown, at most this many characters of each reference."""
_LINES_NEAR = 12
"""How many lines before and after a possible contradiction are shown."""


def mark_passages(segments: Sequence[Segment], starts: Set[int]) -> list[Passage]:
    """Make passages of the segments that begin at these positions; at most as many as one call may ask about."""
    indexes = [index for index, segment in enumerate(segments) if segment.start in starts]
    return [
        editor_prompt.make_passage(number, index, segments[index].text)
        for number, index in enumerate(indexes[: editor_prompt.MAX_PASSAGES], 1)
    ]


def quote_references(references: Sequence[Reference], sources: Set[str]) -> list[Mapping[str, str]]:
    """Quote references as {"name": ..., "text": ...}, each line behind its number.

    `sources` are the lines that may contradict the answer, as "name:line". If the references together are longer than
    `REFERENCE_CHARS`, only headings and the lines near `sources` are quoted, and references without such lines are left
    out.
    """
    all_fit = sum(len(reference.text) for reference in references) <= REFERENCE_CHARS
    excerpts: list[Mapping[str, str]] = []
    for reference in references:
        lines = reference.text.splitlines()
        # the last colon, since a label may contain one
        split_sources = (source.rpartition(":") for source in sources)
        source_numbers = {int(number) for label, _, number in split_sources if label == reference.label}
        quoted_lines = [
            f"{number} {line}"
            for number, line in enumerate(lines, 1)
            if all_fit or line.startswith("#") or any(abs(number - source) <= _LINES_NEAR for source in source_numbers)
        ]
        if quoted_lines:
            excerpts.append({"name": reference.label, "text": "\n".join(quoted_lines)[:REFERENCE_CHARS]})
    return excerpts
