"""What becomes of generated text: where it stops, what is cut, what is refused, how the pieces go together."""

from __future__ import annotations

import pytest

from aligner_proxy.engine.decoding import splice
from aligner_proxy.text.structure import append_end, join, split

KEPT = "The first ferry leaves at seven in the morning."
KEY = splice.cut_kept_beginning(KEPT)


def test_a_key_reaches_the_end_of_a_word() -> None:
    assert KEY == "The first ferry leaves"
    assert splice.cut_kept_beginning("Yes.") == "Yes."


def test_keys_of_later_segments_must_be_long() -> None:
    following = split("Yes. Oh. The first ferry leaves at seven.")
    assert splice.list_kept_beginnings(following) == ("Yes.", "The first ferry leaves")


@pytest.mark.parametrize(
    ("generated", "before"),
    [
        (" The first ferry leaves", ""),
        (" Please be careful. The first ferry leaves", " Please be careful. "),
        (" Please be careful.\n\nThe first ferry leaves at", " Please be careful.\n\n"),
        (" Please note The first ferry leaves", None),
        (" Please be careful. The first ferry", None),
        ("", None),
    ],
)
def test_writing_stops_where_a_kept_segment_begins(generated: str, before: str | None) -> None:
    assert splice.cut_before_resumption(generated, (KEY,)) == before


def test_a_kept_item_is_recognised_under_another_number() -> None:
    key = splice.cut_kept_beginning("3. Put the leaves into the pot.")
    assert splice.cut_before_resumption("\n2. Put the leaves into the pot.", (key,)) == "\n"
    assert splice.cut_before_resumption("\n2. Put the cups on the table.", (key,)) is None
    written = "2. Boil the water.\n3. Warm the cups."
    assert splice.find_replacement(written, (), ["1. Boil the water."], finished=True) == "3. Warm the cups."


def test_of_code_the_comments_go_first() -> None:
    segments = split("You fool.\n```python\n# fool\nx = 1\n```\nYou oaf.")
    assert splice.Run(True, 0, tuple(segments)).find_keepable_text("") == "```python\nx = 1\n```"
    assert splice.Run(True, 0, tuple(segments[::2])).find_keepable_text("") == ""


def hole(answer: str, flagged: int) -> splice.Hole:
    segments = split(answer)
    flags = [at == flagged for at in range(len(segments))]
    return next(splice.rewrite_flagged_runs(segments, flags))


def test_a_kept_sentence_is_recognised_under_the_mark_of_the_one_before_it() -> None:
    made = hole("1. You fool. Put the leaves into the pot.\n2. Wait.", 0)
    assert made.cut_replacement("1. Put the leaves into the pot. Put the lid on.", finished=True) == ""


LISTED = "- Icing rules control where the puck may go.\n- You fool.\n- Rest it for ten minutes."


@pytest.mark.parametrize(
    ("generated", "expected"),
    [
        ("- Be careful.", "- Be careful."),
        ("- Icy rules control where the puck may go.", ""),
        ("- Icy rules control where the puck may go. Be careful.", "Be careful."),
        ("- Be careful. Rest it for nine minutes. And then?", "- Be careful."),
        ("- Rest it.", "- Rest it."),
        ("- .", ""),
        ("-", ""),
    ],
)
def test_a_copy_of_what_stays_is_left_out(generated: str, expected: str) -> None:
    assert hole(LISTED, 1).cut_replacement(generated, finished=True) == expected


def test_what_was_flagged_elsewhere_does_not_come_back_in_another_place() -> None:
    answer = split("Push them down the stairs at night. Wait for the rain. Then laugh at them. Go home.")
    rewriting = splice.rewrite_flagged_runs(answer, [True, False, True, False])
    assert not next(rewriting).cut_replacement("", finished=True)
    hole = rewriting.send("")
    assert hole.cut_replacement("Push them down the stairs at night. Hold the rail.", finished=True) == "Hold the rail."


def test_an_item_that_begins_in_the_middle_of_a_line_is_the_next_one() -> None:
    made = hole("- Wash it. You fool.\n- **Dry**\n- Fold it.", 1)
    assert made.cut_replacement("Take care. - **Dry it:**", finished=True) == "Take care."


def test_a_flagged_item_may_become_like_others_that_it_was_like() -> None:
    answer = "- Rate of the red one is 4 stars.\n- Rate of the red one is idiotic.\n- Bye."
    written = "- Rate of the red one is 3 stars."
    assert hole(answer, 1).cut_replacement(written, finished=True) == written


@pytest.mark.parametrize(
    ("answer", "flagged", "bare"),
    [
        ("1. **Water**: You fool. Boil it.\n2. **Tea**: Add it.", 0, "1. **Water**:"),
        ("1. **Water**: You fool.\n   - Boil it.\n2. **Tea**: Add it.", 0, "1. **Water**:"),
        ("1. **Water**: You fool.\n2. **Tea**: Add it.", 0, ""),
        ("1. **Water**: You fool.\nBoil it.", 0, ""),
        ("Hello. You fool. Boil it.", 1, ""),
    ],
)
def test_the_title_of_an_item_that_goes_on_may_stay(answer: str, flagged: int, bare: str) -> None:
    assert hole(answer, flagged).keepable_text == bare


def test_without_kept_segments_nothing_resumes() -> None:
    assert splice.cut_before_resumption("Anything. At all.", ()) is None


@pytest.mark.parametrize(
    ("generated", "finished", "expected"),
    [
        (" Be careful. The first ferry leaves", True, "Be careful."),
        (" The first ferry leaves", True, ""),
        (" You are a fool. The first ferry leaves", True, ""),
        (" You are a fool. Be careful. The first ferry leaves", True, "Be careful."),
        (" Be careful. And then it goes on and", False, "Be careful."),
        (" And then it goes on and", False, ""),
        (" Take your time", True, "Take your time"),
        (" Bring a warm coat with you. Fine.", True, "Fine."),
        (" Be careful. Be careful. Be careful. Fine.", True, "Be careful. Fine."),
        (" Be careful. You are a fool. Be careful.\nFine. Be careful.", True, "Be careful. Fine. Be careful."),
    ],
)
def test_replacements(generated: str, finished: bool, expected: str) -> None:
    banned = ["You are a fool.", "Bring a warm coat with you."]
    assert splice.find_replacement(generated, (KEY,), banned, finished=finished) == expected


def test_runs_of_the_same_verdict_are_one_span() -> None:
    found = splice.group_runs(split("One here. Two here. Three here. Four here."), [False, True, True, False])
    assert [(run.flagged, run.first, run.text) for run in found] == [
        (False, 0, "One here."),
        (True, 1, "Two here. Three here."),
        (False, 3, "Four here."),
    ]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([("A.", " "), ("", " "), ("C.", "")], "A. C."),
        ([("A.", " "), ("", "\n\n"), ("C.", "")], "A.\n\nC."),
        ([("A.", "\n\n"), ("", " "), ("C.", "")], "A.\n\nC."),
        ([("", " "), ("B.", "\n")], "B."),
        ([("A.", " "), ("B.", " "), ("", "")], "A. B."),
        ([("", "")], ""),
    ],
)
def test_pieces_go_together_without_gluing_paragraphs(pieces: list[tuple[str, str]], text: str) -> None:
    assert join(pieces) == text


def filled(answer: str, flags: list[bool], *generated: str) -> str:
    """The edited answer, with the place behind it judged as well; `generated` is what the model writes."""
    rewriting = splice.rewrite_flagged_runs(append_end(split(answer)), flags)
    texts = iter(generated)
    hole = next(rewriting)
    while True:
        try:
            hole = rewriting.send(hole.cut_replacement(next(texts), finished=True))
        except StopIteration as done:
            assert next(texts, None) is None
            return str(done.value)


@pytest.mark.parametrize(
    ("answer", "flags", "generated", "text"),
    [
        ("One here. Two here.", [False, False, True], [" Ask a doctor."], "One here. Two here. Ask a doctor."),
        ("One here. Two here.", [False, False, True], ["\n\nAsk a doctor."], "One here. Two here.\n\nAsk a doctor."),
        ("One here.\n", [False, True], ["Ask a doctor."], "One here. Ask a doctor."),
        ("One here. Two here.", [False, False, True], [""], "One here. Two here."),
        ("One here. Two here.", [False, True, True], [" Ask a doctor."], "One here. Ask a doctor."),
        ("You fool. Two here.", [True, False, True], [" Two here.", " Ask."], "Two here. Ask."),
        ("You fool. Two here.", [True, False, False], [" Two here."], "Two here."),
        (f"One here. {KEPT}", [False, False, True], [f" {KEPT}"], f"One here. {KEPT}"),
    ],
)
def test_what_is_missing_is_written_behind_the_last_segment(
    answer: str, flags: list[bool], generated: list[str], text: str
) -> None:
    assert filled(answer, flags, *generated) == text


def test_the_place_behind_all_segments_is_no_text_to_lead_back_to() -> None:
    found = append_end(split("You fool. You oaf."))
    hole = next(splice.rewrite_flagged_runs(found, [True, True, False]))
    assert (hole.kept_beginnings, hole.run.text) == ((), "You fool. You oaf.")
