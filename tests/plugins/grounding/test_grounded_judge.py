"""What references leave in doubt is a judge's to decide: it says what is contradicted, and words or an editor write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from aligner_proxy.correctors.judge import Judges
from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.errors import CorrectionError, EngineUnavailable, QuotaSpent
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import Extensions, ExtensionWithRunner
from aligner_proxy.plugins.isolation import ThreadRunner
from aligner_proxy.types import (
    AskAbout,
    FailurePolicy,
    GuardForm,
    JsonStrings,
    Judge,
    JudgeKind,
    Mode,
    Objective,
    OnError,
    Outcome,
    Policy,
    Status,
    StreamMode,
)
from aligner_proxy_grounding.extension import Grounding
from tests.plugins.grounding.held import ASKED, DOUBTFUL, EXTENSIONS, FILE, PAGE, held
from tests.support.editors import Script, ScriptedChat, editors, marked, repairing
from tests.support.growing import grown
from tests.support.judges import asked_facts, contradicting, fact_reply, judges, verdict_reply
from tests.support.scripted import SegmentEngine

CHAT = Judge(JudgeKind.CHAT, "strong")
POLICY = held(Policy("p", judge=CHAT), FILE)
KIND = replace(POLICY, objectives=(Objective("kind", "Kind: no insults"),))
RETURNS = "Online orders can be returned within 30 days of delivery."
"""Words are certain of this one."""
LESS_CERTAIN = "We wrap it for £5."
IN_BOX = contradicting({"£5": "£6"})
STANDS = contradicting({})
NOT_SAID = contradicting({}, "not said")


def pipeline(chat: ScriptedChat, editor: ScriptedChat | None = None) -> Pipeline:
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -9.0, lambda _: "")
    return Pipeline(engine, extensions=EXTENSIONS, judges=judges(chat), editors=editors(editor) if editor else None)


async def corrected(script: Script, answer: str = DOUBTFUL, policy: Policy = POLICY) -> Outcome:
    return await pipeline(ScriptedChat(script)).align(replace(ASKED, answer=answer), policy)


async def delivered(made: Pipeline, answer: str, policy: Policy = POLICY, *, stream: bool) -> Outcome:
    """The outcome of an answer, whole or released sentence by sentence."""
    return await (streamed(made, answer, policy) if stream else made.align(replace(ASKED, answer=answer), policy))


async def streamed(made: Pipeline, answer: str, policy: Policy = POLICY, *, whole: bool = False) -> Outcome:
    policy = replace(policy, stream=StreamMode.SENTENCE)
    return await grown(GrowingAnswer(made, policy, lambda: ASKED, lambda: None, hold_until_end=whole), [*answer])


def failing(kind: OnError) -> Policy:
    """The policy with this reaction to a judge that fails."""
    return replace(POLICY, on_error=FailurePolicy(judge=kind), after_retry=OnError.PASSTHROUGH)


async def test_the_judge_says_what_is_contradicted_and_words_write() -> None:
    chat = ScriptedChat(IN_BOX)
    outcome = await pipeline(chat).align(replace(ASKED, answer=DOUBTFUL), POLICY)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Gladly. That will be £6.")
    assert [(edit.start, edit.text, edit.source) for edit in outcome.findings] == [(22, "6", "POLICY.md:7")]
    assert outcome.correction is not None
    use = outcome.correction.judge
    assert use is not None
    assert (use.segments, use.flagged, use.cleared, use.calls.calls) == (1, 1, 0, 1)
    (messages,) = chat.asked
    assert marked(messages) == {1: "That will be £5."}
    (fact,) = asked_facts(messages).values()
    assert (fact.fact, fact.values) == ("£5", ["£4", "£6"])
    (shown,) = json.loads(messages[-1]["content"])["references"]
    assert "7 Wrapping a present costs £4 in paper" in shown["text"]


async def test_all_doubts_of_an_answer_are_asked_in_one_call_and_only_they() -> None:
    answer = f"{DOUBTFUL} {RETURNS} Vouchers are valid for 3 years."
    chat = ScriptedChat(contradicting({"£5": "£6", "30 days": "28 days"}))
    outcome = await pipeline(chat).align(replace(ASKED, answer=answer), POLICY)
    assert outcome.text == answer.replace("£5", "£6").replace("30", "28")
    assert [len(asked_facts(messages)) for messages in chat.asked] == [2]
    for answer in ("Online orders can be returned within 28 days of delivery.", "Gladly!"):
        await pipeline(chat).align(replace(ASKED, answer=answer), POLICY)
    assert len(chat.asked) == 1


@pytest.mark.parametrize("script", [STANDS, NOT_SAID])
async def test_a_fact_that_the_judge_lets_stand_is_settled(script: Script) -> None:
    alone = await corrected(script, LESS_CERTAIN, replace(POLICY, judge=Judge()))
    assert alone.text == "We wrap it for £4."
    for answer in (DOUBTFUL, LESS_CERTAIN):
        outcome = await corrected(script, answer)
        assert (outcome.status, outcome.text, outcome.findings_record) == (Status.UNCHANGED, answer, {})


async def test_words_that_are_certain_stand_unless_the_judge_may_clear() -> None:
    outcome = await corrected(STANDS, f"{DOUBTFUL} {RETURNS}")
    assert outcome.text == f"{DOUBTFUL} {RETURNS}".replace("30", "28")
    assert [(edit.start, edit.text) for edit in outcome.findings] == [(62, "28 days")]
    for ask in (AskAbout.FLAGGED, AskAbout.ALL):
        policy = replace(POLICY, judge=replace(CHAT, ask=ask))
        assert (await corrected(STANDS, RETURNS, policy)).text == RETURNS


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("policy", [POLICY, KIND])
async def test_streams_ask_before_the_sentence_in_doubt_goes_out(policy: Policy, whole: bool) -> None:
    answer = f"{DOUBTFUL} {RETURNS} Bye."
    chat = ScriptedChat(contradicting({"£5": "£6", "30 days": "28 days"}))
    outcome = await streamed(pipeline(chat), answer, policy, whole=whole)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, answer.replace("£5", "£6").replace("30", "28"))
    assert [(edit.start, edit.text) for edit in outcome.findings] == [(22, "6"), (62, "28 days")]
    calls = 1 if whole else 2
    assert len(chat.asked) == calls
    assert outcome.correction is not None
    use = outcome.correction.judge
    assert use is not None
    assert (use.segments, use.flagged, use.calls.calls) == (2, 2, calls)


async def test_in_a_stream_sentences_without_a_doubt_do_not_wait() -> None:
    class HeldChat(ScriptedChat):
        async def ask(self, messages: Sequence[Mapping[str, str]], **given: Any) -> Reply:
            await released.wait()
            return await super().ask(messages, **given)

    released = asyncio.Event()
    policy = replace(POLICY, stream=StreamMode.SENTENCE)
    growing = GrowingAnswer(pipeline(HeldChat(IN_BOX)), policy, lambda: ASKED, lambda: None)
    text = "Gladly. That will be £5. Bye."
    await growing.feed(text)
    async with asyncio.timeout(5):
        while not growing.is_decided(len("Gladly.")):
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not growing.is_decided(len("Gladly. That will be £5."))
    released.set()
    await growing.end()
    async with asyncio.timeout(5):
        while not growing.done:
            await asyncio.sleep(0)
    assert growing.outcome().text == "Gladly. That will be £6. Bye."
    await growing.aclose()


@pytest.mark.parametrize("editor", ["local", "model:strong"])
async def test_what_words_cannot_write_is_the_editors_else_unsettled(editor: str) -> None:
    none_of_them = contradicting({"£5": "none of them"})
    writing = ScriptedChat(repairing(lambda text: text.replace("£5", "£4")))
    policy = replace(POLICY, editor=editor)
    answer = f"{DOUBTFUL} {RETURNS}"
    for stream in (False, True):
        made = pipeline(ScriptedChat(none_of_them), writing)
        outcome = await (
            streamed(made, answer, policy) if stream else made.align(replace(ASKED, answer=answer), policy)
        )
        written = answer.replace("30", "28")
        assert outcome.text == (written if editor == "local" else written.replace("£5", "£4"))
        unsettled = [one.source for one in outcome.findings if not one.is_replaced]
        assert unsettled == (["POLICY.md:7"] if editor == "local" else [])
    # the judge has settled the rest, so the editor is asked about one sentence alone
    assert [list(marked(messages).values()) for messages in writing.asked] == (
        [] if editor == "local" else [["That will be £5."]] * 2
    )


async def test_an_editor_that_copies_back_leaves_a_contradiction_unsettled() -> None:
    policy = replace(POLICY, editor="model:strong")
    for script in (repairing(lambda text: text), repairing(lambda _: "Never mind.")):
        made = pipeline(ScriptedChat(contradicting({"£5": "none of them"})), ScriptedChat(script))
        outcome = await made.align(replace(ASKED, answer=DOUBTFUL), policy)
        assert outcome.text == DOUBTFUL
        assert [one.source for one in outcome.findings if not one.is_replaced] == ["POLICY.md:7"]


async def test_one_value_does_not_replace_two_facts_of_a_sentence() -> None:
    answer = "That will be £5 or £7."
    outcome = await corrected(contradicting({"£5": "£6", "£7": "£6"}), answer)
    assert outcome.text == answer
    assert len([one for one in outcome.findings if not one.is_replaced]) == 2


@pytest.mark.parametrize("verdict", ["supported", "not said"])
async def test_contact_data_that_no_reference_has_stays_unsettled(verdict: str) -> None:
    page = replace(FILE, text=f"{PAGE}\nCall +45 33 12 80 44 about your order.\n")
    outcome = await corrected(contradicting({}, verdict), "Reach us at +45 70 20 30 41.", held(POLICY, page))
    assert [one.is_replaced for one in outcome.findings] == [False]
    chat = ScriptedChat(STANDS)
    outcome = await pipeline(chat).align(replace(ASKED, answer="Write to help@other.example."), POLICY)
    assert [one.is_replaced for one in outcome.findings] == [False]
    assert not chat.asked, "there is no value to choose from"


async def test_a_decision_model_is_asked_a_question_for_each_value() -> None:
    def script(messages: Sequence[Mapping[str, str]]) -> str:
        values = [value for one in asked_facts(messages).values() for value in one.values]
        return verdict_reply({number: value in wanted for number, value in enumerate(values, 1)})

    wanted = {"£6"}
    policy = replace(POLICY, judge=Judge(JudgeKind.DECISIONS, "luna"))
    chat = ScriptedChat(script)
    outcome = await pipeline(chat).align(replace(ASKED, answer=DOUBTFUL), policy)
    assert outcome.text == "Gladly. That will be £6."
    (form,) = chat.forms
    assert form is not None
    assert [question["name"] for question in form["questions"]] == ["1", "2"]
    wanted = {"£4", "£6"}
    outcome = await corrected(script, DOUBTFUL, policy)
    assert [(one.text, one.is_replaced) for one in outcome.findings] == [(None, False)]
    wanted = set()
    assert not (await corrected(script, DOUBTFUL, policy)).findings


async def test_a_guard_is_not_asked() -> None:
    chat = ScriptedChat(IN_BOX)
    policy = replace(POLICY, judge=Judge(JudgeKind.GUARD, "guard", GuardForm.QWEN3GUARD))
    outcome = await pipeline(chat).align(replace(ASKED, answer=LESS_CERTAIN), policy)
    assert (outcome.text, chat.asked) == ("We wrap it for £4.", [])


BAD_REPLIES: list[CorrectionError | str] = [
    EngineUnavailable("away"),
    QuotaSpent("nothing left", 1.0),
    "It is contradicted.",
    "",
    fact_reply({}),
    fact_reply({1: ("supported", 1)}),
    fact_reply({1: ("contradicted", 9)}),
    fact_reply({1: ("wrong", 0)}),
    fact_reply({2: ("supported", 0)}),
    fact_reply({1: ("supported", 0), 2: ("supported", 0)}),
    fact_reply({1: ("supported", 0)}).replace("0", "0.0"),
    f"I think so. {fact_reply({1: ('contradicted', 1)})}",
    verdict_reply({1: True}),
]


async def test_where_the_judge_fails_words_decide_as_without_one() -> None:
    wrong = []
    for reply in BAD_REPLIES:
        for stream in (False, True):
            made = pipeline(ScriptedChat(lambda _, reply=reply: reply))
            outcome = await delivered(made, LESS_CERTAIN, stream=stream)
            use = outcome.correction and outcome.correction.judge
            if outcome.text != "We wrap it for £4." or use is None or use.calls.failed != 1:
                wrong.append((reply, stream, outcome.text, use))
    assert not wrong


async def test_where_the_judge_fails_and_an_editor_is_there_the_editor_decides() -> None:
    writing = ScriptedChat(repairing(lambda text: text.replace("£5", "£6")))
    made = pipeline(ScriptedChat(lambda _: EngineUnavailable("away")), writing)
    outcome = await made.align(replace(ASKED, answer=LESS_CERTAIN), replace(POLICY, editor="model:strong"))
    assert outcome.text == "We wrap it for £6."


@pytest.mark.parametrize("stream", [False, True])
async def test_on_error_block_withholds_what_the_judge_could_not_read(stream: bool) -> None:
    made = pipeline(ScriptedChat(lambda _: "nonsense"))
    policy = failing(OnError.BLOCK)
    outcome = await (
        streamed(made, DOUBTFUL, policy) if stream else made.align(replace(ASKED, answer=DOUBTFUL), policy)
    )
    assert (outcome.status, outcome.reason) == (Status.FAILED, "judge_failed")


async def test_on_error_retry_asks_once_more() -> None:
    replies = iter(["nonsense"])
    chat = ScriptedChat(lambda messages: next(replies, None) or IN_BOX(messages))
    outcome = await pipeline(chat).align(replace(ASKED, answer=DOUBTFUL), failing(OnError.RETRY))
    assert (outcome.text, len(chat.asked)) == ("Gladly. That will be £6.", 2)
    assert outcome.correction is not None
    assert outcome.correction.judge is not None
    assert outcome.correction.judge.calls.failed == 1


async def test_a_judge_that_is_late_leaves_time_for_words_to_decide() -> None:
    class SlowChat(ScriptedChat):
        async def ask(self, messages: Sequence[Mapping[str, str]], **given: Any) -> Reply:
            await asyncio.sleep(60)
            raise AssertionError("waited for")

    outcome = await pipeline(SlowChat(IN_BOX)).align(
        replace(ASKED, answer=LESS_CERTAIN), replace(POLICY, deadline_s=0.4)
    )
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "We wrap it for £4.")


async def test_an_equal_question_of_the_tenant_costs_nothing() -> None:
    chat = ScriptedChat(IN_BOX)
    made = pipeline(chat)
    for policy, calls in ((POLICY, 1), (POLICY, 1), (replace(POLICY, tenant="other"), 2)):
        outcome = await made.align(replace(ASKED, answer=DOUBTFUL), policy)
        assert (outcome.text, len(chat.asked)) == ("Gladly. That will be £6.", calls)
    failing_chat = ScriptedChat(lambda _: "nonsense")
    made = pipeline(failing_chat)
    for calls in (1, 2):
        await made.align(replace(ASKED, answer=DOUBTFUL), POLICY)
        assert len(failing_chat.asked) == calls


async def test_a_text_of_a_json_answer_is_one_to_ask_about() -> None:
    policy = replace(POLICY, json_strings=JsonStrings.CORRECT)
    said = {"reply": "We wrap it for £5. Have a good day, and come again.", "price": 5}
    outcome = await corrected(IN_BOX, json.dumps(said), policy)
    assert json.loads(outcome.text or "") == said | {"reply": "We wrap it for £6. Have a good day, and come again."}


async def test_shadow_mode_says_what_would_go_out() -> None:
    outcome = await corrected(IN_BOX, policy=replace(POLICY, mode=Mode.SHADOW))
    assert (outcome.text, outcome.edited) == (DOUBTFUL, "Gladly. That will be £6.")


async def test_the_mark_of_a_list_item_stays() -> None:
    outcome = await corrected(IN_BOX, "For your present:\n\n1. That will be £5.\n2. Bring it in.")
    assert outcome.text == "For your present:\n\n1. That will be £6.\n2. Bring it in."


async def test_a_stage_in_a_thread_of_its_own_asks_the_judge() -> None:
    chat = ScriptedChat(IN_BOX)
    made = Pipeline(
        SegmentEngine(lambda _: -9.0),
        extensions=Extensions([ExtensionWithRunner(Grounding(), ThreadRunner("grounding"))]),
        judges=Judges(lambda _: chat, lambda _: chat),
    )
    outcome = await made.align(replace(ASKED, answer=DOUBTFUL), POLICY)
    assert outcome.text == "Gladly. That will be £6."
