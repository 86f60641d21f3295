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
BEGINNING = f"{TEA}.[^1] You are a fool.[^2]\n\n[^1]: Tea Board."
WITHOUT_NOTE = f"{TEA}.[^1]\n\n[^1]: Tea Board."
KETTLE = "The kettle is in the kitchen."
BEHIND_A_NOTE: list[tuple[str, str]] = [
    # a removed segment
    (f"\n[^2]: View.\n\nYou fool. {MORE}. Bye.\n\n{KETTLE}", f"\n\n{MORE}. Bye.\n\n{KETTLE}"),
    (f"\n[^2]: View. You fool.\n\n{MORE}. Bye.\n\n{KETTLE}", f"\n\n{MORE}. Bye.\n\n{KETTLE}"),
    (f"\n[^2]: View.\n\n- You fool.\n- {MORE}.\n- Bye.\n\n{KETTLE}", f"\n\n- {MORE}.\n- Bye.\n\n{KETTLE}"),
    (f"\n[^2]: View.\n\n> You fool.\n\n{MORE}.\n\n{KETTLE}", f"\n\n{MORE}.\n\n{KETTLE}"),
    # a paragraph, a list
    (f"\n[^2]: View.\n\n{KETTLE}", f"\n\n{KETTLE}"),
    (f"\n[^2]: View.\n\n- {KETTLE}\n- {MORE}.", f"\n\n- {KETTLE}\n- {MORE}."),
    # further lines of the note
    (f"\n[^2]: View.\n    On it goes.\n\n\tSo it does.\n\n{KETTLE}", f"\n\n{KETTLE}"),
    ("\n[^2]: View.\n    On it goes.\n\n    So it does.\n[^3]: Bean Board.", "\n[^3]: Bean Board."),
    (f"\n[^2]: View.\n\n```text\n    {MORE}\n```", f"\n\n```text\n    {MORE}\n```"),
]
AROUND_A_NOTE: list[tuple[str, str]] = [
    (f"{TEA}. You are a fool.[^2]\n\n[^2]: View.\n\n{KETTLE}", f"{TEA}.\n\n{KETTLE}"),
    (f"You are a fool.[^1]\n\n[^1]: View.\n\n{KETTLE}", KETTLE),
    (f"{TEA}. You are a fool [1].\n\nNotes:\n\n[1] View.\n\n{KETTLE}", f"{TEA}.\n\n{KETTLE}"),
    (f"{TEA}. You are a fool [1].\r\n\r\nNotes:\r\n\r\n[1] View.\r\n", f"{TEA}.\r\n"),
    (f"{TEA}. You are a fool.[^1]\n\n[^1]: View.", f"{TEA}."),
    (f"{TEA}.\n\nYou are a fool.[^1]\n\n[^1]: View.\n", f"{TEA}.\n"),
    (f"{TEA}. You are a fool.[^1]\n", f"{TEA}.\n"),
    (f"{TEA}. You are a fool.[^1]\n\n{KETTLE}", f"{TEA}.\n\n{KETTLE}"),
    (f"{TEA}. You are a fool.\u2020 {MORE}.\n\n\u2020 View.", f"{TEA}. {MORE}."),
]
OF_WORDS_GONE: list[tuple[str, str]] = [
    (f"- You are a fool.[^1] {TEA}.\n- {MORE}.\n\n[^1]: View.", f"- {TEA}.\n- {MORE}."),
    (f"> You are a fool.[^1] {TEA}.\n\n{MORE}.\n\n[^1]: View.", f"> {TEA}.\n\n{MORE}."),
    (f"A: You are a fool.[^1] {TEA}.\n\n[^1]: View.", f"A: {TEA}."),
    (f"{TEA}.\n\n| a | You fool[^1] | b[^2] |\n\n[^1]: View.\n[^2]: Tea.", f"{TEA}.\n\n| a | | b[^2] |\n\n[^2]: Tea."),
]
IN_CODE: list[tuple[str, str]] = [
    (
        f"{TEA}.[^1] Run `a[^1]+`:\n\n```sh\ngrep '[^1]' a.txt\n```",
        f"{TEA}. Run `a[^1]+`:\n\n```sh\ngrep '[^1]' a.txt\n```",
    ),
    (f"{TEA}.[^1]\n\n````md\n```\nA [^1].\n```\nB [^1].\n````", f"{TEA}.\n\n````md\n```\nA [^1].\n```\nB [^1].\n````"),
    (f"Use ``b `[^1]` ``, and not `c [^1]`. {TEA}.[^1]", f"Use ``b `[^1]` ``, and not `c [^1]`. {TEA}."),
]


@pytest.mark.parametrize(("answer", "left"), [*WITH_THEIR_NOTES, *UNTOUCHED])
async def test_a_note_goes_with_the_only_sentence_that_refers_to_it(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize(("behind", "left"), BEHIND_A_NOTE)
async def test_a_note_goes_without_the_text_behind_it(behind: str, left: str, line_break: str) -> None:
    texts = await correct_in_all_ways(f"{BEGINNING}{behind}".replace("\n", line_break))
    assert set(texts.values()) == {f"{WITHOUT_NOTE}{left}".replace("\n", line_break)}


@pytest.mark.parametrize(("answer", "left"), [*AROUND_A_NOTE, *OF_WORDS_GONE])
async def test_a_note_leaves_one_break_and_no_title_of_its_own(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


async def test_a_note_goes_although_code_has_its_sign() -> None:
    code = "\n\n```py\nx = y[2]\n```\n\nCall `z[2]`.\n\n"
    answer = f"{TEA} [1]. You are a fool [2].{code}[1] Tea Board.\n[2] My view."
    assert set((await correct_in_all_ways(answer)).values()) == {f"{TEA} [1].{code}[1] Tea Board."}


@pytest.mark.parametrize(("sign", "note"), [("[^1]", "[^1]:"), ("[1]", "[1]")])
@pytest.mark.parametrize(("answer", "left"), IN_CODE)
async def test_a_reference_in_code_stays(answer: str, left: str, sign: str, note: str) -> None:
    texts = await correct_in_all_ways(
        f"{answer}\n\n[^1] You are a fool.".replace("[^1] You", f"{note} You").replace("[^1]", sign)
    )
    assert {texts["whole"], texts["held"]} == {left.replace("[^1]", sign)}


@pytest.mark.parametrize("signs", ['""', "\u201c\u201d", ("**", "**"), "__", "**"])
async def test_a_superscript_number_goes_with_the_signs_before_it(signs: tuple[str, str]) -> None:
    opening, closing = signs
    texts = await correct_in_all_ways(f"{TEA}.\n\n{opening}You fool!{closing}\u00b2 {MORE}. Bye.")
    assert set(texts.values()) == {f"{TEA}.\n\n{MORE}. Bye."}


async def test_a_number_that_the_sentence_needs_is_no_reference() -> None:
    texts = await correct_in_all_ways(f"{TEA}. So is [1] here.\n\n[1] You are a fool.")
    assert set(texts.values()) == {f"{TEA}. So is [1] here."}


@pytest.mark.parametrize(("answer", "left"), WITH_THEIR_REFERENCES)
async def test_a_reference_goes_with_its_note_where_it_has_not_gone_out(answer: str, left: str) -> None:
    texts = await correct_in_all_ways(answer)
    assert {texts["whole"], texts["held"]} == {left}


@pytest.mark.parametrize(("answer", "left"), [*WITH_THEIR_NOTES, *UNTOUCHED, *WITH_THEIR_REFERENCES, *AROUND_A_NOTE])
def test_footnotes_stay_where_nothing_is_removed(answer: str, left: str) -> None:
    for text in (answer, left):
        footnotes = Footnotes()
        pieces = split(text)
        assert "".join(footnotes.settle([piece], (), piece.text + piece.gap) for piece in pieces) == text


@pytest.mark.parametrize(
    ("first", "second"), [("a-b", "c-d"), ("longername", "another_name"), ("1", "see-the-handbook-page-9")]
)
async def test_a_note_may_have_a_label_of_words(first: str, second: str) -> None:
    answer = f"{TEA}.[^{first}] You are a fool.[^{second}] {MORE}.\n\n[^{first}]: Tea Board.\n[^{second}]: My view."
    texts = await correct_in_all_ways(answer)
    assert texts["whole"] == f"{TEA}.[^{first}] {MORE}.\n\n[^{first}]: Tea Board."
    assert {text.rstrip() for text in texts.values()} == {texts["whole"]}


LINKS: list[tuple[str, str]] = [
    (
        f"{TEA}, says [the shop][s]. You are a fool, see [this][View].\n\n[s]: https://shop.example\n[view]: /view",
        f"{TEA}, says [the shop][s].\n\n[s]: https://shop.example",
    ),
    (
        f"{TEA}, says [shop]. You fool [x][a b].\n\n[a b]: <https://x.example>\n[shop]: /s",
        f"{TEA}, says [shop].\n\n[shop]: /s",
    ),
    (f"{TEA} [1]. You fool [a-b].\n\n[a-b]: #view\n[1] Tea.\n", f"{TEA} [1].\n\n[1] Tea.\n"),
    # other words refer to it, it is none, and nobody refers to it
    (f"{TEA} [x][s]. You fool [s].\n\n[s]: https://shop.example", f"{TEA} [x][s].\n\n[s]: https://shop.example"),
    (f"{TEA}. You fool [sic].\n\n[sic]: so it stands.", f"{TEA}.\n\n[sic]: so it stands."),
    (f"{TEA}. You fool [a](/b).\n\n[a]: /c", f"{TEA}.\n\n[a]: /c"),
    (f"{TEA}. You fool.\n\n```md\n[a]: /c\n```", f"{TEA}.\n\n```md\n[a]: /c\n```"),
]


@pytest.mark.parametrize(("answer", "left"), LINKS)
async def test_a_link_is_defined_only_for_words_that_stay(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}


async def test_words_stay_without_the_definition_of_their_link() -> None:
    answer = f"{TEA}, says [shop] and [he][who].\n\n[shop]: https://you-fool.example\n[who]: https://fool.example"
    assert (await correct_in_all_ways(answer))["whole"] == f"{TEA}, says [shop] and [he][who]."
