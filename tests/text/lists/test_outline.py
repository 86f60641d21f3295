"""The outline of hostile texts is read in a time that grows with their length, and no faster."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aligner_proxy.text.lists.counts import CountsBehindLists
from aligner_proxy.text.lists.numbering import renumber_text
from aligner_proxy.text.lists.outline import Outline
from aligner_proxy.text.structure import Segment, join, split
from tests.support.growth import grows_linearly


@pytest.mark.some(4)
@pytest.mark.parametrize(
    "unit",
    [
        "**Ab.** Text is here. ",
        "**Ab.** Text is here.\n",
        "Day 1: Sea\nText is here.\n",
        "- Sea\n  - Text is here.\n",
        "- Sea\n\n## Sea\n\nText.\n\n",
        "- tea; and\n",
        "see clause 1.3 and (see step 2) III.A ",
        "!!! note\n    x y.\n",
        "# Four teas\n\nText is here.\n\n- Tea\n\nAll four are hot.\n\n",
        "Teas:\n\n1. See tea 1, Step 3/7 and item 4 of your book.\n\n",
        "There are four ways. Text is here.\n\n|a|b|\n|-|-|\n|c|d|\n\nAll four are hot.\n\n",
    ],
)
def test_titles_joints_and_references_take_linear_time(unit: str) -> None:
    def make(size: int) -> Sequence[Segment]:
        return split(unit * (size // len(unit) // 2))

    def complete(pieces: Sequence[Segment]) -> None:
        removed = {len(pieces) // 2}
        rest = join([("" if number in removed else piece.text, piece.gap) for number, piece in enumerate(pieces)])
        Outline(pieces).complete_removal(removed, 0, lambda _: False)
        renumber_text(pieces, removed, rest)

    def follow(pieces: Sequence[Segment]) -> None:
        removed = {len(pieces) // 2}
        rest = join([("" if number in removed else piece.text, piece.gap) for number, piece in enumerate(pieces)])
        CountsBehindLists().update(pieces, removed, rest)

    assert grows_linearly(make, complete)
    assert grows_linearly(make, follow)
