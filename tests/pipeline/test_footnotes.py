"""Notes go with the sentences that refer to them, and references with their notes; others stay as they are."""

from __future__ import annotations

import pytest

from aligner_proxy.text.footnotes import Footnotes
from aligner_proxy.text.structure import split
from tests.support.pruning import correct_in_all_ways

TEA = "Tea has a lot of caffeine"
MORE = "Coffee has even more of it"
NOTES = "\n\n[^1]: Tea Board, 2020.\n[^2]: My own view.\n[^3]: Bean Board, 2021."
WITH_THEIR_NOTES: list[tuple[str, str]] = [
    (
        f"{TEA}.[^1] You are a fool.[^2] {MORE}.[^3]{NOTES}",
        f"{TEA}.[^1] {MORE}.[^3]\n\n[^1]: Tea Board, 2020.\n[^3]: Bean Board, 2021.",
    ),
    (
        f"You are a fool.[^1] {TEA}.[^2] {MORE}.[^3]{NOTES}",
        f"{TEA}.[^2] {MORE}.[^3]\n\n[^2]: My own view.\n[^3]: Bean Board, 2021.",
    ),
    (f"{TEA}. You are a fool[^a]. {MORE}.\n\n[^a]: My own view.", f"{TEA}. {MORE}."),
    (
        f"{TEA} [1]. You are a fool [2]. {MORE} [3].\n\n[1] Tea Board, 2020.\n[2] My own view.\n[3] Bean Board.",
        f"{TEA} [1]. {MORE} [3].\n\n[1] Tea Board, 2020.\n[3] Bean Board.",
    ),
    (
        f"{TEA} [1]. You are a fool [2].\n\n[1]: Tea Board, 2020.\n[2]: My own view. It is right.",
        f"{TEA} [1].\n\n[1]: Tea Board, 2020.",
    ),
    (
        f"{TEA}.\u00b9 You are a fool.\u00b2 {MORE}.\n\n\u00b9 Tea Board, 2020.\n\u00b2 My own view.",
        f"{TEA}.\u00b9 {MORE}.\n\n\u00b9 Tea Board, 2020.",
    ),
    (f"{TEA}.[^1] You are a fool.[^1]\n\n[^1]: Tea Board.", f"{TEA}.[^1]\n\n[^1]: Tea Board."),
    (
        f"{TEA}.[^1][^2] You are a fool.[^3]{NOTES}",
        f"{TEA}.[^1][^2]\n\n[^1]: Tea Board, 2020.\n[^2]: My own view.",
    ),
    (f"- {TEA}.[^1]\n- You are a fool.[^2]\n\n[^1]: Tea.\n[^2]: View.", f"- {TEA}.[^1]\n\n[^1]: Tea."),
    (f"{TEA}. You are a fool [1].\n\nNotes:\n\n[1] My own view.", f"{TEA}."),
    (f"{TEA}. You are a fool [1].\n\n---\n\n[1] My own view.", f"{TEA}."),
    (
        f"{TEA} [2]. You are a fool [1].\n\nNotes:\n\n[1] My own view.\n[2] Tea Board.",
        f"{TEA} [2].\n\nNotes:\n\n[2] Tea Board.",
    ),
    (
        "See [the shop][1] for tea. You are a fool [2].\n\n[1]: https://shop.example\n[2]: https://view.example",
        "See [the shop][1] for tea.\n\n[1]: https://shop.example",
    ),
]
UNTOUCHED: list[tuple[str, str]] = [
    # a number that may be an exponent, an index, or the mark of an item
    (f"The room has 20 m\u00b2. You are a fool.\n\n\u00b2 {TEA}.", f"The room has 20 m\u00b2.\n\n\u00b2 {TEA}."),
    (f"Do both. You are a fool, see [2].\n\n[1] {TEA}.\n[2] {MORE}.", f"Do both.\n\n[1] {TEA}.\n[2] {MORE}."),
    (f"{TEA}. You are a fool.\n\n```text\n[^1]: {MORE}\n```", f"{TEA}.\n\n```text\n[^1]: {MORE}\n```"),
    (f"{TEA}.[^1] {MORE}.[^2]{NOTES}", f"{TEA}.[^1] {MORE}.[^2]{NOTES}"),
]
WITH_THEIR_REFERENCES: list[tuple[str, str]] = [
    (f"{TEA}.[^1] {MORE}.[^2]\n\n[^1]: Tea.\n[^2]: You are a fool.", f"{TEA}.[^1] {MORE}.\n\n[^1]: Tea."),
    (f"{TEA}.[^1]\n\n[^1]: You are a fool.", f"{TEA}."),
    (f"{TEA} [1]. {MORE} [2].\n\n[1] Tea.\n[2] You are a fool.", f"{TEA} [1]. {MORE}.\n\n[1] Tea."),
    (f"{TEA}.\u00b9 {MORE}.\u00b2\n\n\u00b9 Tea.\n\u00b2 You fool.", f"{TEA}.\u00b9 {MORE}.\n\n\u00b9 Tea."),
    (f"{TEA}.[^1]\n\n[^1]: Tea Board, 2020. You are a fool.", f"{TEA}.[^1]\n\n[^1]: Tea Board, 2020."),
    (f"{TEA}, see a[1].\n\n[1] You are a fool.", f"{TEA}, see a[1]."),
]


@pytest.mark.parametrize(("answer", "left"), [*WITH_THEIR_NOTES, *UNTOUCHED])
async def test_a_note_goes_with_the_only_sentence_that_refers_to_it(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


@pytest.mark.parametrize(("answer", "left"), WITH_THEIR_REFERENCES)
async def test_a_reference_goes_with_its_note_where_it_has_not_gone_out(answer: str, left: str) -> None:
    texts = await correct_in_all_ways(answer)
    assert {texts["whole"], texts["held"]} == {left}


@pytest.mark.parametrize(("answer", "left"), [*WITH_THEIR_NOTES, *UNTOUCHED, *WITH_THEIR_REFERENCES])
def test_footnotes_stay_where_nothing_is_removed(answer: str, left: str) -> None:
    for text in (answer, left):
        footnotes = Footnotes()
        pieces = split(text)
        assert "".join(footnotes.settle([piece], (), piece.text + piece.gap) for piece in pieces) == text
