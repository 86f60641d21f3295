"""The texts of one answer, decided about together: what stands, what waits, and what a second try costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from aligner_proxy.errors import EngineFault
from aligner_proxy.pipeline.answer_texts import AnswerTexts, GrowingTexts
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import (
    Exchange,
    FailurePolicy,
    IfNothingRemains,
    Objective,
    OnError,
    OnSkip,
    Outcome,
    Policy,
    SkipPolicy,
    Status,
    StreamMode,
    Turn,
)
from tests.support.editors import ScriptedChat, editors, marked, replying
from tests.support.scripted import SegmentEngine

POLICY = Policy(
    "p",
    (Objective("kind", "Kind: no insults"),),
    if_nothing_remains=IfNothingRemains.DECLINE,
    decline=(("", "We do not answer like that."),),
)
ASKED = Exchange("c", 0, (Turn("user", "How do I do this?"),), None)
RUDE = "You fool. Get lost, fool."
FINE = "Paint the fence with a brush."
REFUSED = "I'm sorry, but I can't help with that."
Told = list[tuple[str | None, str | None]]


def score_text(text: str) -> float:
    return 2.0 if "fool" in text else -2.0


async def together(pipeline: Pipeline, texts: Sequence[str], policy: Policy = POLICY) -> list[Outcome]:
    """The outcomes of the texts of one whole answer."""
    answer = AnswerTexts(pipeline.refusal_text, len(texts))
    exchanges = [replace(ASKED, index=number, answer=text) for number, text in enumerate(texts)]
    async with asyncio.timeout(30):
        return await asyncio.gather(*(pipeline.align(exchange, policy, None, answer) for exchange in exchanges))


def list_results(outcomes: Sequence[Outcome]) -> Told:
    return [(outcome.reason, outcome.text) for outcome in outcomes]


async def test_a_text_that_is_not_judged_as_prose_stands() -> None:
    judging = replace(POLICY, on_skip=SkipPolicy(structured_output=OnSkip.JUDGE))
    cases: list[tuple[Policy, str, str | None]] = [
        (POLICY, REFUSED, "refusal"),
        (POLICY, '{"colour": "red"}', "structured_output"),
        (judging, '{"colour": "red"}', None),
    ]
    for policy, other, reason in cases:
        outcomes = await together(Pipeline(SegmentEngine(score_text)), [RUDE, other], policy)
        assert list_results(outcomes) == [("emptied", ""), (reason, other)]


async def test_a_text_without_letters_does_not_stand() -> None:
    outcomes = await together(Pipeline(SegmentEngine(score_text)), ["\n\n", RUDE])
    assert list_results(outcomes) == [("empty", "\n\n"), ("declined", "We do not answer like that.")]


async def test_a_text_whose_correction_failed_stands_and_the_policy_decides_about_it() -> None:
    def write(text: str) -> str | EngineFault:
        return EngineFault("scripted") if "dull" in text else ""

    made = SegmentEngine(lambda text: 2.0 if "fool" in text or "dull" in text else -2.0, write)
    passing = replace(POLICY, on_error=FailurePolicy(bug=OnError.PASSTHROUGH))
    assert list_results(await together(Pipeline(made), [RUDE, "How dull."], passing)) == [
        ("emptied", ""),
        ("engine_error", "How dull."),
    ]


async def test_a_second_try_is_made_once_for_all_texts() -> None:
    second = replace(POLICY, editor="model:strong", if_nothing_remains=IfNothingRemains.SECOND_TRY)

    def script(messages: Sequence[dict[str, str]]) -> str:
        is_edit = "passages" in messages[-1]["content"]
        return replying(dict.fromkeys(marked(messages), "")) if is_edit else "Take a brush."

    for texts, expected, calls in (
        ([RUDE, RUDE], [("second_try", "Take a brush."), ("second_try", "")], [2, 1]),
        ([RUDE, FINE], [("emptied", ""), (None, FINE)], [1, 0]),
    ):
        made = Pipeline(SegmentEngine(score_text), editors=editors(ScriptedChat(script)))
        outcomes = await together(made, texts, second)
        assert list_results(outcomes) == expected
        uses = [outcome.correction and outcome.correction.editor for outcome in outcomes]
        assert [use.calls if use else 0 for use in uses] == calls


class Stream:
    """The texts of an answer that is being written; tool calls may come beside them."""

    def __init__(self) -> None:
        self.facts = ASKED
        self.texts: dict[int, GrowingAnswer] = {}
        self.pipeline = Pipeline(SegmentEngine(score_text))
        self.answer = GrowingTexts(self.pipeline.refusal_text, self.texts, lambda: self.facts)

    async def add(self, *texts: str) -> None:
        """Further texts that come and end."""
        policy = replace(POLICY, stream=StreamMode.SENTENCE)
        for text in texts:
            index = len(self.texts)
            self.texts[index] = GrowingAnswer(
                self.pipeline,
                policy,
                lambda index=index: replace(self.facts, index=index),  # type: ignore[misc]
                self.answer.note_change,
                texts=self.answer,
            )
            await self.texts[index].feed(text)
            await self.texts[index].end()
        for _ in range(200):
            await asyncio.sleep(0)

    async def list_delivered(self) -> list[str | None]:
        """What goes out of each text; None as long as it waits."""
        for _ in range(200):
            await asyncio.sleep(0)
        return [text.render(0, text.length) if text.done else None for text in self.texts.values()]

    async def close(self) -> None:
        """Nothing of it is left."""
        for text in self.texts.values():
            await text.aclose()


async def test_a_text_of_which_nothing_remains_waits_until_the_answer_is_known() -> None:
    stream = Stream()
    await stream.add(RUDE)
    assert await stream.list_delivered() == [None]
    await stream.add(FINE)
    assert await stream.list_delivered() == [None, None]
    stream.answer.end()
    assert await stream.list_delivered() == ["", FINE]
    await stream.close()


async def test_behind_text_that_stands_nothing_waits() -> None:
    stream = Stream()
    await stream.add(FINE, RUDE, FINE)
    assert await stream.list_delivered() == [FINE, "", FINE]
    await stream.close()


async def test_a_call_lets_the_texts_be_left_out_at_once() -> None:
    for before in (True, False):
        stream = Stream()
        if before:
            stream.facts = replace(ASKED, tool_calls=True)
        await stream.add(RUDE, RUDE)
        if not before:
            assert await stream.list_delivered() == [None, None]
            stream.facts = replace(ASKED, tool_calls=True)
            stream.answer.check()
        assert await stream.list_delivered() == ["", ""]
        await stream.close()


async def test_a_text_that_is_given_up_while_it_waits_goes_out_and_stands() -> None:
    stream = Stream()
    insult = "Paint the fence with a brush, you fool."
    await stream.add(insult, RUDE)
    assert await stream.list_delivered() == [None, None]
    stream.texts[0].close(Status.FAILED, "shed")
    stream.answer.end()
    assert await stream.list_delivered() == [insult, ""]
    await stream.close()
