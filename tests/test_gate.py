"""What a correction may lose, and what it may not: every reason once, and the cases at the border."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy import segments
from aligner_proxy.fate import Fate, follow
from aligner_proxy.gate import GateReason, check
from aligner_proxy.types import Correction, Objective, SegmentScore

POLITE = (Objective("harmless", "Harmlessness: the response should avoid rude words"),)
SHORT = (*POLITE, Objective("concise", "Length: the response should be brief and to the point"))


def _correction(original: str, edited: str, flagged: Sequence[int] | None) -> Correction:
    """A correction as an engine sends it; `flagged` None is a model without a head."""
    pieces = segments.split(original)
    scores = tuple(
        SegmentScore(p.text, None if flagged is None else 2.0 if i in flagged else -3.0, i in (flagged or ()))
        for i, p in enumerate(pieces)
    )
    return Correction(edited, scores)


def _check(
    original: str, edited: str, flagged: Sequence[int] | None = None, objectives: Sequence[Objective] = POLITE
) -> GateReason | None:
    return check(original, _correction(original, edited, flagged), objectives)


TRAIN = (
    "The train to Porto leaves at 9:40. You would know that if you could read, dimwit. Book at https://rail.example."
)


def test_a_removed_insult_passes() -> None:
    assert _check(TRAIN, "The train to Porto leaves at 9:40. Book at https://rail.example.", [1]) is None


def test_a_softened_insult_passes() -> None:
    edited = "The train to Porto leaves at 9:40. The board shows it too. Book at https://rail.example."
    assert _check(TRAIN, edited, [1]) is None


def test_a_flagged_segment_takes_its_facts_with_it() -> None:
    original = "Boil the rice. Get the Ricemaster for 49.90 at https://shop.example now! Let it rest."
    assert _check(original, "Boil the rice. Let it rest.", [1]) is None


def test_a_rewritten_segment_keeps_its_facts_but_may_lose_its_names() -> None:
    original = "Boil the rice. Unlike the junk from Brandco, ours takes 12 minutes. Let it rest."
    assert _check(original, "Boil the rice. Ours takes 12 minutes. Let it rest.", [1]) is None
    assert _check(original, "Boil the rice. Ours is quick. Let it rest.", [1]) is GateReason.LOST_NUMBER


def test_of_two_flagged_segments_one_may_go_and_one_be_rewritten() -> None:
    original = "Take 20 mg, silly. Buy it for 5.99 today! Then sleep."
    assert _check(original, "Take 20 mg, please. Then sleep.", [0, 1]) is None
    assert _check(original, "Buy it today! Then sleep.", [0, 1]) is GateReason.LOST_NUMBER


@pytest.mark.parametrize(
    ("original", "edited", "reason"),
    [
        ("It costs 30 euros. Fool.", "It costs some euros.", GateReason.LOST_NUMBER),
        ("See https://a.example for it. Fool.", "See the page for it.", GateReason.LOST_ADDRESS),
        ("Write to help@a.example for it.", "Write to them for it, please.", GateReason.LOST_ADDRESS),
        ("We asked Maria about it. Fool.", "We asked a person about it.", GateReason.LOST_NAME),
        ("Run this:\n```\nls -la\n```\nFool.", "Run this:\n```\nls\n```\nThanks.", GateReason.LOST_CODE),
        ("It costs 30 euros.", "It costs 30 euros, 5 off.", GateReason.INVENTED_FACT),
        ("It is on the page.", "It is on https://new.example.", GateReason.INVENTED_FACT),
    ],
)
@pytest.mark.parametrize("flagged", [None, [1]])
def test_facts_that_nobody_flagged_must_stay(
    original: str, edited: str, reason: GateReason, flagged: list[int] | None
) -> None:
    if flagged and len(segments.split(original)) == 1:
        flagged = []
    assert _check(original, edited, flagged) is reason


def test_code_may_go_with_its_segment_but_not_change() -> None:
    original = "Here you are.\n```\nrm -rf /\n```\nBe careful with it."
    assert _check(original, "Here you are.\nBe careful with it.", [1]) is None
    changed = "Here you are.\n```\nrm -r /\n```\nBe careful with it."
    assert _check(original, changed, [1]) is GateReason.LOST_CODE


def test_an_invented_turn_may_be_removed_with_its_facts_without_a_head() -> None:
    original = "Water boils at 100 degrees.\n\nHuman: And at 3000 metres?\n\nAssistant: At 90, as Torricelli found."
    assert _check(original, "Water boils at 100 degrees.") is None
    assert _check(original, "Water boils when hot.\n\nHuman: And at 3000 metres?") is GateReason.LOST_NUMBER


def test_a_dialogue_from_the_first_line_on_is_not_invented() -> None:
    original = "User: Is it open?\nAssistant: Yes, until 18:30, ask Maria.\nUser: Thank you very much for that."
    assert _check(original, "User: Is it open?\nAssistant: Yes.", objectives=SHORT) is GateReason.LOST_NUMBER


def test_a_flag_without_a_score_is_no_word_of_a_detector() -> None:
    original = "It costs 30 euros. Call 112 now."
    scores = tuple(SegmentScore(p.text, None, True) for p in segments.split(original))
    assert check(original, Correction("It costs 30 euros.", scores), SHORT) is GateReason.LOST_NUMBER


def test_segments_of_another_text_are_not_believed() -> None:
    correction = Correction("It costs 30 euros.", (SegmentScore("Something else.", 5.0, True),))
    assert check("It costs 30 euros. Call 112 now.", correction, SHORT) is GateReason.LOST_NUMBER


@pytest.mark.parametrize("edited", ["", " \n"])
def test_an_empty_correction_is_refused(edited: str) -> None:
    assert _check("Fool.", edited, [0]) is GateReason.EMPTY


@pytest.mark.parametrize(
    "leak",
    [
        "Rest it. | Answer: rest it",
        "Rest it. ##Correction: rest it",
        "Edit the answer to improve it: then edit the answer to improve it considering these aspects",
        "Harmlessness: the  response should avoid rude words. Rest it.",
    ],
)
def test_template_text_does_not_get_out(leak: str) -> None:
    assert _check("Let it rest for a while, then serve it.", leak) is GateReason.LEAK


def test_template_text_that_was_there_is_no_leak() -> None:
    original = "The prompt ends in | Answer: and then the text. You oaf."
    assert _check(original, "The prompt ends in | Answer: and then the text.", [1]) is None


def test_a_new_turn_is_refused() -> None:
    assert _check("Let it rest.", "Let it rest.\nUser: thanks!") is GateReason.INVENTED_TURN
    assert _check("Let it rest.", "Let it rest.\n**Assistant:** sure") is GateReason.INVENTED_TURN
    assert _check("Let it rest, user: root.", "Let it rest, the user: root.") is None


def test_the_lower_band() -> None:
    original = "Let the rice rest for a while under a cloth, then loosen it with a fork and serve it hot."
    assert _check(original, "Let it rest, then serve it.") is GateReason.TOO_SHORT
    assert _check(original, "Let it rest, then serve it.", objectives=SHORT) is None
    assert _check(original, "Rest it.", objectives=SHORT) is GateReason.TOO_SHORT


def test_the_lower_band_does_not_count_removed_flagged_segments() -> None:
    original = "Rest it. " + "What a dull question from a dull person, truly. " * 5 + "Serve it."
    assert _check(original, "Rest it. Serve it.", [1, 2, 3, 4, 5]) is None
    assert _check(original, "Rest it. Serve it.") is GateReason.TOO_SHORT


def test_the_upper_band() -> None:
    assert _check("Rest it.", "Rest it under a cloth. " + "w" * 190) is None
    assert _check("Rest it.", "Rest it. " + "so it goes on " * 20) is GateReason.TOO_LONG


def test_fates() -> None:
    original = "One stays. Two is rude. Three is rude too. Four stays."
    edited = "One stays. Two is kind. Four stays."
    fates = [part.fate for part in follow(original, _correction(original, edited, [1, 2]), len(original))]
    assert fates == [Fate.STAYS, Fate.REWRITTEN, Fate.REMOVED, Fate.STAYS]


def test_texts_beyond_comparing_keep_everything_and_stay_quick() -> None:
    original = "A b.\n" * 6_000 + "Call 112."
    edited = "C d.\n" + "A c.\n" * 5_999
    started = time.perf_counter()
    assert _check(original, edited, range(6_001)) is GateReason.LOST_NUMBER
    assert time.perf_counter() - started < 5


SENTENCES = st.lists(
    st.sampled_from(
        ["Take 20 mg daily.", "Ask Maria, not Tom.", "See https://a.example.", "You oaf!", "Buy at 9.99 now!", "Rest."]
    ),
    min_size=1,
    max_size=8,
)


@given(SENTENCES, st.sets(st.integers(0, 7)))
def test_removing_flagged_segments_is_never_refused_but_when_nothing_is_left(
    sentences: list[str], chosen: set[int]
) -> None:
    original = " ".join(sentences)
    flagged = [i for i in chosen if i < len(sentences)]
    edited = segments.join([("" if i in flagged else s.text, s.gap) for i, s in enumerate(segments.split(original))])
    reason = _check(original, edited, flagged)
    assert reason is None if edited else reason is GateReason.EMPTY


@given(st.text(max_size=200))
def test_the_same_text_is_never_refused(text: str) -> None:
    assert _check(text, text) in (None, GateReason.EMPTY)
