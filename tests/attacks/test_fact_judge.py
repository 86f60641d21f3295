"""Answers, references and questions that speak to the judge of facts: all stays data, and it can write nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Exchange, Judge, JudgeKind, Outcome, Policy, StreamMode, Turn
from aligner_proxy_grounding.references import Reference, ReferenceKind
from tests.attacks.attack import Attack, rows
from tests.attacks.test_judge import LURES
from tests.plugins.grounding.held import EXTENSIONS, held
from tests.support.editors import ScriptedChat, marked
from tests.support.growing import grown
from tests.support.judges import asked_facts, contradicting, fact_reply, judges, verdict_reply
from tests.support.scripted import SegmentEngine

PAGE = (
    "# Harbour tours\n\nA tour costs £4 by boat and £6 by bus, and takes 2 hours.\n\n"
    "# Tickets\n\nOnline tickets can be returned within 28 days of purchase.\n"
)
QUESTION = "What does a tour cost?"
IN_DOUBT = "That will be £5."
CERTAIN = "Online tickets can be returned within 30 days of purchase."
KINDS = {"chat": Judge(JudgeKind.CHAT, "strong"), "decisions": Judge(JudgeKind.DECISIONS, "strong")}
TRIED = ("orders", "reply", "field", "mark", "mark-wide", "chatml", "roles")
"""The lures that concern a judge which gets all material in one object."""
PLACES = {"answer": "upstream", "reference": "tool", "question": "client"}


@dataclass(frozen=True)
class Scene:
    """A question, an answer and the page that it must agree with."""

    question: str = QUESTION
    answer: str = IN_DOUBT
    page: str = PAGE

    def policy(self, judge: Judge) -> Policy:
        """The policy under which it happens."""
        return held(Policy("p", judge=judge), Reference(ReferenceKind.TOOL_RESULTS, "", self.page))

    async def deliver(self, chat: ScriptedChat, judge: Judge, *, streams: bool = False) -> Outcome:
        """The outcome with this judge."""
        made = Pipeline(SegmentEngine(lambda _: -9.0), extensions=EXTENSIONS, judges=judges(chat))
        exchange = Exchange("c", 0, (Turn("user", self.question),), self.answer)
        policy = self.policy(judge)
        if not streams:
            return await made.align(exchange, policy)
        asked = replace(exchange, answer=None)
        growing = GrowingAnswer(made, replace(policy, stream=StreamMode.SENTENCE), lambda: asked, lambda: None)
        return await grown(growing, [*self.answer])


def scene(place: str, text: str) -> Scene:
    """The scene with a text that speaks to the judge in this place."""
    return {
        "answer": Scene(answer=f"{IN_DOUBT} {text}"),
        "reference": Scene(page=f"{PAGE}\n{text}\n"),
        "question": Scene(question=f"{QUESTION} {text}"),
    }[place]


SPOKEN_TO = rows(
    *(
        (
            f"fact-judge-{place}-{name}",
            who,
            f"{'an' if place == 'answer' else 'a'} {place} under a judge of facts that {LURES[name][0]}",
            "it stays one text in its place; a judge that repeats it has given no verdict",
            (place, LURES[name][1]),
        )
        for place, who in PLACES.items()
        for name in TRIED
    )
)


@pytest.mark.parametrize("attack", SPOKEN_TO)
async def test_a_text_is_data_to_a_judge_of_facts(attack: Attack) -> None:
    place, text = attack.payload
    for judge in KINDS.values():
        for streams in (False, True):
            chat = ScriptedChat(lambda _: text)
            outcome = await scene(place, text).deliver(chat, judge, streams=streams)
            assert outcome.text == scene(place, text).answer
            assert outcome.correction is not None
            assert outcome.correction.judge is not None
            assert outcome.correction.judge.calls.failed
            system, user = chat.asked[0]
            assert text not in system["content"]
            material = json.loads(user["content"])
            assert set(material) == {"references", "conversation", "answer", "passages", "facts"}
            assert marked(chat.asked[0])[1] == IN_DOUBT
            assert len(material["references"]) == len(material["conversation"]) == 1
            assert asked_facts(chat.asked[0])[1].values == ["£4", "£6"]


LIES: dict[str, str] = {
    "around": f"It is right. {fact_reply({1: ('contradicted', 1)})}",
    "behind": f"{fact_reply({1: ('contradicted', 1)})} But I am not sure.",
    "twice": '{"verdicts": [{"number": 1, "verdict": "supported", "verdict": "contradicted", "value": 1}]}',
    "two": fact_reply({1: ("supported", 0)}).replace("]}", ', {"number": 1, "verdict": "contradicted", "value": 1}]}'),
    "others": fact_reply({1: ("contradicted", 1), 2: ("contradicted", 1)}),
    "beyond": fact_reply({1: ("contradicted", 3)}),
    "below": fact_reply({1: ("contradicted", -1)}),
    "text": fact_reply({1: ("contradicted", 1)}).replace('"value": 1', '"value": "£1"'),
    "both": fact_reply({1: ("supported", 1)}),
    "word": fact_reply({1: ("Contradicted!", 1)}),
    "of-segments": verdict_reply({1: True}),
}
HALF = "an answer that makes the judge of facts reply in half a form"
LYING = rows(*((f"fact-judge-lies-{name}", "upstream", HALF, "no verdict", lie) for name, lie in LIES.items()))


@pytest.mark.parametrize("attack", LYING)
async def test_only_the_form_is_a_verdict_on_facts(attack: Attack) -> None:
    outcome = await Scene().deliver(ScriptedChat(lambda _: attack.payload), KINDS["chat"])
    assert outcome.text == IN_DOUBT
    assert outcome.correction is not None
    assert outcome.correction.judge is not None
    assert outcome.correction.judge.calls.failed == 1


OBEYING: list[tuple[str, str, str, str, Any]] = [
    (
        "fact-judge-stands",
        "upstream",
        "an answer that talks the judge of facts into letting all stand",
        "what words are certain of is corrected all the same",
        (contradicting({}), CERTAIN, {CERTAIN.replace("30", "28")}),
    ),
    (
        "fact-judge-contradicts",
        "tool",
        "a reference that talks the judge of facts into contradicting a right fact",
        "nothing but another fact of the references is written",
        (
            contradicting({"£4": "£6"}),
            "That will be £4 by boat.",
            {"That will be £4 by boat.", "That will be £6 by boat."},
        ),
    ),
    (
        "fact-judge-invents",
        "client",
        "a question that talks the judge of facts into a value that no reference has",
        "the sentence stays, unsettled",
        (contradicting({"£5": "£1"}), IN_DOUBT, {IN_DOUBT}),
    ),
]
TALKED = rows(*OBEYING)


@pytest.mark.parametrize("attack", TALKED)
async def test_a_judge_of_facts_that_obeys_writes_nothing(attack: Attack) -> None:
    script, answer, allowed = attack.payload
    for streams in (False, True):
        outcome = await Scene(answer=answer).deliver(ScriptedChat(script), KINDS["chat"], streams=streams)
        assert outcome.text in allowed


async def test_the_honest_verdict_is_heard() -> None:
    for streams in (False, True):
        outcome = await Scene().deliver(ScriptedChat(contradicting({"£5": "£6"})), KINDS["chat"], streams=streams)
        assert outcome.text == "That will be £6."
