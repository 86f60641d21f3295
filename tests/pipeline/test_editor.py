"""An editor in the pipeline: the gate, the cache, streams, JSON, shadow mode and second tries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineUnavailable
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import (
    Correction,
    Exchange,
    FailurePolicy,
    IfNothingRemains,
    JsonStrings,
    Mode,
    Objective,
    OnError,
    Outcome,
    Policy,
    SegmentScore,
    Status,
    StreamMode,
    Turn,
    Write,
)
from tests.support.editors import Script, ScriptedChat, editors, marked, repairing, replying
from tests.support.growing import grown
from tests.support.scripted import ScriptedSession, SegmentEngine

POLICY = Policy(
    "p", (Objective("kind", "Kindness: the response should never insult the reader"),), editor="model:strong"
)
SECOND = replace(POLICY, if_nothing_remains=IfNothingRemains.SECOND_TRY)
ASKED = Exchange("c", 0, (Turn("user", "How do I paint a fence?"),), None)
ANSWER = "Take a brush. You fool. Then paint it."
FRIENDLY = repairing(lambda text: text.replace("You fool.", "Use outdoor paint.").replace("fool", "friend"))
ADDRESS = "Write to ann@example.org, and use paint."


def removing_then(anew: str | Reply | EngineUnavailable) -> Script:
    """Removes every passage, and answers anew with this."""

    def script(messages: Sequence[Mapping[str, str]]) -> str | Reply | EngineUnavailable:
        is_edit = "passages" in messages[-1]["content"]
        return replying(dict.fromkeys(marked(messages), "")) if is_edit else anew

    return script


def pipeline(chat: ScriptedChat, cache: CorrectionCache | None = None) -> Pipeline:
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: "(by the aligner)")
    return Pipeline(engine, cache, editors=editors(chat))


async def corrected(script: Script, answer: str = ANSWER, policy: Policy = POLICY) -> Outcome:
    return await pipeline(ScriptedChat(script)).align(replace(ASKED, answer=answer), policy)


async def test_the_editor_writes_in_place_of_what_is_flagged() -> None:
    outcome = await corrected(FRIENDLY)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, None)
    assert outcome.text == "Take a brush. Use outdoor paint. Then paint it."
    assert outcome.correction is not None
    assert outcome.correction.editor is not None


class QuestionEngine(SegmentEngine):
    """Flags insults, and fruit where it is asked whether a text follows the instructions of the query.

    `writes` is what each request that may be edited lets it write.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.writes: list[Write] = []

    def verdicts(self, request: AlignRequest, *, ended: bool) -> tuple[SegmentScore, ...]:
        asks = any(text.startswith("Instruction following") for text in request.objectives)
        self.score = lambda text: 2.0 if "fool" in text or (asks and "fruit" in text) else -4.0
        return super().verdicts(request, ended=ended)

    async def align(self, request: AlignRequest) -> Correction:
        self.writes += [] if request.score_only else [request.write]
        return await super().align(request)

    async def read(self, request: AlignRequest) -> ScriptedSession:
        self.writes += [] if request.score_only else [request.write]
        return await super().read(request)


async def deliver(chat: ScriptedChat, engine: SegmentEngine, policy: Policy, *, whole: bool) -> str:
    """What is delivered of the answer, whole or streamed."""
    made = Pipeline(engine, editors=editors(chat))
    if whole:
        return (await made.align(replace(ASKED, answer=ANSWER), policy)).text or ""
    policy = replace(policy, stream=StreamMode.SENTENCE)
    return (await grown(GrowingAnswer(made, policy, lambda: ASKED, lambda: None), ANSWER)).text or ""


async def test_what_the_policy_lets_be_written_is_written() -> None:
    without = "Take a brush. Then paint it."
    fruit = repairing(lambda _: "Buy some fruit.")
    expected = {
        (Write.FREE, fruit): "Take a brush. Buy some fruit. Then paint it.",
        (Write.VERIFIED, fruit): without,
        (Write.VERIFIED, FRIENDLY): "Take a brush. Use outdoor paint. Then paint it.",
        (Write.NEVER, FRIENDLY): without,
    }
    for (write, script), text in expected.items():
        policy = replace(POLICY, editor_write=write)
        for whole in (True, False):
            engine = QuestionEngine(lambda text: 2.0 if "fool" in text else -4.0, lambda _: "(by the aligner)")
            assert await deliver(ScriptedChat(script), engine, policy, whole=whole) == text, (write, whole)


async def test_where_the_editor_fails_the_aligner_writes_only_what_it_may() -> None:
    broken = ScriptedChat(lambda _: EngineUnavailable("gone"))
    for write in (Write.NEVER, Write.FREE):
        policy = replace(POLICY, write=write)
        for whole in (True, False):
            engine = QuestionEngine(lambda text: 2.0 if "fool" in text else -4.0, lambda _: "(by the aligner)")
            await deliver(broken, engine, policy, whole=whole)
            assert engine.writes[-1] is write, (write, whole)


async def test_nothing_is_tried_again_where_nothing_may_be_written() -> None:
    chat = ScriptedChat(removing_then("Take a brush."))
    policy = replace(SECOND, editor_write=Write.NEVER)
    outcome = await pipeline(chat).align(replace(ASKED, answer="You fool. Get lost, fool."), policy)
    assert (outcome.reason, chat.asked) == ("declined", [])


async def test_who_answers_may_be_the_editor() -> None:
    chat = ScriptedChat(FRIENDLY)
    policy = replace(POLICY, editor="upstream", upstream="gpt")
    opened: list[str] = []
    made = pipeline(chat)
    assert made.editors is not None
    made.editors._open_chat = lambda name: opened.append(name) or chat  # type: ignore[func-returns-value]
    await made.align(replace(ASKED, answer=ANSWER), policy)
    assert opened == ["gpt"]


async def test_without_an_editor_the_aligner_writes() -> None:
    chat = ScriptedChat(FRIENDLY)
    outcome = await pipeline(chat).align(replace(ASKED, answer=ANSWER), replace(POLICY, editor="local"))
    assert outcome.text == "Take a brush. (by the aligner) Then paint it."
    assert not chat.asked


async def test_what_the_gate_refuses_is_removed() -> None:
    outcome = await corrected(lambda _: replying({1: ADDRESS}))
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, None)
    assert outcome.text == "Take a brush. Then paint it."
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert outcome.correction.editor.refused == 1


async def test_of_several_only_what_the_gate_refuses_is_removed() -> None:
    answer = "Take a brush. You fool. Then paint it. Listen, fool. Then let it dry in the sun."
    outcome = await corrected(lambda _: replying({1: ADDRESS, 2: "Listen, friend."}), answer)
    assert outcome.text == "Take a brush. Then paint it. Listen, friend. Then let it dry in the sun."


async def test_where_the_editor_fails_the_aligner_edits_whatever_on_error_says() -> None:
    policy = replace(POLICY, on_error=FailurePolicy(engine_down=OnError.BLOCK))
    outcome = await corrected(lambda _: EngineUnavailable("away"), policy=policy)
    assert outcome.text == "Take a brush. (by the aligner) Then paint it."
    assert outcome.status is Status.CORRECTED


async def test_shadow_mode_asks_the_editor_and_delivers_the_original() -> None:
    outcome = await corrected(FRIENDLY, policy=replace(POLICY, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, "would_correct", ANSWER)
    assert outcome.edited == "Take a brush. Use outdoor paint. Then paint it."


async def test_texts_in_json_are_edited_one_by_one() -> None:
    answer = '{"a": "Take a brush and some paint for the fence. You fool.", "b": "Then paint the whole fence with it."}'
    outcome = await corrected(FRIENDLY, answer, replace(POLICY, json_strings=JsonStrings.CORRECT))
    assert outcome.text == answer.replace("You fool.", "Use outdoor paint.")


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[CorrectionCache]:
    made = CorrectionCache(tmp_path / "cache", 60.0, 16)
    yield made
    await made.aclose()


async def test_a_known_answer_costs_no_call(cache: CorrectionCache) -> None:
    chat = ScriptedChat(FRIENDLY)
    made = pipeline(chat, cache)
    exchange = replace(ASKED, answer=ANSWER)
    first = await made.align(exchange, POLICY)
    again = await made.align(exchange, POLICY)
    assert (first.cache_hit, again.cache_hit, len(chat.asked)) == (False, True, 1)
    assert first.text == again.text
    assert again.correction is not None
    assert again.correction.editor is None
    other = await made.align(exchange, replace(POLICY, editor="model:other"))
    local = await made.align(exchange, replace(POLICY, editor="local"))
    assert (other.cache_hit, local.cache_hit, len(chat.asked)) == (False, False, 2)


async def test_what_the_aligner_wrote_in_the_editors_place_is_not_remembered(cache: CorrectionCache) -> None:
    down = [True]
    chat = ScriptedChat(lambda messages: EngineUnavailable("away") if down[0] else FRIENDLY(messages))
    made = pipeline(chat, cache)
    exchange = replace(ASKED, answer=ANSWER)
    await made.align(exchange, POLICY)
    down[0] = False
    again = await made.align(exchange, POLICY)
    assert (again.cache_hit, again.text) == (False, "Take a brush. Use outdoor paint. Then paint it.")


# Second tries.


async def test_another_answer_stands_in_place_of_one_of_which_nothing_remains() -> None:
    script = removing_then("Take a brush.")
    chat = ScriptedChat(script)
    outcome = await pipeline(chat).align(replace(ASKED, answer="You fool."), SECOND)
    assert (outcome.status, outcome.reason, outcome.text) == (Status.CORRECTED, "second_try", "Take a brush.")
    assert outcome.flagged_count == 1
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert outcome.correction.editor.calls == 2
    assert chat.asked[1][-1] == {"role": "user", "content": "How do I paint a fence?"}


@pytest.mark.parametrize("anew", ["You fool, take a brush.", "", EngineUnavailable("away")])
async def test_the_policys_text_stands_where_the_second_try_is_no_better(anew: str | EngineUnavailable) -> None:
    script = removing_then(anew)
    outcome = await corrected(script, "You fool.", SECOND)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, "declined")
    assert outcome.text == "I'm sorry, but I can't answer this here."


@pytest.mark.parametrize("missing", [Reply("Take a", finished=False), Reply(" ")])
async def test_a_second_try_that_was_not_written_is_asked_for_again(cache: CorrectionCache, missing: Reply) -> None:
    """Once cut off, it was taken for one that is no better until the entry expired."""
    anew = [missing]
    made = pipeline(ScriptedChat(lambda messages: removing_then(anew[0])(messages)), cache)
    exchange = replace(ASKED, answer="You fool.")
    assert (await made.align(exchange, SECOND)).reason == "declined"
    anew[0] = Reply("Take a brush.")
    assert [(await made.align(exchange, SECOND)).reason for _ in range(2)] == ["second_try"] * 2
    anew[0] = missing
    assert (await made.align(exchange, SECOND)).reason == "second_try", "from the cache"


async def test_a_second_try_in_shadow_mode_is_told_and_not_delivered() -> None:
    script = removing_then("Take a brush.")
    outcome = await corrected(script, "You fool.", replace(SECOND, mode=Mode.SHADOW))
    assert (outcome.status, outcome.reason, outcome.text) == (Status.SHADOW, "would_second_try", "You fool.")
    assert outcome.edited == "Take a brush."


async def test_what_the_editor_wrote_in_its_place_needs_no_second_try() -> None:
    chat = ScriptedChat(FRIENDLY)
    outcome = await pipeline(chat).align(replace(ASKED, answer="You fool."), SECOND)
    assert (outcome.reason, outcome.text, len(chat.asked)) == (None, "Use outdoor paint.", 1)


async def test_a_second_try_is_remembered(cache: CorrectionCache) -> None:
    script = removing_then("Take a brush.")
    chat = ScriptedChat(script)
    made = pipeline(chat, cache)
    exchange = replace(ASKED, answer="You fool.")
    texts = [(await made.align(exchange, SECOND)).text for _ in range(2)]
    assert texts == ["Take a brush."] * 2
    assert len(chat.asked) == 2


async def test_without_an_editor_a_second_try_declines() -> None:
    outcome = await corrected(FRIENDLY, "You fool.", replace(SECOND, editor="local"))
    assert outcome.text == "(by the aligner)"
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0)
    outcome = await Pipeline(engine).align(replace(ASKED, answer="You fool."), replace(SECOND, editor="upstream"))
    assert outcome.reason == "declined"


# Streams that are released sentence by sentence.


async def streamed(
    script: Script, answer: str = ANSWER, policy: Policy = POLICY, *, held: bool = False
) -> tuple[Outcome, ScriptedChat]:
    chat = ScriptedChat(script)
    policy = replace(policy, stream=StreamMode.SENTENCE)
    made = GrowingAnswer(pipeline(chat), policy, lambda: ASKED, lambda: None, hold_until_end=held)
    return await grown(made, answer), chat


@pytest.mark.parametrize("held", [False, True])
async def test_a_stream_is_edited(held: bool) -> None:
    outcome, chat = await streamed(FRIENDLY, held=held)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Take a brush. Use outdoor paint. Then paint it.")
    assert len(chat.asked) == 1
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert outcome.correction.editor.calls == 1


@pytest.mark.parametrize("held", [False, True])
async def test_a_clean_stream_costs_no_call(held: bool) -> None:
    outcome, chat = await streamed(FRIENDLY, "Take a brush. Then paint it.", held=held)
    assert (outcome.status, chat.asked) == (Status.UNCHANGED, [])


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("reply", ["Well, fool.", ADDRESS])
async def test_in_a_stream_what_is_flagged_again_or_refused_is_removed(reply: str, held: bool) -> None:
    outcome, _ = await streamed(lambda _: replying({1: reply}), held=held)
    assert (outcome.status, outcome.reason) == (Status.CORRECTED, None)
    assert outcome.text == "Take a brush. Then paint it."


async def test_in_a_stream_the_gate_blocks_only_what_cannot_be_removed() -> None:
    policy = replace(POLICY, on_error=FailurePolicy(gate=OnError.BLOCK))
    outcome, _ = await streamed(lambda _: replying({1: ADDRESS}), policy=policy)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Take a brush. Then paint it.")


@pytest.mark.parametrize("held", [False, True])
async def test_a_stream_of_which_nothing_remains_gets_a_second_try(held: bool) -> None:
    script = removing_then("Take a brush.")
    outcome, _ = await streamed(script, "You fool. Get lost, fool.", SECOND, held=held)
    assert (outcome.reason, outcome.text) == ("second_try", "Take a brush.")


async def test_behind_fragments_that_went_out_comes_the_second_try() -> None:
    script = removing_then("Take a brush.")
    outcome, chat = await streamed(script, "Sure, here you go:\n\nYou fool. Get lost, fool.", SECOND)
    assert outcome.text is not None
    assert "fool" not in outcome.text
    assert outcome.text.endswith("Take a brush.")
    assert outcome.reason == "second_try"
    assert chat.asked
