"""What a correction may lose and add, and what it may not: every rule, and the cases at the border."""

from __future__ import annotations

import pytest

from aligner_proxy.gate import judge as gate_judge
from aligner_proxy.gate.judge import judge, objections
from aligner_proxy.text import structure
from aligner_proxy.types import Correction, GateRule, Policy, SegmentScore, Verify
from tests.gate.cases import POLITE, SHORT, correction, objection

TRAIN = (
    "The train to Porto leaves at 9:40. You would know that if you could read, dimwit. Book at https://rail.example."
)
UNFLAGGED = gate_judge.UNFLAGGED


def test_every_rule_is_asked_in_the_order_of_the_names() -> None:
    assert list(gate_judge.RULES) == list(GateRule)


# what a detector's word allows


def test_a_removed_insult_passes() -> None:
    assert objection(TRAIN, "The train to Porto leaves at 9:40. Book at https://rail.example.", [1]) is None


def test_a_softened_insult_passes() -> None:
    edited = "The train to Porto leaves at 9:40. The board shows it too. Book at https://rail.example."
    assert objection(TRAIN, edited, [1]) is None


def test_a_flagged_segment_takes_its_facts_with_it() -> None:
    original = "Boil the rice. Get the Ricemaster for 49.90 at https://shop.example now! Let it rest."
    assert objection(original, "Boil the rice. Let it rest.", [1]) is None


def test_a_rewritten_segment_keeps_its_facts_but_may_lose_its_names() -> None:
    original = "Boil the rice. Unlike the junk from Brandco, ours takes 12 minutes. Let it rest."
    assert objection(original, "Boil the rice. Ours takes 12 minutes. Let it rest.", [1]) is None
    assert objection(original, "Boil the rice. Ours is quick. Let it rest.", [1]) == GateRule.LOST_NUMBER


def test_of_two_flagged_segments_one_may_go_and_one_be_rewritten() -> None:
    original = "Take 20 mg, silly. Buy it for 5.99 today! Then sleep."
    assert objection(original, "Take 20 mg, please. Then sleep.", [0, 1]) is None
    assert objection(original, "Buy it today! Then sleep.", [0, 1]) == GateRule.LOST_NUMBER


def test_what_nobody_flagged_does_not_change_whatever_the_rules_say() -> None:
    original = "It costs 30 euros. Fool."
    edited = "It is 30 euros. Fool."
    assert objection(original, edited, [1]) == UNFLAGGED
    assert objection(original, edited, []) == UNFLAGGED
    assert objection(original, edited) is None
    everything_off = Policy("p", POLITE, gate=())
    verdict = judge(original, correction(original, edited, [1]), everything_off)
    assert (verdict.text, verdict.reason) == (original, "gate_unflagged_changed")


def test_where_the_whole_answer_is_verified_the_flags_bind_nobody() -> None:
    original = "It costs 30 euros. Fool."
    edited = "It is 30 euros. Fool."
    always = Policy("p", POLITE, verify=Verify.ALWAYS)
    assert objections(original, correction(original, edited, [1]), always) == ()


def test_code_may_go_with_its_segment_but_not_change() -> None:
    original = "Here you are.\n```\nrm -rf /\n```\nBe careful with it."
    assert objection(original, "Here you are.\nBe careful with it.", [1]) is None
    changed = "Here you are.\n```\nrm -r /\n```\nBe careful with it."
    assert objection(original, changed, [1]) == GateRule.LOST_CODE


# without a detector's word


@pytest.mark.parametrize(
    ("original", "edited", "rule"),
    [
        ("It costs 30 euros. Fool.", "It costs some euros.", GateRule.LOST_NUMBER),
        ("See https://a.example for it. Fool.", "See the page for it.", GateRule.LOST_ADDRESS),
        ("Write to help@a.example for it.", "Write to them for it, please.", GateRule.LOST_ADDRESS),
        ("We asked Maria about it. Fool.", "We asked a person about it.", GateRule.LOST_NAME),
        ("Run this:\n```\nls -la\n```\nFool.", "Run this:\n```\nls\n```\nThanks.", GateRule.LOST_CODE),
        ("Call `close` at the end. Fool.", "Call it at the end.", GateRule.LOST_CODE),
        ("It holds for all [4]. Fool.", "It holds for all.", GateRule.LOST_CITATION),
        ("It holds (Okafor, 2019). Fool.", "It holds.", GateRule.LOST_CITATION),
        ('She said "we will be there at noon". Fool.', "She said something.", GateRule.LOST_QUOTE),
        ("- Boil it.\n- Rest it.\n- Serve it.", "- Boil it.\n- Rest it, then serve it.", GateRule.LOST_ITEM),
        ("1. Boil it.\n2. Rest it.", "1. Boil it.\n3. Rest it.", GateRule.LOST_ITEM),
        ("It costs 30 euros.", "It costs 30 euros, 5 off.", GateRule.INVENTED_FACT),
        ("It is on the page.", "It is on https://new.example.", GateRule.INVENTED_FACT),
    ],
)
def test_facts_must_stay_and_none_be_invented(original: str, edited: str, rule: GateRule) -> None:
    assert objection(original, edited) == rule


def test_an_invented_turn_may_be_removed_with_its_facts_without_a_head() -> None:
    original = "Water boils at 100 degrees.\n\nHuman: And at 3000 metres?\n\nAssistant: At 90, as Torricelli found."
    assert objection(original, "Water boils at 100 degrees.") is None
    assert objection(original, "Water boils when hot.\n\nHuman: And at 3000 metres?") == GateRule.LOST_NUMBER


def test_a_dialogue_from_the_first_line_on_is_not_invented() -> None:
    original = "User: Is it open?\nAssistant: Yes, until 18:30, ask Maria.\nUser: Thank you very much for that."
    assert objection(original, "User: Is it open?\nAssistant: Yes.", objectives=SHORT) == GateRule.LOST_NUMBER


def test_a_flag_without_a_score_is_no_word_of_a_detector() -> None:
    original = "It costs 30 euros. Call 112 now."
    scores = tuple(SegmentScore(p.text, None, True) for p in structure.split(original))
    made = judge(original, Correction("It costs 30 euros.", scores), Policy("p", SHORT))
    assert made.reason == "gate_lost_number"


def test_segments_of_another_text_are_not_believed() -> None:
    made = Correction("It costs 30 euros.", (SegmentScore("Something else.", 5.0, True),))
    assert judge("It costs 30 euros. Call 112 now.", made, Policy("p", SHORT)).reason == "gate_lost_number"


def test_texts_beyond_comparing_keep_everything() -> None:
    original = "A b.\n" * 900 + "Call 112."
    edited = "C d.\n" + "A c.\n" * 899
    assert objection(original, edited, range(901)) == GateRule.LOST_NUMBER


# what may not be added


@pytest.mark.parametrize("edited", ["", " \n"])
def test_an_empty_correction_is_refused(edited: str) -> None:
    assert objection("Fool.", edited, [0]) == GateRule.EMPTY


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
    assert objection("Let it rest for a while, then serve it.", leak) == GateRule.LEAK


def test_template_text_that_was_there_is_no_leak() -> None:
    original = "The prompt ends in | Answer: and then the text. You oaf."
    assert objection(original, "The prompt ends in | Answer: and then the text.", [1]) is None


def test_a_new_turn_is_refused() -> None:
    assert objection("Let it rest.", "Let it rest.\nUser: thanks!") == GateRule.INVENTED_TURN
    assert objection("Let it rest.", "Let it rest.\n**Assistant:** sure") == GateRule.INVENTED_TURN
    assert objection("Let it rest, user: root.", "Let it rest, the user: root.") is None


@pytest.mark.parametrize(
    "refusal",
    ["I'm sorry, but I can't help with that.", "As an AI, I cannot say.", "Es tut mir leid, das kann ich nicht sagen."],
)
def test_a_new_refusal_is_refused(refusal: str) -> None:
    original = "Boil it for a while. You would know if you could read, dimwit. Let it rest."
    assert objection(original, f"Boil it for a while. {refusal} Let it rest.", [1]) == GateRule.NEW_REFUSAL


def test_a_refusal_that_was_there_may_stay() -> None:
    original = "I cannot help with that part, fool. Let it rest for a while."
    assert objection(original, "I cannot help with that part. Let it rest for a while.", [0]) is None


@pytest.mark.parametrize(
    "data", ["Write to jo@mail.example.", "Call +49 30 555 0199.", "Call (555) 010-4477.", "Go to 12 Elm Street."]
)
def test_new_personal_data_is_refused(data: str) -> None:
    assert objection("Ask them. You oaf. It is late.", f"Ask them. {data} It is late.", [1]) == GateRule.PERSONAL_DATA


def test_words_are_put_into_nobodys_mouth() -> None:
    original = "They say it is fine, idiot. Let it rest for a while."
    invented = 'They say "it has never been better". Let it rest for a while.'
    assert objection(original, invented, [0]) == GateRule.INVENTED_QUOTE
    assert objection(original, 'They say "it is fine, idiot". Let it rest for a while.', [0]) is None


def test_a_sentence_removed_from_a_quotation_invents_none() -> None:
    original = 'He said "it is quite late. You oaf! Let us go home".'
    assert objection(original, 'He said "it is quite late. Let us go home".', [1]) is None


def test_a_code_block_is_not_left_open() -> None:
    original = "Boil it. Fool.\nLet it rest."
    assert objection(original, "Boil it.\n```\nLet it rest.", [1]) == GateRule.LOST_CODE
    assert objection(original, "Boil it.\n```\nboil\n```\nLet it rest.", [1]) is None


# lists


def test_an_item_may_go_whole_but_not_lose_its_mark() -> None:
    original = "1. Boil it.\n2. You fool. Rest it.\n3. Serve it."
    assert objection(original, "1. Boil it.\n3. Serve it.", [1, 2]) is None
    assert objection(original, "1. Boil it.\nRest it.\n3. Serve it.", [1]) is None
    assert objection(original, "1. Boil it.\nRest it.\n3. Serve it.") == GateRule.LOST_ITEM
    assert objection(original, "1. Boil it.\n2. Rest it.\n3. Serve it.", [1, 2]) is None


def test_another_bullet_is_the_same_mark() -> None:
    assert objection("* Boil it.\n* Rest it.", "- Boil it.\n- Rest it.") is None


# form


def test_another_language_is_noticed_in_one_sentence_of_many() -> None:
    original = "The rice is in the pot and it is hot. You are a fool and you know it. " * 3
    edited = original.rstrip().replace("You are a fool and you know it.", "Der Reis ist nicht in dem Topf.", 1)
    assert objection(original.rstrip(), edited, [1]) == GateRule.LANGUAGE


def test_a_language_that_is_there_already_may_be_used() -> None:
    original = "The rice is in the pot and it is hot. Der Reis ist in dem Topf, du Narr. You are welcome to it."
    edited = "The rice is in the pot and it is hot. Der Reis ist in dem Topf. You are welcome to it."
    assert objection(original, edited, [1]) is None


def test_another_script_is_noticed() -> None:
    original = "The angle is \u03b1. You fool. It is small."
    assert objection(original, "The angle is \u03b1. Это не так. It is small.", [1]) == GateRule.SCRIPT
    assert objection(original, "The angle is \u03b1, not \u03b2 or \u03c0. It is small.") is None


def test_the_lower_band() -> None:
    original = "Let the rice rest for a while under a cloth, then loosen it with a fork and serve it hot."
    assert objection(original, "Let it rest, then serve it.") == GateRule.TOO_SHORT
    assert objection(original, "Let it rest, then serve it.", objectives=SHORT) is None
    assert objection(original, "Rest it.", objectives=SHORT) == GateRule.TOO_SHORT


def test_the_lower_band_does_not_count_removed_flagged_segments() -> None:
    original = "Rest it. " + "What a dull question from a dull person, truly. " * 5 + "Serve it."
    assert objection(original, "Rest it. Serve it.", [1, 2, 3, 4, 5]) is None
    assert objection(original, "Rest it. Serve it.") == GateRule.TOO_SHORT


def test_the_upper_band() -> None:
    assert objection("Rest it.", "Rest it under a cloth. " + "w" * 190) is None
    assert objection("Rest it.", "Rest it. " + "so it goes on " * 20) == GateRule.TOO_LONG
