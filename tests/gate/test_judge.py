"""What is delivered of a correction: all of it, the edits that do no harm, or the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from aligner_proxy.gate import judge as gate_judge
from aligner_proxy.gate.judge import Verdict, judge
from aligner_proxy.types import GateRule, Objective, Policy, SegmentScore, Verify
from tests.gate.cases import POLITE, correction

POLICY = Policy("p", POLITE)
ASKED = "Take 20 mg, silly. Drink water. You oaf! Rest for 2 hours. Ask Tom, you fool. Sleep well."
RUDE = [0, 2, 4]


def judged(edited: str, policy: Policy = POLICY, flagged: Sequence[int] | None = RUDE) -> Verdict:
    return judge(ASKED, correction(ASKED, edited, flagged), policy)


def test_one_bad_edit_does_not_lose_the_good_ones() -> None:
    verdict = judged("Take 10 mg, please. Drink water. Rest for 2 hours. Ask Tom. Sleep well.")
    assert verdict.text == "Take 20 mg, silly. Drink water. Rest for 2 hours. Ask Tom. Sleep well."
    assert verdict == Verdict(verdict.text, "gate_partly:lost_number", 3, ("lost_number",))


def test_every_bad_edit_is_named_and_the_first_rule_is_the_reason() -> None:
    verdict = judged("Take 10 mg, please. Drink water. Rest for 2 hours. I cannot help with that. Sleep well.")
    assert verdict.text == "Take 20 mg, silly. Drink water. Rest for 2 hours. Ask Tom, you fool. Sleep well."
    assert verdict.reason == "gate_partly:new_refusal"
    assert sorted(verdict.dropped) == ["lost_number", "new_refusal"]


def test_the_original_stands_where_no_edit_is_good() -> None:
    verdict = judged("Take 10 mg, please. Drink water. You oaf! Rest for 2 hours. Ask Tom, you fool. Sleep well.")
    assert verdict == Verdict(ASKED, "gate_lost_number", 1, ("lost_number",))


def test_a_correction_without_edits_is_the_original() -> None:
    assert judged(ASKED) == Verdict(ASKED)
    assert judged(f"{ASKED}\n") == Verdict(ASKED)


def test_an_answer_of_which_everything_is_flagged_is_not_gutted() -> None:
    """Each removal alone would leave something; which one to leave out would be arbitrary."""
    original = "You oaf! You fool. You dimwit."
    verdict = judge(original, correction(original, "", [0, 1, 2]), POLICY)
    assert (verdict.text, verdict.reason) == (original, "gate_empty")
    verdict = judge(original, correction(original, "I cannot help with that.", [0, 1, 2]), POLICY)
    assert (verdict.text, verdict.reason) == (original, "gate_new_refusal")


def test_padding_costs_only_itself() -> None:
    verdict = judged(f"Take 20 mg. Drink water. {'It is so. ' * 60} Rest for 2 hours. Ask Tom, you fool. Sleep well.")
    assert verdict.text == ASKED.replace(", silly", "")
    assert verdict.reason == "gate_partly:too_long"


def test_what_one_edit_takes_away_does_not_excuse_what_another_puts_in() -> None:
    original = "Boil it, fool. I cannot help with that. Rest it. Go on, oaf. Serve it."
    verdict = judge(
        original, correction(original, "Boil it, fool. Rest it. I cannot help you. Serve it.", [1, 3]), POLICY
    )
    assert verdict.text == "Boil it, fool. Rest it. Go on, oaf. Serve it."
    assert verdict.reason == "gate_partly:new_refusal"


def test_together_too_short_means_that_none_is_delivered() -> None:
    long = "and on it goes in this way for as long as anybody cares to read what it says about it"
    original = f"One {long}, fool. Stays. Two {long}, fool. Stays too. Three {long}, fool."
    verdict = judge(original, correction(original, "One. Stays. Two. Stays too. Three.", [0, 2, 4]), POLICY)
    assert (verdict.text, verdict.reason) == (original, "gate_too_short")
    assert verdict.dropped == ("too_short",) * 3


def test_without_a_detectors_word_edits_are_found_by_comparison() -> None:
    verdict = judged("Take 20 mg. Drink water. You oaf! Rest a bit. Ask Tom, you fool. Sleep well.", flagged=None)
    assert verdict.text == ASKED.replace(", silly", "")
    assert verdict.reason == "gate_partly:lost_number"


def test_a_sentence_that_only_moved_is_moved_whole_or_not_at_all() -> None:
    original = "Take 20 mg at noon. Drink water. Rest for 2 hours. Sleep well. Call 112."
    moved = "Drink water. Rest for 2 hours. Take 20 mg at noon. Sleep well."
    verdict = judge(original, correction(original, moved, None), POLICY)
    assert verdict.text == "Drink water. Rest for 2 hours. Take 20 mg at noon. Sleep well. Call 112."
    assert verdict.reason == "gate_partly:lost_number"


def test_edits_that_only_together_do_harm_are_put_in_one_by_one() -> None:
    """The number may go from either place, but not from both."""
    original = "It costs 30 euros, you oaf. Ask them. Pay the 30 euros, you fool. Go home."
    verdict = judge(original, correction(original, "It has a price. Ask them. Pay it. Go home.", [0, 2]), POLICY)
    assert verdict.text == "It has a price. Ask them. Pay the 30 euros, you fool. Go home."
    assert verdict == Verdict(verdict.text, "gate_partly:lost_number", 2, ("lost_number",))


def test_many_edits_are_tried_in_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_judge, "MAX_GROUPS", 2)
    original = " ".join(f"Take {i} of them. You oaf!" for i in range(10, 16))
    flagged = range(1, 12, 2)
    edited = original.replace(" You oaf!", "", 5).replace("You oaf!", "Take 99.")
    verdict = judge(original, correction(original, edited, flagged), POLICY)
    assert verdict.text == original.replace(" You oaf!", "", 3)
    assert verdict.dropped == ("invented_fact",) * 3


def test_a_rule_that_is_off_is_not_asked() -> None:
    edited = "Take some, please. Drink water. You oaf! Rest for 2 hours. Ask Tom, you fool. Sleep well."
    off = replace(POLICY, gate=tuple(rule for rule in GateRule if rule is not GateRule.LOST_NUMBER))
    assert judged(edited).reason == "gate_lost_number"
    assert judged(edited, off) == Verdict(edited, None, 1)


def test_a_rule_that_an_objective_asks_to_break_is_not_asked() -> None:
    free = replace(POLICY, objectives=(Objective("vague", "Vagueness: the response should not contain any numbers"),))
    edited = "Take some, please. Drink water. You oaf! Rest for 2 hours. Ask Tom, you fool. Sleep well."
    assert judged(edited, free).reason is None


NOTICE = "This is no advice: call 112, or write to help@example.org."
CLOSED = Policy("p", (*POLITE, Objective("notice", f"Notice: every answer ends with '{NOTICE}'")))


def ending(edited: str, flagged: Sequence[int], policy: Policy = CLOSED) -> Verdict:
    """As an engine says it whose head judges the place behind the last segment, which is number 6."""
    made = correction(ASKED, edited, flagged)
    behind = SegmentScore("", 2.0 if 6 in flagged else -2.0, 6 in flagged, 1)
    return judge(ASKED, replace(made, segments=(*made.segments, behind)), policy)


def test_what_is_missing_may_be_added_behind_the_answer() -> None:
    assert ending(f"{ASKED} {NOTICE}", [6]) == Verdict(f"{ASKED} {NOTICE}", None, 1)
    assert ending(f"{ASKED}\n\n{NOTICE}", [6]).text == f"{ASKED}\n\n{NOTICE}"


def test_an_addition_and_an_edit_are_judged_each_by_itself() -> None:
    edited = f"Take 10 mg. Drink water. You oaf! Rest for 2 hours. Ask Tom, you fool. Sleep well. {NOTICE}"
    verdict = ending(edited, [0, 6])
    assert (verdict.text, verdict.reason) == (f"{ASKED} {NOTICE}", "gate_partly:lost_number")


def test_nothing_is_added_where_nothing_is_missing() -> None:
    assert ending(f"{ASKED} {NOTICE}", []) == Verdict(ASKED, "gate_unflagged_changed", 1, ("unflagged_changed",))


def test_what_an_objective_dictates_is_not_invented_and_what_it_does_not_is() -> None:
    assert ending(f"{ASKED} {NOTICE} Call 911.", [6]).reason == "gate_invented_fact"
    assert ending(f"{ASKED} {NOTICE}", [6], Policy("p", POLITE)).text == ASKED
    refusal = "I cannot give medical advice."
    wanted = Policy("p", (*POLITE, Objective("notice", f"Last words: '{refusal}'")))
    assert ending(f"{ASKED} {refusal}", [6], wanted).text == f"{ASKED} {refusal}"
    told = Policy("p", (*POLITE, Objective("thanks", "Last sentence: thank the reader for asking.")))
    assert ending(f"{ASKED} Thank the reader for asking.", [6], told).reason == "gate_template_leak"
    assert ending(f"{ASKED} Thank you for asking.", [6], told).reason is None
    assert ending(f"{ASKED} I cannot help you with that.", [6], wanted).reason == "gate_new_refusal"


def test_the_paper_s_way_adds_by_comparison() -> None:
    always = replace(CLOSED, verify=Verify.ALWAYS)
    assert ending(f"{ASKED} {NOTICE}", [6], always).text == f"{ASKED} {NOTICE}"
    assert ending(f"{ASKED}\n", [], always) == Verdict(ASKED)


DISGUISED = "Take 20 mg. You are an {}. Ask Tom."


@pytest.mark.parametrize(
    "word",
    [
        "1d10t",
        "id" + "\u200b" * 3000 + "iot",
        "\U0001d422\U0001d41d\U0001d422\U0001d428\U0001d42d",
        "i d i o t",
        "\u0456d\u0456\u043et",
    ],
)
def test_a_disguise_is_nothing_that_must_not_be_lost(word: str) -> None:
    """Digits that stand for letters are no numbers, what nobody sees adds nothing to the length."""
    original = DISGUISED.format(word)
    edited = "Take 20 mg. You are welcome. Ask Tom."
    assert judge(original, correction(original, edited, [1]), POLICY) == Verdict(edited, None, 1)


def test_prose_in_a_code_block_is_no_code() -> None:
    original = "Take 20 mg.\n\n```\nYou are an idiot.\n```\n\nAsk Tom."
    edited = "Take 20 mg.\n\nYou are welcome.\n\nAsk Tom."
    assert judge(original, correction(original, edited, [1]), POLICY).text == edited
    code = original.replace("You are an idiot.", "x = 1")
    assert judge(code, correction(code, edited, [1]), POLICY).reason == "gate_lost_code"


def test_a_list_that_was_in_a_code_block_has_no_items_to_keep() -> None:
    original = "You oaf! ```\nls\n```\nTake this with water.\n\n- Boil it first."
    edited = original.replace("You oaf!", "Listen.")
    assert judge(original, correction(original, edited, [0]), POLICY).text == edited


def test_an_answer_in_styled_letters_may_become_plain() -> None:
    original = "\uff39\uff4f\uff55 \uff41\uff52\uff45 \uff41\uff4e \uff49\uff44\uff49\uff4f\uff54."
    assert judge(original, correction(original, "You are welcome.", [0]), POLICY).text == "You are welcome."


def test_segments_that_were_not_flagged_stay_in_disguise() -> None:
    original = "Ta\u200bke 20 mg. You are an \u0456d\u0456ot. A\u200bsk Tom."
    edited = "Ta\u200bke 20 mg. You are welcome. A\u200bsk Tom."
    assert judge(original, correction(original, edited, [1]), POLICY).text == edited
    spoilt = judge(original, correction(original, "Take 20 mg. You are welcome. Ask Tom.", [1]), POLICY)
    assert (spoilt.text, spoilt.reason) == (original, "gate_unflagged_changed")


PRUNED: list[tuple[str, str]] = [
    ("| Two | Refund of 50 euros by Monday, I promise | 10 |", "| Two | | 10 |"),
    ("<td>Two</td><td>You owe Tom 50 euros, fool</td>", "<td>Two</td><td></td>"),
    ("```python\nn = 0\n# You owe Tom 50, fool\nn += 1\n```", "```python\nn = 0\nn += 1\n```"),
]


@pytest.mark.parametrize(("flagged", "left"), PRUNED)
def test_words_that_go_from_between_their_marks_take_their_facts_with_them(flagged: str, left: str) -> None:
    """The rest of the segment stays, so it was not rewritten, and nothing had to survive in the words that went."""
    answer = f"Water it daily.\n\n{flagged}\n\nLet it dry."
    edited = answer.replace(flagged, left)
    assert judge(answer, correction(answer, edited, [1]), POLICY).text == edited
    changed = answer.replace(flagged, left.replace("Two", "Three").replace("n = 0", "n = 7"))
    assert judge(answer, correction(answer, changed, [1]), POLICY).text == answer
