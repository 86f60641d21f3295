"""Early opinions: a judge is asked while a held answer grows; the outcome is that of the whole answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from aligner_proxy.correctors.early_opinions import EARLY_QUESTIONS
from aligner_proxy.correctors.judge import Judges
from aligner_proxy.correctors.judged_engine import JudgedEngine, JudgedSession
from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineUnavailable, JudgeFailed
from aligner_proxy.types import (
    AskAbout,
    Correction,
    FailurePolicy,
    GuardForm,
    Judge,
    JudgeKind,
    Objective,
    OnError,
    Policy,
    Quota,
    Turn,
)
from tests.support.editors import ScriptedChat, marked
from tests.support.judges import guarding, judges, judging
from tests.support.scripted import SegmentEngine

POLICY = Policy("p", (Objective("harmless", "Harmlessness: be kind"),), judge=Judge(JudgeKind.CHAT, "strong"))
SLY = judging(lambda text: "dog" in text)
SCORES = {"fool": 2.0, "dog": -0.3, "cat": -0.2}
"""The head flags a fool, and doubts a dog and a cat."""


def score(text: str) -> float:
    return next((value for word, value in SCORES.items() if word in text), -3.0)


@dataclass(slots=True)
class GatedChat(ScriptedChat):
    """Answers only when it is let go; counts the calls that were given up."""

    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0

    async def ask(self, messages: Sequence[Mapping[str, str]], **settings: Any) -> Reply:
        """Wait, then play the script."""
        try:
            reply = await ScriptedChat.ask(self, messages, **settings)
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return reply


def request(answer: str = "", **settings: Any) -> AlignRequest:
    fields: dict[str, Any] = {"tenant": "acme", "deadline_s": 30.0, **settings}
    objectives = tuple(objective.text for objective in POLICY.objectives)
    return AlignRequest(
        request_id="r", turns=(Turn("user", "How do I paint?"),), answer=answer, objectives=objectives, **fields
    )


async def open_session(made: Judges, policy: Policy = POLICY, **settings: Any) -> JudgedSession:
    """A session on an answer that is held."""
    engine = JudgedEngine(SegmentEngine(score, lambda _: "Sand it."), made.open(policy))
    session = await engine.read(request(**settings))
    assert isinstance(session, JudgedSession)
    session.ask_early()
    return session


async def feed_texts(session: JudgedSession, *texts: str) -> None:
    """Feed texts, and let questions be asked and answered after each."""
    for text in texts:
        await session.feed(text)
        for _ in range(20):
            await asyncio.sleep(0)


async def begin_finish(session: JudgedSession, answer: str) -> asyncio.Task[Correction]:
    """End the answer, and let the questions about it begin."""
    work = asyncio.create_task(session.finish(request(answer)))
    for _ in range(20):
        await asyncio.sleep(0)
    return work


def list_questions(chat: ScriptedChat) -> list[list[str]]:
    """The passages of each question."""
    return [list(marked(messages).values()) for messages in chat.asked]


async def test_a_doubtful_sentence_is_asked_about_before_the_end_and_only_once() -> None:
    chat = ScriptedChat(SLY)
    session = await open_session(judges(chat))
    await feed_texts(session, "Take a brush. You sly dog. ")
    assert list_questions(chat) == []  # the second sentence has not ended for certain
    await feed_texts(session, "Then ")
    assert list_questions(chat) == [["You sly dog."]]
    await feed_texts(session, "paint it.")
    done = await session.finish(request("Take a brush. You sly dog. Then paint it."))
    assert done.text == "Take a brush. Sand it. Then paint it."
    assert list_questions(chat) == [["You sly dog."], ["Sand it."]]  # the second is about what was written
    assert done.judge
    assert (done.judge.segments, done.judge.flagged, done.judge.calls.calls) == (2, 1, 2)


async def test_what_becomes_doubtful_during_a_question_is_asked_about_together() -> None:
    chat = GatedChat(SLY)
    session = await open_session(judges(chat))
    await feed_texts(session, "A dog. ", "One cat. ", "Two cats. ", "Three cats. ", "Paint. ")
    assert list_questions(chat) == [["A dog."]]
    chat.let_go.set()
    await feed_texts(session, "Go. ", "Stay. ", "A last cat.")
    assert list_questions(chat) == [["A dog."], ["One cat.", "Two cats.", "Three cats."]]
    await session.finish(request("A dog. One cat. Two cats. Three cats. Paint. Go. Stay. A last cat."))
    assert list_questions(chat)[2:] == [["A last cat."], ["Sand it."]]


async def test_the_last_question_does_not_wait_for_an_early_one() -> None:
    chat = GatedChat(SLY)
    session = await open_session(judges(chat))
    await feed_texts(session, "A cat. ", "Paint. ", "A dog.")
    work = await begin_finish(session, "A cat. Paint. A dog.")
    assert list_questions(chat) == [["A cat."], ["A dog."]]
    chat.let_go.set()
    assert (await work).text == "A cat. Paint. Sand it."


async def test_an_answer_full_of_doubt_costs_few_calls() -> None:
    chat = ScriptedChat(judging(lambda _: False))
    session = await open_session(judges(chat))
    sentences = [f"This is cat {number}. " for number in range(12)]
    await feed_texts(session, *sentences)
    answer = "".join(sentences)
    assert (await session.finish(request(answer))).text == answer
    assert len(chat.asked) == EARLY_QUESTIONS + 1
    passages = [passage for question in list_questions(chat) for passage in question]
    assert sorted(passages) == sorted(sentence.strip() for sentence in sentences)


@pytest.mark.parametrize(
    ("ask", "answer"), [(AskAbout.DOUBT, "Paint. You fool. Go. Stay."), (AskAbout.FLAGGED, "Paint. A dog. Go. Stay.")]
)
async def test_an_answer_without_doubt_costs_no_call(ask: AskAbout, answer: str) -> None:
    chat = ScriptedChat(SLY)
    session = await open_session(judges(chat), replace(POLICY, judge=replace(POLICY.judge, ask=ask)))
    await feed_texts(session, *(f"{word} " for word in answer.split()))
    await session.finish(request(answer))
    assert not chat.asked


async def test_a_judge_of_all_sentences_is_asked_once_at_the_end() -> None:
    chat = ScriptedChat(judging(lambda _: False))
    session = await open_session(judges(chat), replace(POLICY, judge=replace(POLICY.judge, ask=AskAbout.ALL)))
    await feed_texts(session, "A cat. ", "Paint. ", "Go.")
    assert not chat.asked
    await session.finish(request("A cat. Paint. Go."))
    assert list_questions(chat) == [["A cat.", "Paint.", "Go."]]


async def test_a_guard_gets_one_call_for_each_doubtful_sentence() -> None:
    chat = ScriptedChat(guarding(lambda text: "unsafe\nS1" if "dog" in text else "safe"))
    guard = Judge(JudgeKind.GUARD, "guard", GuardForm.LLAMA_GUARD)
    session = await open_session(judges(chat), replace(POLICY, judge=guard))
    await feed_texts(session, "A cat. ", "A dog. ", "Paint. ")
    assert len(chat.asked) == 2
    done = await session.finish(request("A cat. A dog. Paint. "))
    assert [segment.flagged for segment in done.segments] == [False, True, False]
    assert len(chat.asked) == 3  # and one for what was written


def make_answer(random_numbers: random.Random) -> str:
    """An answer of sentences that the head flags, doubts or passes, as lines and paragraphs."""
    words = ["You fool.", "A dog.", "A cat.", "Paint it.", "Dry it.", "- A dog", "No dog is a cat!"]
    gaps = [" ", "\n", "\n\n", "  "]
    return "".join(
        random_numbers.choice(words) + random_numbers.choice(gaps) for _ in range(random_numbers.randint(1, 14))
    )


@pytest.mark.parametrize("ask", list(AskAbout))
@pytest.mark.parametrize("answer_band", [0.0, 2.5])
async def test_the_outcome_is_that_of_the_whole_answer(ask: AskAbout, answer_band: float) -> None:
    policy = replace(POLICY, judge=replace(POLICY.judge, ask=ask, answer_band=answer_band))
    random_numbers = random.Random(49)
    early_calls = 0
    for _ in range(60):
        answer = make_answer(random_numbers)
        engine = JudgedEngine(SegmentEngine(score, lambda _: "Sand it."), judges(ScriptedChat(SLY)).open(policy))
        whole = await engine.align(request(answer))
        chat = ScriptedChat(SLY)
        session = await open_session(judges(chat), policy)
        cuts = sorted(random_numbers.sample(range(len(answer)), min(len(answer), 7)))
        await feed_texts(session, *(answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)))
        early_calls += len(chat.asked)
        done = await session.finish(request(answer))
        assert (done.text, done.segments, done.aligner) == (whole.text, whole.segments, whole.aligner)
        assert (done.judge is None) == (whole.judge is None)
        if done.judge and whole.judge:
            verdicts = (done.judge.segments, done.judge.flagged, done.judge.cleared)
            assert verdicts == (whole.judge.segments, whole.judge.flagged, whole.judge.cleared)
            assert done.judge.calls.calls <= whole.judge.calls.calls + EARLY_QUESTIONS
    assert (early_calls > 0) == (ask is not AskAbout.ALL)


async def test_a_session_that_is_given_up_ends_the_call() -> None:
    chat = GatedChat(SLY)
    session = await open_session(judges(chat))
    await feed_texts(session, "A dog. ", "Paint. ")
    await session.aclose()
    await session.aclose()
    assert (len(chat.asked), chat.cancelled) == (1, 1)


async def test_a_client_that_leaves_at_the_end_ends_both_calls() -> None:
    chat = GatedChat(SLY)
    session = await open_session(judges(chat))
    await feed_texts(session, "A dog. ", "Paint. ", "A cat.")
    work = await begin_finish(session, "A dog. Paint. A cat.")
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert (len(chat.asked), chat.cancelled) == (2, 2)


async def finish_with(chat: ScriptedChat, on_error: OnError = OnError.PASSTHROUGH, **settings: Any) -> Correction:
    """The correction of an answer with a doubtful sentence in its middle, which was asked about early."""
    policy = replace(POLICY, on_error=FailurePolicy(judge=on_error))
    session = await open_session(judges(chat), policy, **settings)
    await feed_texts(session, "Take a brush. ", "You sly dog. ", "Then ", "paint it.")
    return await session.finish(request("Take a brush. You sly dog. Then paint it.", **settings))


async def test_an_early_failure_counts_as_one_at_the_end() -> None:
    chat = ScriptedChat(lambda _: EngineUnavailable("scripted"))
    done = await finish_with(chat)
    assert (done.text, len(chat.asked)) == ("Take a brush. You sly dog. Then paint it.", 1)
    assert done.judge
    assert done.judge.calls.failed == 1
    with pytest.raises(JudgeFailed):
        await finish_with(ScriptedChat(lambda _: EngineUnavailable("scripted")), OnError.BLOCK)
    failures = iter([EngineUnavailable("scripted")])
    once = ScriptedChat(lambda messages: next(failures, None) or SLY(messages))
    assert (await finish_with(once, OnError.RETRY)).text == "Take a brush. Sand it. Then paint it."


async def test_a_slow_judge_is_not_waited_for_beyond_its_share() -> None:
    chat = GatedChat(SLY)
    done = await finish_with(chat, deadline_s=0.2)
    assert (done.text, chat.cancelled) == ("Take a brush. You sly dog. Then paint it.", 1)
    assert done.judge
    assert done.judge.calls.failed == 1


async def test_beyond_the_quota_nobody_is_asked() -> None:
    chat = ScriptedChat(SLY)
    done = await finish_with(chat, quota=Quota("acme", 0.0))
    assert (done.text, chat.asked) == ("Take a brush. You sly dog. Then paint it.", [])
    assert done.judge
    assert done.judge.calls.failed == 1


async def test_tenants_share_no_early_verdict() -> None:
    chat = ScriptedChat(SLY)
    made = judges(chat)
    for tenant, calls in (("acme", 1), ("acme", 1), ("other", 2), ("acme", 2)):
        session = await open_session(made, tenant=tenant)
        await feed_texts(session, "Take a brush. ", "You sly dog. ", "Then ")
        assert len(chat.asked) == calls, tenant
        await session.aclose()
