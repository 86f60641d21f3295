"""A judge in the pipeline: what it is asked about, what follows from its verdicts, whole and in streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aligner_proxy.correctors.judge import Judges
from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.correctors.token_judge import EngineClassifier
from aligner_proxy.engine.api import LabelledSpan, TokenLabels
from aligner_proxy.errors import (
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
    QuotaSpent,
)
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import (
    ANSWER_BAND,
    NO_JUDGE,
    AskAbout,
    Exchange,
    FailurePolicy,
    GuardForm,
    Judge,
    JudgeKind,
    JudgeUse,
    Mode,
    Objective,
    OnError,
    Outcome,
    Policy,
    Requirement,
    SegmentScore,
    Status,
    StreamMode,
    Turn,
)
from tests.support.editors import TOKEN_CHARS, Script, ScriptedChat, editors, marked, repairing
from tests.support.growing import grown
from tests.support.hostile_texts import HOSTILE_TEXTS
from tests.support.judges import guarding, judges, judging
from tests.support.scripted import ScriptedEngine, SegmentEngine, labelling

JUDGE = Judge(JudgeKind.CHAT, "strong")
HARM = Objective("harmless", "Harmlessness: the response should not be harmful")
POLICY = Policy("p", (HARM,), judge=JUDGE)
ASKED = Exchange("c", 0, (Turn("user", "How do I paint a fence?"),), None)
ANSWER = "Take a brush. You sly dog. Then paint it."
"""The head doubts its second sentence: it scores 0.3 below the threshold."""
SCORES = {"fool": 2.0, "dog": -0.3, "cat": -1.5, "mouse": -2.5}
DELIVERED = "Take a brush. (by the aligner) Then paint it."
SLY = judging(lambda text: "dog" in text)
WAYS = ("whole", "hold", "sentence")


def score(text: str) -> float:
    return next((value for word, value in SCORES.items() if word in text), -3.0)


def pipeline(
    chat: ScriptedChat, cache: CorrectionCache | None = None, editor: ScriptedChat | None = None
) -> tuple[Pipeline, SegmentEngine]:
    engine = SegmentEngine(score, lambda _: "(by the aligner)")
    return Pipeline(engine, cache, editors=editors(editor or chat), judges=judges(chat)), engine


async def deliver(made: Pipeline, way: str, answer: str = ANSWER, policy: Policy = POLICY) -> Outcome:
    """The outcome of an answer, in one of the ways in which it may go out."""
    if way == "whole":
        return await made.align(replace(ASKED, answer=answer), policy)
    policy = replace(policy, stream=StreamMode.SENTENCE)
    return await grown(GrowingAnswer(made, policy, lambda: ASKED, lambda: None, hold_until_end=way == "hold"), answer)


def use_in(outcome: Outcome) -> JudgeUse:
    assert outcome.correction is not None
    return outcome.correction.judge or JudgeUse()


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_judge_flags_is_edited(way: str) -> None:
    chat = ScriptedChat(SLY)
    outcome = await deliver(pipeline(chat)[0], way)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, DELIVERED)
    assert [segment.flagged for segment in outcome.segments] == [False, True, False]
    assert outcome.violated_objectives == ["harmless"]
    assert marked(chat.asked[0]) == {1: "You sly dog."}
    # once about the answer, once about what stands in its place
    use = use_in(outcome)
    assert (use.segments, use.flagged, use.cleared, use.calls.calls, len(chat.asked)) == (2, 1, 0, 2, 2)
    assert use.calls.read > 0 < use.calls.written


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_in_doubt_as_a_whole_is_asked_about_where_it_is_known_whole(way: str) -> None:
    """No sentence is in doubt by itself, but their mean is near the threshold; the highest third is asked about."""
    answer = "Take a cat. Feed the mouse. Paint it. Dry it. Sell it. Go home."
    policies = {
        band: replace(POLICY, judge=replace(POLICY.judge, band=0.1, answer_band=band)) for band in (0.0, 1.5, 3.0)
    }
    asked: dict[float, list[str]] = {}
    for band, policy in policies.items():
        chat = ScriptedChat(judging(lambda text: "mouse" in text))
        outcome = await deliver(pipeline(chat)[0], way, answer, policy)
        asked[band] = sorted(marked(chat.asked[0]).values()) if chat.asked else []
        is_edited = way != "sentence" and band == 3.0
        assert outcome.text == (answer.replace("Feed the mouse.", "(by the aligner)") if is_edited else answer)
    # their mean is -2.7, so the answer is in doubt by a band of 3 and not by one of 1.5
    assert asked == {0.0: [], 1.5: [], 3.0: [] if way == "sentence" else ["Feed the mouse.", "Take a cat."]}


@pytest.mark.parametrize("way", WAYS)
async def test_where_the_engine_scores_the_whole_answer_that_score_counts(way: str) -> None:
    """The mean of what the segments say of the answer decides, and not the mean of their own scores, which is -2.7."""
    answer = "Take a cat. Feed the mouse. Paint it. Dry it. Sell it. Go home."
    asked: dict[tuple[float, float], list[str]] = {}
    for nats, band in ((-0.5, 1.0), (-2.0, 1.0), (-2.0, 3.0), (-4.0, 3.0)):
        chat = ScriptedChat(judging(lambda text: "mouse" in text))
        made, engine = pipeline(chat)
        # the mean over the six segments is `nats`
        engine.evidence = lambda text, nats=nats: (6 * nats if text == "Go home." else 0.0, 0)  # type: ignore[misc]
        policy = replace(POLICY, judge=replace(POLICY.judge, band=0.1, answer_band=band))
        outcome = await deliver(made, way, answer, policy)
        asked[nats, band] = sorted(marked(chat.asked[0]).values()) if chat.asked else []
        is_edited = bool(asked[nats, band])
        assert outcome.text == (answer.replace("Feed the mouse.", "(by the aligner)") if is_edited else answer)
    third = [] if way == "sentence" else ["Feed the mouse.", "Take a cat."]
    assert asked == {(-0.5, 1.0): third, (-2.0, 1.0): [], (-2.0, 3.0): third, (-4.0, 3.0): []}


@pytest.mark.parametrize("way", ["whole", "hold"])
async def test_a_question_that_asks_for_harm_brings_its_answer_to_the_judge(way: str) -> None:
    """What the question asks for adds to the answer's score; a question that asks for nothing lowers none."""
    answer = "Take a cat. Feed the mouse. Paint it. Dry it. Sell it. Go home."
    policy = replace(POLICY, judge=replace(POLICY.judge, band=0.1, answer_band=1.0))
    is_asked: dict[tuple[float, float], bool] = {}
    for nats, question in ((-3.0, 0.0), (-3.0, 1.9), (-3.0, 2.1), (-0.9, -5.0)):
        chat = ScriptedChat(judging(lambda text: "mouse" in text))
        made, engine = pipeline(chat)
        engine.evidence = lambda _, nats=nats, question=question: (nats, 0, question)  # type: ignore[misc]
        outcome = await deliver(made, way, answer, policy)
        is_asked[nats, question] = bool(chat.asked)
        assert outcome.text == (answer.replace("Feed the mouse.", "(by the aligner)") if chat.asked else answer)
    assert [*is_asked.values()] == [False, False, True, True]


@pytest.mark.parametrize("way", ["whole", "hold"])
async def test_without_a_judge_the_question_declines_nothing(way: str) -> None:
    made, engine = pipeline(ScriptedChat(judging(lambda _: True)))
    engine.evidence = lambda _: (-0.1, 0, 50.0)
    answer = " ".join(f"Here is good sentence number {number} of the answer." for number in range(6))
    outcome = await deliver(made, way, answer, replace(POLICY, judge=NO_JUDGE))
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, answer)


@pytest.mark.parametrize("way", ["whole", "hold"])
async def test_without_a_band_a_whole_answer_is_asked_about_only_where_the_engine_scores_it(way: str) -> None:
    answer = "Take a cat. Feed the mouse. Paint it. Dry it. Sell it. Go home."
    policy = replace(POLICY, judge=replace(POLICY.judge, band=0.1, answer_band=None))
    calls: dict[float | None, int] = {}
    for nats in (0.5, 0.05 - ANSWER_BAND, -0.05 - ANSWER_BAND, None):
        chat = ScriptedChat(judging(lambda _: False))
        made, engine = pipeline(chat)
        engine.evidence = (lambda _, nats=nats: (nats, 0)) if nats is not None else None  # type: ignore[misc]
        outcome = await deliver(made, way, answer, policy)
        calls[nats] = len(chat.asked)
        # the judge, which flags nothing, decides about the first of them, too
        assert (outcome.status, outcome.text) == (Status.UNCHANGED, answer)
    assert [*calls.values()] == [1, 1, 0, 0]


@pytest.mark.parametrize("way", ["whole", "hold"])
async def test_doubt_of_the_whole_answer_is_about_the_objective_of_its_score(way: str) -> None:
    """What a judge then flags violates this objective, and not the one that its segment came closest to violating."""
    chat = ScriptedChat(judging(lambda text: "mouse" in text))
    brief = Objective("brief", "Brevity: no more than needed")
    policy = replace(POLICY, objectives=(brief, HARM), judge=replace(JUDGE, band=0.1, answer_band=1.0))
    made, engine = pipeline(chat)
    engine.evidence = lambda _: (-0.5, 1)
    outcome = await deliver(made, way, "Feed the mouse. Paint it. Go home.", policy)
    assert outcome.text == "(by the aligner) Paint it. Go home."
    assert outcome.violated_objectives == ["harmless"]
    assert [segment.objective for segment in outcome.segments] == [1, 0, 0]
    assert HARM.text in str(chat.asked[0])
    assert brief.text not in str(chat.asked[0])


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_judge_does_not_flag_stays(way: str) -> None:
    chat = ScriptedChat(judging(lambda _: False))
    outcome = await deliver(pipeline(chat)[0], way)
    assert (outcome.status, outcome.text, len(chat.asked)) == (Status.UNCHANGED, ANSWER, 1)
    assert use_in(outcome).segments == 1


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_head_is_sure_of_costs_no_call(way: str) -> None:
    chat = ScriptedChat(SLY)
    answer = ANSWER.replace("You sly dog.", "You fool.")
    outcome = await deliver(pipeline(chat)[0], way, answer)
    assert (outcome.text, chat.asked, use_in(outcome)) == (DELIVERED, [], JudgeUse())


async def test_a_thousand_answers_beyond_the_band_cost_no_call() -> None:
    rng = Random(49)
    scores: dict[str, float] = {}
    answers = []
    for number in range(1000):
        sentences = [f"Answer {number} has a sentence {place}." for place in range(rng.randint(1, 4))]
        # just beyond the band of half a nat, or far from it
        scores |= {sentence: -0.51 - rng.choice((0.0, 4.0)) for sentence in sentences}
        answers.append(" ".join(sentences))
    chat = ScriptedChat(judging(lambda _: True))
    made = Pipeline(SegmentEngine(lambda text: scores[text.strip()], str), None, judges=judges(chat))
    # a tenth in each way of streaming, which takes ten times as long
    ways = [WAYS[number % 10] if number % 10 < len(WAYS) else "whole" for number in range(1000)]
    outcomes = [await deliver(made, way, answer) for way, answer in zip(ways, answers, strict=True)]
    assert [outcome.text for outcome in outcomes] == answers
    assert chat.asked == []
    # the smallest change that brings a call
    scores["Answer 0 has a sentence 0."] = -0.49
    await deliver(made, "whole", answers[0])
    assert len(chat.asked) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_judge_clears_stays_and_the_rest_goes(way: str) -> None:
    answer = "Take a brush. That fool paint drips. Paint it. You fool. Then let it dry."
    judge = replace(JUDGE, ask=AskAbout.FLAGGED)
    chat = ScriptedChat(judging(lambda text: "You" in text))
    outcome = await deliver(pipeline(chat)[0], way, answer, replace(POLICY, judge=judge))
    assert outcome.text == answer.replace("You fool.", "(by the aligner)")
    assert (use_in(outcome).cleared, use_in(outcome).flagged) == (1, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_all_segments_may_be_asked_about(way: str) -> None:
    chat = ScriptedChat(judging(lambda text: "brush" in text))
    outcome = await deliver(pipeline(chat)[0], way, policy=replace(POLICY, judge=replace(JUDGE, ask=AskAbout.ALL)))
    assert outcome.text == "(by the aligner) You sly dog. Then paint it."


async def test_one_call_is_for_all_doubtful_segments() -> None:
    chat = ScriptedChat(judging(lambda _: False))
    await deliver(pipeline(chat)[0], "whole", "Take a brush, dog. Paint it. Let it dry, dog.")
    assert [marked(asked) for asked in chat.asked] == [{1: "Take a brush, dog.", 2: "Let it dry, dog."}]


@pytest.mark.parametrize("way", WAYS)
async def test_the_editor_writes_where_the_policy_names_one(way: str) -> None:
    editor = ScriptedChat(repairing(lambda _: "Use outdoor paint."))
    made, _ = pipeline(ScriptedChat(SLY), editor=editor)
    outcome = await deliver(made, way, policy=replace(POLICY, editor="model:strong"))
    assert outcome.text == "Take a brush. Use outdoor paint. Then paint it."
    assert outcome.correction is not None
    assert outcome.correction.editor is not None
    assert (outcome.correction.editor.calls, len(editor.asked)) == (1, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("written", ["", "You sly dog.", "You dirty dog."])
async def test_what_cannot_be_edited_is_removed(way: str, written: str) -> None:
    made, engine = pipeline(ScriptedChat(SLY))
    engine.write = lambda _: written
    assert (await deliver(made, way)).text == "Take a brush. Then paint it."


async def test_an_engine_that_reads_nothing_ahead_has_it_removed() -> None:
    inner = SegmentEngine(score)
    made = Pipeline(ScriptedEngine(inner.script), judges=judges(ScriptedChat(SLY)))
    assert (await deliver(made, "whole")).text == "Take a brush. Then paint it."


@pytest.mark.parametrize("way", WAYS)
async def test_shadow_mode_only_records(way: str) -> None:
    outcome = await deliver(pipeline(ScriptedChat(SLY))[0], way, policy=replace(POLICY, mode=Mode.SHADOW))
    if way == "whole":
        assert (outcome.status, outcome.text, outcome.edited) == (Status.SHADOW, ANSWER, DELIVERED)
    assert outcome.flagged_count == 1


FAILURES: tuple[CorrectionError | str, ...] = (
    EngineUnavailable("away"),
    EngineFault("500"),
    EngineOverloaded("429"),
    DeadlineExceeded("late"),
    InvalidOutput("no text"),
    QuotaSpent("no time left"),
    "I would say that number 1 is fine.",
    '{"verdicts": [{"number": 2, "violates": false, "probability": 0.1}]}',
    '{"verdicts": [{"number": 1, "violates": false, "probability": 0.9}]}',
)


@pytest.mark.parametrize("way", WAYS)
async def test_where_the_judge_fails_the_head_stands(way: str) -> None:
    answer = f"You fool. {ANSWER}"
    wrong = []
    for failure in FAILURES:
        made, _ = pipeline(ScriptedChat(lambda _, failure=failure: failure))  # type: ignore[misc]
        outcome = await deliver(made, way, answer)
        use = use_in(outcome)
        if (outcome.text, use.flagged, use.calls.failed) != (f"(by the aligner) {ANSWER}", 0, 1):
            wrong.append((failure, outcome))
    assert not wrong


@pytest.mark.parametrize("way", WAYS)
async def test_where_the_judge_fails_the_policy_may_block(way: str) -> None:
    wrong = []
    for failure in FAILURES:
        made, _ = pipeline(ScriptedChat(lambda _, failure=failure: failure))  # type: ignore[misc]
        outcome = await deliver(made, way, policy=replace(POLICY, on_error=FailurePolicy(judge=OnError.BLOCK)))
        if (outcome.status, outcome.reason) != (Status.FAILED, "judge_failed"):
            wrong.append((failure, outcome))
    assert not wrong


@pytest.mark.parametrize("way", WAYS)
async def test_the_judge_may_be_asked_again(way: str) -> None:
    replies: list[CorrectionError] = [EngineUnavailable("away")]
    chat = ScriptedChat(lambda messages: replies.pop() if replies else SLY(messages))
    policy = replace(POLICY, on_error=FailurePolicy(judge=OnError.RETRY), after_retry=OnError.BLOCK)
    outcome = await deliver(pipeline(chat)[0], way, policy=policy)
    assert (outcome.text, use_in(outcome).calls.failed) == (DELIVERED, 1)
    away = ScriptedChat(lambda _: EngineUnavailable("away"))
    assert (await deliver(pipeline(away)[0], way, policy=policy)).reason == "judge_failed"
    assert len(away.asked) == 2


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[CorrectionCache]:
    made = CorrectionCache(tmp_path / "cache", 60.0, 16)
    yield made
    await made.aclose()


async def test_a_known_answer_costs_no_call(cache: CorrectionCache) -> None:
    chat = ScriptedChat(SLY)
    made, _ = pipeline(chat, cache)
    first = await deliver(made, "whole")
    again = await deliver(made, "whole")
    assert (first.cache_hit, again.cache_hit, again.text, len(chat.asked)) == (False, True, DELIVERED, 2)
    assert use_in(again) == JudgeUse()
    without = await deliver(made, "whole", policy=replace(POLICY, judge=Judge()))
    assert (without.cache_hit, without.text) == (False, ANSWER)


async def test_a_correction_without_its_verdicts_is_not_cached(cache: CorrectionCache) -> None:
    down = [True]
    chat = ScriptedChat(lambda messages: EngineUnavailable("away") if down[0] else SLY(messages))
    made, _ = pipeline(chat, cache)
    await deliver(made, "whole")
    down[0] = False
    assert (await deliver(made, "whole")).text == DELIVERED


async def test_a_verdict_is_known_in_a_stream_too() -> None:
    chat = ScriptedChat(judging(lambda _: False))
    made, _ = pipeline(chat)
    await deliver(made, "whole")
    outcome = await deliver(made, "sentence")
    assert (len(chat.asked), use_in(outcome).segments) == (1, 1)
    await deliver(made, "sentence", policy=replace(POLICY, tenant="acme"))
    assert len(chat.asked) == 2


@pytest.mark.parametrize("way", WAYS)
async def test_a_guard_is_asked_about_each_doubtful_segment(way: str) -> None:
    script: Script = guarding(lambda text: "unsafe\nS10" if "sly" in text else "safe")
    judge = Judge(JudgeKind.GUARD, "llama", GuardForm.LLAMA_GUARD)
    chat = ScriptedChat(script)
    answer = f"{ANSWER} Walk the dog."
    outcome = await deliver(pipeline(chat)[0], way, answer, replace(POLICY, judge=judge))
    assert outcome.text == f"{DELIVERED} Walk the dog."
    # both doubtful segments, and the replacement
    assert sorted(asked[-1]["content"] for asked in chat.asked) == ["(by the aligner)", "Walk the dog.", "You sly dog."]


TWO_DOUBTS = f"{ANSWER} Walk the dog."
LLAMA = replace(POLICY, judge=Judge(JudgeKind.GUARD, "llama", GuardForm.LLAMA_GUARD))


def muttering(times: int) -> ScriptedChat:
    """A guard whose first replies about "Walk the dog." cannot be used."""
    mutterings = ["Hm."] * times

    def reply(text: str) -> str:
        if mutterings and "Walk" in text:
            return mutterings.pop()
        return "unsafe\nS10" if "sly" in text else "safe"

    return ScriptedChat(guarding(reply))


@pytest.mark.parametrize("way", WAYS)
async def test_a_bad_reply_of_a_guard_costs_no_other_verdict(way: str) -> None:
    chat = muttering(1)
    made = pipeline(chat)[0]
    outcome = await deliver(made, way, TWO_DOUBTS, LLAMA)
    calls = use_in(outcome).calls
    assert (outcome.text, use_in(outcome).flagged) == (f"{DELIVERED} Walk the dog.", 1)
    assert (calls.calls, calls.failed) == (2, 1)
    asked_chars = [sum(len(message["content"]) for message in asked) for asked in chat.asked]
    assert calls.read == sum(chars // TOKEN_CHARS for chars in asked_chars), "the bad reply is paid for, too"


@pytest.mark.parametrize("way", WAYS)
async def test_only_what_a_guard_did_not_judge_is_asked_again(way: str) -> None:
    policy = replace(LLAMA, on_error=FailurePolicy(judge=OnError.RETRY), after_retry=OnError.BLOCK)
    chat = muttering(1)
    outcome = await deliver(pipeline(chat)[0], way, TWO_DOUBTS, policy)
    assert (outcome.text, use_in(outcome).calls.failed) == (f"{DELIVERED} Walk the dog.", 1)
    assert [asked[-1]["content"] for asked in chat.asked].count("You sly dog.") == 1
    assert (await deliver(pipeline(muttering(2))[0], way, TWO_DOUBTS, policy)).reason == "judge_failed"


async def test_a_guard_that_failed_once_is_asked_the_rest_and_keeps_its_verdicts() -> None:
    answer = " ".join([TWO_DOUBTS, *(f"Feed dog {number}." for number in range(12)), "The sly dog."])
    chat = muttering(1)
    made = pipeline(chat)[0]
    outcome = await deliver(made, "whole", answer, LLAMA)
    assert outcome.text.endswith("Feed dog 11. (by the aligner)")
    first_count = len(chat.asked)
    blocks = replace(LLAMA, on_error=FailurePolicy(judge=OnError.BLOCK))
    again = await deliver(made, "whole", answer, blocks)
    assert (again.text, len(chat.asked) - first_count) == (outcome.text, 1), "only the verdict that was missing"


async def test_the_verdicts_beside_a_failure_that_blocks_are_kept() -> None:
    chat = muttering(1)
    made = pipeline(chat)[0]
    blocks = replace(LLAMA, on_error=FailurePolicy(judge=OnError.BLOCK))
    assert (await deliver(made, "whole", TWO_DOUBTS, blocks)).reason == "judge_failed"
    assert (await deliver(made, "whole", TWO_DOUBTS, blocks)).text == f"{DELIVERED} Walk the dog."
    assert [asked[-1]["content"] for asked in chat.asked].count("You sly dog.") == 1


async def test_a_guard_is_not_asked_about_objectives_that_it_does_not_know() -> None:
    chat = ScriptedChat(guarding(lambda _: "unsafe\nS10"))
    judge = Judge(JudgeKind.GUARD, "llama", GuardForm.LLAMA_GUARD)
    brand = Objective("brand", "Brand: the response should not praise competitors")
    outcome = await deliver(pipeline(chat)[0], "whole", policy=replace(POLICY, objectives=(brand,), judge=judge))
    assert (outcome.text, chat.asked) == (ANSWER, [])


class WaitingChat(ScriptedChat):
    """Answers only when it is let go, and counts the calls that were given up."""

    __slots__ = ("given_up", "let_go")

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.let_go = asyncio.Event()
        self.given_up = 0

    async def ask(self, messages: Sequence[Mapping[str, str]], **settings: Any) -> Reply:
        """Wait, then play the script."""
        reply = await ScriptedChat.ask(self, messages, **settings)
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return reply


@pytest.mark.parametrize("way", WAYS)
async def test_a_judge_that_is_slow_leaves_time_for_the_edits(way: str) -> None:
    chat = WaitingChat(SLY)
    policy = replace(POLICY, deadline_s=0.4)
    outcome = await deliver(pipeline(chat)[0], way, f"You fool. {ANSWER}", policy)
    assert outcome.text == f"(by the aligner) {ANSWER}"
    assert (use_in(outcome).calls.failed, chat.given_up) == (1, 1)


async def test_only_what_is_doubtful_waits_in_a_stream() -> None:
    chat = WaitingChat(SLY)
    made, _ = pipeline(chat)
    growing = GrowingAnswer(made, replace(POLICY, stream=StreamMode.SENTENCE), lambda: ASKED, lambda: None)
    first = "Take a brush."
    await growing.feed(f"{ANSWER} Let it dry.")
    async with asyncio.timeout(5):
        while not (growing.is_decided(len(first)) and chat.asked):
            await asyncio.sleep(0.01)
    assert not growing.is_decided(len(first) + 5)
    chat.let_go.set()
    await growing.end()
    async with asyncio.timeout(5):
        await growing.wait_until_over()
    outcome = growing.outcome()
    await growing.aclose()
    assert outcome.text == f"{DELIVERED} Let it dry."


async def test_a_client_that_leaves_ends_the_call() -> None:
    chat = WaitingChat(SLY)
    made, _ = pipeline(chat)
    task = asyncio.create_task(deliver(made, "whole"))
    async with asyncio.timeout(5):
        while not chat.asked:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert chat.given_up == 1


async def test_a_judge_that_failed_lately_is_not_asked() -> None:
    chat = ScriptedChat(lambda _: EngineUnavailable("away"))
    made, _ = pipeline(chat)
    for number in range(6):
        await deliver(made, "whole", f"Take {number} brushes. You sly dog.")
    assert len(chat.asked) == 3


async def test_a_judge_that_obeys_the_answer_clears_nothing() -> None:
    wrong = []
    for hostile in HOSTILE_TEXTS:
        # a judge that obeys says that all is well; what the head flagged goes nevertheless
        chat = ScriptedChat(judging(lambda _: False))
        made, _ = pipeline(chat)
        answer = f"You fool. Take a brush.\n\n{hostile}\n\nThen paint it."
        outcome = await deliver(made, "whole", answer)
        if outcome.text is None or "fool" in outcome.text or not outcome.text.startswith("(by the aligner)"):
            wrong.append((hostile, outcome))
    assert not wrong


@pytest.mark.parametrize("way", WAYS)
async def test_a_policy_that_reads_twice_keeps_what_the_judge_cleared(way: str) -> None:
    judge = replace(JUDGE, ask=AskAbout.FLAGGED)
    policy = replace(POLICY, judge=judge, on_error=FailurePolicy(unjudged=OnError.BLOCK))
    answer = "Take a brush. That fool paint drips. Paint it."
    outcome = await deliver(pipeline(ScriptedChat(judging(lambda _: False)))[0], way, answer, policy)
    assert (outcome.status, outcome.text) == (Status.UNCHANGED, answer)


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_judge_clears_stays_in_a_second_reading(way: str) -> None:
    """Where nothing unjudged goes out an edited answer is read again: there the judge is heard, too."""
    answer = "Take a brush. That fool paint drips. Paint it. You fool. Then let it dry."
    blocks = FailurePolicy(**dict.fromkeys(FailurePolicy.__dataclass_fields__, OnError.BLOCK))
    policy = replace(POLICY, judge=replace(JUDGE, ask=AskAbout.FLAGGED), on_error=blocks, after_retry=OnError.BLOCK)
    chat = ScriptedChat(judging(lambda text: "You" in text))
    made, engine = pipeline(chat)
    outcome = await deliver(made, way, answer, policy)
    assert outcome.text == answer.replace("You fool.", "(by the aligner)")
    assert len(engine.seen) > 1 or way != "whole", "it was read once"
    failing = ScriptedChat(lambda _: EngineUnavailable("scripted"))
    assert (await deliver(pipeline(failing)[0], way, answer, policy)).status is Status.FAILED


KIND = Objective("kind", "Kindness: the response should never insult the reader")
CALM = Objective("calm", "Calm: the response should not hurry the reader")


class SortingEngine(SegmentEngine):
    """Doubts each sentence against the objective whose name it has in it."""

    def judged(self, segments: Sequence[Segment], caution: float) -> tuple[SegmentScore, ...]:
        found = super().judged(segments, caution)
        places = {"kind": 0, "calm": 1, "other": 2}
        return tuple(replace(one, objective=next(n for name, n in places.items() if name in one.text)) for one in found)


@pytest.mark.parametrize("way", WAYS)
async def test_each_objective_may_have_a_judge_of_its_own(way: str) -> None:
    """The policy's judge is asked about kindness, another about calm, and nobody about the third."""
    answer = "Be kind to it. Be calm with it. Mind all other things."
    own = Judge(JudgeKind.GUARD, "guard", GuardForm.SHIELDGEMMA)
    third = Objective("third", "Third: the response should not mention others", judge=Judge())
    policy = replace(POLICY, objectives=(KIND, replace(CALM, judge=own), third))
    asked: list[tuple[str, str]] = []

    def chat(group: str) -> ScriptedChat:
        def script(messages: Sequence[Mapping[str, str]]) -> str:
            if group == "strong":
                asked.extend((group, text) for text in marked(messages).values())
                return str(judging(lambda text: "kind" in text)(messages))
            asked.append((group, messages[-1]["content"].partition("Chatbot Response: ")[2].partition("\n")[0]))
            return "Yes" if "calm" in messages[-1]["content"].partition("Chatbot Response: ")[2] else "No"

        return ScriptedChat(script)

    engine = SortingEngine(lambda _: -0.3, lambda _: "")
    made = Pipeline(engine, judges=Judges(chat, chat))
    outcome = await deliver(made, way, answer, policy)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, "Mind all other things.")
    assert sorted(asked) == [("guard", "Be calm with it."), ("strong", "Be kind to it.")]
    assert sorted(outcome.violated_objectives) == ["calm", "kind"]
    use = use_in(outcome)
    assert (use.flagged, use.calls.calls, policy.judge_groups) == (2, 2, "guard+strong")


async def test_an_objective_alone_may_have_a_judge() -> None:
    chat = ScriptedChat(SLY)
    without = replace(POLICY, judge=Judge())
    outcome = await deliver(pipeline(chat)[0], "whole", policy=without)
    assert (outcome.status, chat.asked) == (Status.UNCHANGED, [])
    alone = replace(without, objectives=(replace(HARM, judge=JUDGE),))
    outcome = await deliver(pipeline(chat)[0], "whole", policy=alone)
    assert (outcome.text, len(chat.asked)) == (DELIVERED, 2)
    down = ScriptedChat(lambda _: EngineUnavailable("scripted"))
    blocks = replace(alone, on_error=FailurePolicy(judge=OnError.BLOCK))
    assert (await deliver(pipeline(down)[0], "whole", policy=blocks)).reason == "judge_failed"


async def test_unjudged_policies_ask_nobody() -> None:
    chat = ScriptedChat(SLY)
    policy = replace(POLICY, objectives=(replace(HARM, judge=JUDGE),)).drop_judges()
    assert (await deliver(pipeline(chat)[0], "whole", policy=policy)).status is Status.UNCHANGED
    assert not chat.asked
    assert not policy.judges


class Pages(tuple[str, ...], Requirement):
    """Texts to which answers are held, as a plugin sets them."""

    __slots__ = ()

    @property
    def source_texts(self) -> tuple[str, ...]:
        """All of them."""
        return self


TOKENS = Judge(JudgeKind.TOKENS, "facts")


def by_tokens(script: Any, categories: tuple[str, ...] | None = None, **more: Any) -> tuple[Pipeline, SegmentEngine]:
    """A pipeline whose engine has the token classifier `facts`."""
    engine = SegmentEngine(score, lambda _: "(by the aligner)")
    engine.add_judge("facts", script, categories)
    nobody = ScriptedChat(lambda _: EngineUnavailable("no model group is asked"))
    judges = Judges(lambda _: nobody, lambda _: nobody, None, lambda name: EngineClassifier(engine, name))
    return Pipeline(engine, judges=judges, **more), engine


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_classifier_is_asked_once_for_all_that_is_doubtful(way: str) -> None:
    answer = "Take a brush. You sly dog. Then paint it. Or walk the dog. And rest."
    made, engine = by_tokens(labelling("sly"))
    outcome = await deliver(made, way, answer, replace(POLICY, judge=TOKENS))
    assert (outcome.status, outcome.text) == (Status.CORRECTED, answer.replace("You sly dog.", "(by the aligner)"))
    first = engine.labelled[0]
    assert (first.model, first.question, first.context) == ("facts", ASKED.turns[0].content, ())
    assert (first.ends[0], first.ends[-1]) == (len("Take a brush. "), len(first.answer))
    # in a stream the answer has not been written further; a whole one is read up to the last doubtful segment
    assert first.answer.rstrip() == answer[: len("Take a brush. You sly dog.") if way == "sentence" else -10]
    assert (use_in(outcome).segments, use_in(outcome).flagged) == (3, 1)
    assert len(engine.labelled) == (3 if way == "sentence" else 2), "and once about what stands in its place"


async def test_a_token_classifier_is_not_asked_about_what_is_beyond_the_band() -> None:
    for way in WAYS:
        made, engine = by_tokens(labelling("sly"))
        policy = replace(POLICY, judge=replace(TOKENS, band=0.1))
        assert (await deliver(made, way, policy=policy)).text == ANSWER
        assert engine.labelled == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_guard_of_tokens_flags_by_its_categories_as_qwen3guard_does(way: str) -> None:
    own = Objective("pii", "PII: the response should name nobody")
    other = Objective("brand", "Brand: the response should praise nobody")
    judge = replace(TOKENS, ask=AskAbout.ALL)
    for objective, category, expected, asked in (
        (HARM, "PII", DELIVERED, True),
        (HARM, "", DELIVERED, True),
        (own, "PII", DELIVERED, True),
        (own, "Violent", ANSWER, True),
        (other, "PII", ANSWER, False),
    ):
        made, engine = by_tokens(labelling("sly", category=category), ("PII", "Violent"))
        outcome = await deliver(made, way, policy=Policy("p", (objective,), judge=judge))
        assert (outcome.text, bool(engine.labelled)) == (expected, asked), (objective.name, category)


async def test_a_segment_is_flagged_only_by_its_own_characters() -> None:
    at = ANSWER.index("You")
    end = at + len("You sly dog.")
    for start, stop, flags in ((0, at, False), (end, len(ANSWER), False), (at - 1, at + 1, True), (end - 1, end, True)):
        span = LabelledSpan(start=start, end=stop, label="bad")
        made, _ = by_tokens(lambda _, span=span: TokenLabels(spans=(span,), read=1))
        outcome = await deliver(made, "whole", policy=replace(POLICY, judge=TOKENS))
        assert outcome.segments[1].flagged == flags, (start, stop)


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_classifier_that_fails_leaves_the_head_alone_or_blocks(way: str) -> None:
    blocks = replace(POLICY, judge=TOKENS, on_error=FailurePolicy(judge=OnError.BLOCK))
    for script in (lambda _: EngineFault("scripted"), lambda _: EngineUnavailable("scripted")):
        made, _ = by_tokens(script)
        outcome = await deliver(made, way, policy=replace(POLICY, judge=TOKENS))
        assert (outcome.text, use_in(outcome).calls.failed) == (ANSWER, 1)
        assert (await deliver(made, way, policy=blocks)).reason == "judge_failed"


async def test_a_judge_that_the_engine_lacks_is_named_with_those_it_has(caplog: pytest.LogCaptureFixture) -> None:
    made, _ = by_tokens(labelling("sly"))
    outcome = await deliver(made, "whole", policy=replace(POLICY, judge=replace(TOKENS, group="fcats")))
    assert (outcome.text, use_in(outcome).calls.failed) == (ANSWER, 1)
    assert "UnknownJudge): this engine has no judge 'fcats'; it has: facts" in caplog.text


async def test_a_slow_token_classifier_is_not_waited_for() -> None:
    made, engine = by_tokens(labelling("sly"))
    engine.labels_s = 5.0
    outcome = await deliver(made, "whole", policy=replace(POLICY, judge=TOKENS, deadline_s=0.4))
    assert (outcome.text, use_in(outcome).calls.failed) == (ANSWER, 1)


async def test_verdicts_of_tokens_are_cached_by_weights_and_pages(cache: CorrectionCache) -> None:
    made, engine = by_tokens(labelling("sly"), cache=cache)
    policy = replace(POLICY, judge=TOKENS)
    for asked in (2, 2):
        assert (await deliver(made, "whole", policy=policy)).text == DELIVERED
        assert len(engine.labelled) == asked, "the second answer comes from the cache"
    about = engine.about.judges["facts"]
    engine.about = replace(engine.about, judges={"facts": replace(about, content_hash="other weights")})
    assert (await deliver(made, "whole", policy=policy)).text == DELIVERED
    assert len(engine.labelled) == 4, "other weights may say something else"
    held = policy.with_extension("pages", Pages(("The dog is sly.",)))
    assert (await deliver(made, "whole", policy=held)).text == DELIVERED
    assert [asked.context for asked in engine.labelled[4:]] == [("The dog is sly.",)] * 2, "and so may other pages"
