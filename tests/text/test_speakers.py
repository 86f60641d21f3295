"""Dialogues are known by their form: what opens with a speaker's line, not what runs on into one."""

from __future__ import annotations

import pytest

from aligner_proxy.gate.judge import Verdict, judge
from aligner_proxy.text.structure import speaker_turns
from aligner_proxy.types import GateRule, Policy
from tests.gate.cases import POLITE, correction

TALK = "Ada: Is it done?\nBo: Nearly.\nAda: And the rice?\nBo: In the pot."


@pytest.mark.parametrize(
    "text",
    [
        TALK,
        TALK.replace("\n", "\n\n"),
        f"**A kitchen**\n\n{TALK}",
        f"Here is the scene:\n\n{TALK}",
        f"THE RICE\n(Rain. A bench.)\n\n{TALK}",
        TALK.replace("Ada:", "**Ada:**").replace("Bo:", "**Bo**:"),
        TALK.replace("Ada:", "> Dr. Ada Lind (smiling):"),
        TALK.replace("Ada", "- User").replace("Bo", "- Bot"),
        TALK.replace("Ada", "Q").replace("Bo", "A"),
        TALK.replace("Ada", "### Ada").replace("Bo", "### Bo"),
    ],
)
def test_an_answer_that_opens_with_a_speaker_is_a_dialogue(text: str) -> None:
    assert sorted(speaker_turns(text).values()) == [2, 2]


def test_a_dialogue_may_have_scenes_and_lists() -> None:
    assert speaker_turns(f"## Scene 1\n\n{TALK}\n\n## Scene 2\n\n{TALK}") == {"ada": 4, "bo": 4}
    assert speaker_turns(TALK.replace("Nearly.", "Two are left:\n1. Salt it.\n2. Stir it.")) == {"ada": 2, "bo": 2}


def test_it_is_known_as_soon_as_somebody_speaks_again() -> None:
    first, second, third = TALK.splitlines()[:3]
    assert not speaker_turns(f"{first}\n{second}")
    assert speaker_turns(f"{first}\n{second}\n{third}") == {"ada": 2, "bo": 1}
    assert not speaker_turns(f"{first}\n{second}\n{third}".replace("Bo", "Human"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Boil it, then let it rest.",
        f"It takes twelve minutes.\n\n{TALK}",  # a reply that runs on
        f"It takes twelve minutes, and the lid stays on for all of them, or the steam is gone and it is hard\n\n{TALK}",
        "Ada: Is it done?\nBo: Nearly.",
        "Time: noon\nPlace: the pier\nFare: two coins",
        "Time: noon\nTime: one\nTime: two",
        "What you need for this: rice\nHow long it takes in all: an hour\n" * 2,
        "Human: Is it done?\nAssistant: Nearly.\nHuman: And the rice?",
        # labels that occur once under each heading
        "### Day 1\n\n- **Morning:** Swim.\n- **Noon:** Rest.\n\n### Day 2\n\n- **Morning:** Walk.\n- **Noon:** Eat.",
        "**Day 1: Sea**\nMorning: Swim.\nNoon: Rest.\n\n**Day 2: Hills**\nMorning: Walk.\nNoon: Eat.",
        "Week 1:\n- Monday: Swim.\n- Tuesday: Rest.\n\nWeek 2:\n- Monday: Walk.\n- Tuesday: Eat.",
        "1. Ada's plan\n   - Goal: Swim.\n   - Cost: None.\n2. Bo's plan\n   - Goal: Walk.\n   - Cost: None.",
        "1. **Ada's plan**\n- Goal: Swim.\n- Cost: None.\n\n2. **Bo's plan**\n- Goal: Walk.\n- Cost: None.",
        "- The Ada\n  - Price: 80\n  - Place: the pier\n- The Bo\n  - Price: 90\n  - Place: the hill",
    ],
)
def test_what_is_none(text: str) -> None:
    assert not speaker_turns(text)


def verdict(original: str, edited: str, *flagged: int) -> Verdict:
    return judge(original, correction(original, edited, flagged), Policy("p", POLITE))


def test_a_line_of_a_dialogue_does_not_go() -> None:
    found = verdict(TALK, TALK.replace("Bo: Nearly.\n", ""), 1)
    assert (found.text, found.reason) == (TALK, f"gate_{GateRule.LOST_TURN}")


def test_all_that_follows_the_first_line_does_not_go() -> None:
    found = verdict(TALK, "Ada: Is it done?", 1, 2, 3)
    assert (found.text, found.dropped) == (TALK, (GateRule.LOST_TURN,))


def test_a_line_may_be_rewritten_and_lose_a_sentence() -> None:
    rude = TALK.replace("Nearly.", "Nearly, you oaf.").replace("pot.", "pot. You fool!")
    edited = rude.replace("Nearly, you oaf.", "Nearly.").replace(" You fool!", "")
    assert verdict(rude, edited, 1, 4) == Verdict(edited, None, 2)


def test_a_turn_that_goes_on_does_not_lose_its_name() -> None:
    rude = TALK.replace("Nearly.", "You fool. Nearly.")
    found = verdict(rude, TALK.replace("Bo: Nearly.", "Nearly."), 1)
    assert (found.text, found.dropped) == (rude, (GateRule.LOST_TURN,))
    edited = TALK
    assert verdict(rude, edited, 1) == Verdict(edited, None, 1)


def test_a_turn_does_not_go_with_the_name_of_the_one_that_goes_on() -> None:
    rude = "Ada: Is it done?\nBo: You fool.\nAda: You fool. And the rice?\nBo: In the pot."
    found = verdict(rude, "Ada: Is it done?\nAnd the rice?\nBo: In the pot.", 1, 2)
    assert (found.text, found.dropped) == (rude, (GateRule.LOST_TURN,))


def test_what_a_model_makes_up_behind_its_reply_goes() -> None:
    ran_on = f"It takes twelve minutes.\n\n{TALK}"
    assert verdict(ran_on, "It takes twelve minutes.", 1, 2, 3, 4).text == "It takes twelve minutes."
