"""What references leave in doubt is an editor's to decide, and only among what the references say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.errors import CorrectionError, EngineUnavailable, QuotaSpent
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import (
    JsonStrings,
    Mode,
    Objective,
    Outcome,
    Policy,
    Status,
    StreamMode,
    Turn,
)
from aligner_proxy_grounding.quoting import REFERENCE_CHARS
from tests.plugins.grounding.held import ASKED, DOUBTFUL, EXTENSIONS, FILE, PAGE, held
from tests.support.editors import Script, ScriptedChat, editors, marked, repairing, replying
from tests.support.growing import grown
from tests.support.scripted import SegmentEngine

POLICY = held(Policy("p", editor="model:strong"), FILE)
KIND = replace(POLICY, objectives=(Objective("kind", "Kind: no insults"),))
IN_PAPER = repairing(lambda text: text.replace("£5", "£4"))
BOTH = repairing(lambda text: text.replace("£5", "£4").replace("30 days", "28 days"))


def pipeline(chat: ScriptedChat) -> Pipeline:
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: "")
    return Pipeline(engine, extensions=EXTENSIONS, editors=editors(chat))


async def corrected(script: Script, answer: str = DOUBTFUL, policy: Policy = POLICY) -> Outcome:
    return await pipeline(ScriptedChat(script)).align(replace(ASKED, answer=answer), policy)


async def test_the_editor_reads_the_reference_and_puts_the_fact_right() -> None:
    chat = ScriptedChat(IN_PAPER)
    outcome = await pipeline(chat).align(replace(ASKED, answer=DOUBTFUL), POLICY)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Gladly. That will be £4.")
    assert [(edit.start, edit.text, edit.source) for edit in outcome.findings] == [(21, "£4", "POLICY.md:7")]
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert (outcome.correction.editor.calls, outcome.correction.editor.refused) == (1, 0)
    (messages,) = chat.asked
    assert marked(messages) == {1: "That will be £5."}
    shown = json.loads(messages[-1]["content"])["references"]
    assert shown[0]["name"] == "POLICY.md"
    assert "7 Wrapping a present costs £4 in paper" in shown[0]["text"]


async def test_all_that_may_be_otherwise_is_asked_in_one_call() -> None:
    answer = f"{DOUBTFUL} Online orders can be returned within 30 days of delivery. Vouchers are valid for 3 years."
    chat = ScriptedChat(BOTH)
    outcome = await pipeline(chat).align(replace(ASKED, answer=answer), POLICY)
    assert outcome.text == answer.replace("£5", "£4").replace("30", "28")
    assert [edit.text for edit in outcome.findings] == ["£4", "28 days"]
    assert [len(marked(messages)) for messages in chat.asked] == [2]


async def test_an_editor_that_copies_back_does_not_overrule_words_that_are_certain() -> None:
    certain = "Online orders can be returned within 30 days of delivery."
    less_certain = "We wrap it for £5."
    for answer, right in ((certain, certain.replace("30", "28")), (less_certain, less_certain.replace("5", "4"))):
        assert (await corrected(IN_PAPER, answer, replace(POLICY, editor="local"))).text == right
    copied = repairing(lambda text: text)
    assert (await corrected(copied, less_certain)).text == less_certain
    outcome = await corrected(copied, f"{DOUBTFUL} {certain}")
    assert outcome.text == f"{DOUBTFUL} {certain}".replace("30", "28")
    assert [(edit.start, edit.text) for edit in outcome.findings] == [(62, "28 days")]


async def test_what_an_editor_writes_overrules_words_that_are_certain() -> None:
    certain = "Online orders can be returned within 30 days of delivery."
    outcome = await corrected(repairing(lambda text: text.replace("30 days", "3 years")), certain)
    assert outcome.text == "Online orders can be returned within 3 years of delivery."


@pytest.mark.parametrize("held", [False, True])
async def test_in_streams_words_that_are_certain_stand_where_the_editor_copies_back(held: bool) -> None:
    answer = f"{DOUBTFUL} Online orders can be returned within 30 days of delivery. Bye."
    policy = replace(POLICY, stream=StreamMode.SENTENCE)
    chat = ScriptedChat(repairing(lambda text: text))
    made = GrowingAnswer(pipeline(chat), policy, lambda: ASKED, lambda: None, hold_until_end=held)
    outcome = await grown(made, [*answer])
    assert outcome.text == answer.replace("30", "28")
    assert [(edit.start, edit.text) for edit in outcome.findings] == [(62, "28 days")]


async def test_a_statement_of_the_form_that_shares_a_word_is_asked_about() -> None:
    chat = ScriptedChat(repairing(lambda text: text.replace("2 years", "3 years")))
    asked = replace(ASKED, turns=(Turn("user", "Until when can I use my gift coupon?"),), answer="It runs for 2 years.")
    outcome = await pipeline(chat).align(asked, POLICY)
    assert outcome.text == "It runs for 3 years."


@pytest.mark.parametrize("editor", ["local", "model:strong"])
@pytest.mark.parametrize("contact", ["+45 33 12 80 44", "help@other.example", "www.other.example"])
async def test_contact_data_that_no_reference_has_is_unsettled(contact: str, editor: str) -> None:
    # an editor that cannot be reached leaves what words say
    policy = replace(POLICY, editor=editor)
    outcome = await corrected(lambda _: EngineUnavailable("away"), f"Reach us at {contact}.", policy)
    assert [(one.source, one.is_replaced) for one in outcome.findings] == [("POLICY.md", False)]
    assert outcome.text == f"Reach us at {contact}."


async def test_a_sentence_that_the_editor_leaves_is_settled() -> None:
    outcome = await corrected(repairing(lambda text: text))
    assert (outcome.status, outcome.text, outcome.findings_record) == (Status.UNCHANGED, DOUBTFUL, {})


@pytest.mark.parametrize(
    "written",
    [
        "That will be £3.99.",
        "That will be £4, you fool.",
        "That will be £4. Call 555-0142.",
        "It costs £4 in paper.",
        "That will be 4 weeks.",
        "Ignore it.",
    ],
)
async def test_nothing_but_facts_of_the_references_is_taken(written: str) -> None:
    outcome = await corrected(repairing(lambda _: written))
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, DOUBTFUL)
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert outcome.correction.editor.refused == 1
    assert [one.source for one in outcome.findings if not one.is_replaced] == ["POLICY.md:7"]


@pytest.mark.parametrize(
    "reply", [EngineUnavailable("away"), QuotaSpent("nothing left", 1.0), "I cannot help with that.", ""]
)
async def test_where_the_editor_cannot_be_asked_the_answer_stays(reply: CorrectionError | str) -> None:
    outcome = await corrected(lambda _: reply)
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, DOUBTFUL)
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert (outcome.correction.editor.calls, outcome.correction.editor.failed) == (0, 1)


@pytest.mark.parametrize("reply", [EngineUnavailable("away"), "nonsense"])
async def test_where_the_editor_cannot_be_asked_words_decide_as_without_one(reply: CorrectionError | str) -> None:
    answer = "We wrap it for £5."
    alone = await corrected(IN_PAPER, answer, replace(POLICY, editor="local"))
    assert alone.text == "We wrap it for £4."
    asked = await corrected(repairing(lambda text: text.replace("£5", "£6")), answer)
    assert asked.text == "We wrap it for £6."
    assert (await corrected(lambda _: reply, answer)).text == alone.text


async def test_an_editor_that_is_late_leaves_time_for_words_to_decide() -> None:
    class SlowChat(ScriptedChat):
        async def ask(self, messages: Sequence[Mapping[str, str]], **told: Any) -> Reply:
            await asyncio.sleep(60)
            raise AssertionError("waited for")

    policy = replace(POLICY, deadline_s=0.4)
    outcome = await pipeline(SlowChat(IN_PAPER)).align(replace(ASKED, answer="We wrap it for £5."), policy)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "We wrap it for £4.")
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert outcome.correction.editor.failed == 1


async def test_a_text_of_a_json_answer_is_one_to_ask_about() -> None:
    policy = replace(POLICY, json_strings=JsonStrings.CORRECT)
    chat = ScriptedChat(IN_PAPER)
    said = {"reply": "We wrap it for £5. Have a good day, and come again.", "price": 5}
    outcome = await pipeline(chat).align(replace(ASKED, answer=json.dumps(said)), policy)
    assert json.loads(outcome.text or "") == said | {"reply": "We wrap it for £4. Have a good day, and come again."}
    assert len(chat.asked) == 1


@pytest.mark.parametrize(
    "answer",
    ["Online orders can be returned within 28 days of delivery.", "Vouchers are valid for 3 years.", "Gladly!"],
)
async def test_where_nothing_is_in_doubt_nobody_is_called(answer: str) -> None:
    chat = ScriptedChat(IN_PAPER)
    await pipeline(chat).align(replace(ASKED, answer=answer), POLICY)
    assert chat.asked == []


async def test_without_an_editor_doubts_stay() -> None:
    outcome = await corrected(IN_PAPER, policy=replace(POLICY, editor="local"))
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, DOUBTFUL)


async def test_an_insult_and_a_doubt_are_two_calls_on_one_account() -> None:
    def script(messages: list[dict[str, str]]) -> str:
        return replying(
            {number: "" if "fool" in text else text.replace("£5", "£6") for number, text in marked(messages).items()}
        )

    outcome = await corrected(script, f"{DOUBTFUL} You fool.", KIND)
    assert outcome.text == "Gladly. That will be £6."
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert outcome.correction.editor.calls == 2


async def test_the_mark_of_a_list_item_is_not_the_editors_to_write() -> None:
    outcome = await corrected(IN_PAPER, "For your present:\n\n1. That will be £5.\n2. Bring it in.")
    assert outcome.text == "For your present:\n\n1. That will be £4.\n2. Bring it in."


async def test_shadow_mode_says_what_would_go_out() -> None:
    outcome = await corrected(IN_PAPER, policy=replace(POLICY, mode=Mode.SHADOW))
    assert (outcome.text, outcome.edited) == (DOUBTFUL, "Gladly. That will be £4.")


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("policy", [POLICY, KIND])
async def test_streams_ask_before_the_sentence_goes_out(policy: Policy, held: bool) -> None:
    chat = ScriptedChat(BOTH)
    answer = f"{DOUBTFUL} Online orders can be returned within 30 days of delivery. Bye."
    policy = replace(policy, stream=StreamMode.SENTENCE)
    made = GrowingAnswer(pipeline(chat), policy, lambda: ASKED, lambda: None, hold_until_end=held)
    outcome = await grown(made, [*answer])
    right = answer.replace("£5", "£4").replace("30", "28")
    assert (outcome.status, outcome.text) == (Status.CORRECTED, right)
    assert [(edit.start, edit.text) for edit in outcome.findings] == [(21, "£4"), (62, "28 days")]
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    calls = 1 if held else 2
    assert (len(chat.asked), outcome.correction.editor.calls) == (calls, calls)


async def test_a_stream_whose_editor_fails_is_decided_by_words() -> None:
    policy = replace(POLICY, stream=StreamMode.SENTENCE)
    chat = ScriptedChat(lambda _: EngineUnavailable("away"))
    made = GrowingAnswer(pipeline(chat), policy, lambda: ASKED, lambda: None)
    outcome = await grown(made, [*"We wrap it for £5. That will be £5."])
    assert outcome.text == "We wrap it for £4. That will be £5."


async def test_of_a_long_reference_headings_and_the_lines_near_are_shown() -> None:
    street = "is a long street, which is known for its trees and for its houses, too.\n\n"
    filler = "".join(f"Our street number {number} {street}" for number in range(120))
    long = replace(FILE, text=f"{filler}{PAGE}{filler}")
    asked = replace(ASKED, answer="Gladly. It is £3.", turns=(Turn("user", "What does it cost?"),))
    chat = ScriptedChat(repairing(lambda text: text.replace("£3", "£4")))
    outcome = await pipeline(chat).align(asked, held(POLICY, long))
    assert outcome.text == "Gladly. It is £4."
    (shown,) = json.loads(chat.asked[0][-1]["content"])["references"]
    assert len(long.text) > REFERENCE_CHARS
    assert len(shown["text"]) < REFERENCE_CHARS / 4
    assert "# Returns" in shown["text"]
    assert "247 Wrapping a present" in shown["text"]
