"""An editor behind an engine that scores: where it is asked, what of it is delivered, what follows when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from aligner_proxy.correctors import editor, model_group
from aligner_proxy.correctors.editor import ChatWriter
from aligner_proxy.correctors.model_group import ModelGroup, Question, QuestionRefused, Reply
from aligner_proxy.engine.api import AlignRequest, Session, Span
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.errors import (
    BreakerOpen,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
    QuotaSpent,
)
from aligner_proxy.types import Correction, EditorUse, Quota, Turn
from tests.support.editors import ScriptedChat, marked, repairing, replying
from tests.support.scripted import SCRIPTED, ScriptedEngine, SegmentEngine

KIND = "Kindness: the response should never insult the reader"
ANSWER = "Take a brush. You fool. Then paint it."


def scorer(write: str = "(by the aligner)") -> SegmentEngine:
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: write)
    return engine


def request(answer: str = ANSWER, **settings: object) -> AlignRequest:
    asked = AlignRequest(
        request_id="c/0", turns=(Turn("user", "How do I paint a fence?"),), answer=answer, objectives=(KIND,)
    )
    return asked.model_copy(update=settings)


def edited(chat: ScriptedChat, engine: ScriptedEngine | None = None) -> EditedEngine:
    return EditedEngine(engine or scorer(), ChatWriter(ModelGroup("strong", chat), {"user_api_key": "hash"}))


FRIENDLY = repairing(lambda text: text.replace("You fool.", "Use outdoor paint.").replace("fool", "friend"))


async def test_only_what_is_flagged_is_replaced() -> None:
    chat = ScriptedChat(FRIENDLY)
    done = await edited(chat).align(request())
    assert done.text == "Take a brush. Use outdoor paint. Then paint it."
    assert [segment.flagged for segment in done.segments] == [False, True, False]
    assert done.editor is not None
    assert (done.editor.calls, done.editor.failed, done.editor.refused) == (1, 0, 0)
    assert done.editor.read > 0 < done.editor.written
    assert chat.payers == [{"user_api_key": "hash"}]
    assert chat.forms[0] is editor.editor_prompt.REPLY_SCHEMA


async def test_a_thousand_clean_answers_cost_no_call() -> None:
    chat = ScriptedChat(FRIENDLY)
    engine = edited(chat)
    for number in range(1_000):
        answer = f"Step {number} is to take a brush.\n\n- Paint.\n- Wait."
        done = await engine.align(request(answer))
        assert (done.text, done.editor) == (answer, None)
    assert not chat.asked


async def test_to_score_only_costs_no_call() -> None:
    chat = ScriptedChat(FRIENDLY)
    done = await edited(chat).align(request(score_only=True))
    assert (done.text, done.editor, chat.asked) == (ANSWER, None, [])


async def test_one_call_is_for_all_passages() -> None:
    chat = ScriptedChat(FRIENDLY)
    answer = "1. Take a brush, fool.\n2. Paint.\n3. Wait, fool.\n"
    done = await edited(chat).align(request(answer))
    assert done.text.rstrip() == "1. Take a brush, friend.\n2. Paint.\n3. Wait, friend."
    assert len(chat.asked) == 1
    assert marked(chat.asked[0]) == {1: "Take a brush, fool.", 2: "Wait, fool."}


@pytest.mark.parametrize(
    ("reply", "text", "refused"),
    [
        ("", "Take a brush. Then paint it.", 0),
        ("You fool.", "Take a brush. Then paint it.", 0),  # repeated word for word: no judge is needed
        ("Well, fool, use oil.", "Take a brush. Then paint it.", 1),
        ("Use oil. You are a fool, too.", "Take a brush. Use oil. Then paint it.", 1),
        ("Use oil. Then paint it.", "Take a brush. Use oil. Then paint it. Then paint it.", 0),
    ],
)
async def test_what_is_flagged_again_is_removed(reply: str, text: str, refused: int) -> None:
    done = await edited(ScriptedChat(lambda _: replying({1: reply}))).align(request())
    assert done.text == text
    assert done.editor is not None
    assert done.editor.refused == refused


async def test_it_is_judged_where_it_stands() -> None:
    seen: list[str] = []

    class Listening(SegmentEngine):
        async def align(self, asked: AlignRequest) -> Correction:
            seen.append(asked.answer)
            assert asked.score_only
            return await super().align(asked)

    engine = Listening(lambda text: 2.0 if "fool" in text else -2.0)
    await edited(ScriptedChat(FRIENDLY), engine).align(request())
    assert seen == [ANSWER, "Take a brush. Use outdoor paint. Then paint it."]


async def test_what_is_missing_at_the_end_is_asked_for() -> None:
    engine = scorer()
    engine.missing = lambda answer: "" if "sources" in answer else " See the sources."
    chat = ScriptedChat(lambda messages: replying(dict.fromkeys(marked(messages), "See our sources.")))
    done = await edited(chat, engine).align(request("Take a brush."))
    assert done.text == "Take a brush. See our sources."
    assert marked(chat.asked[0]) == {1: ""}


FAILURES: list[tuple[CorrectionError, str]] = [
    (EngineUnavailable("away"), "away"),
    (EngineFault("500"), "fault"),
    (EngineOverloaded("429"), "full"),
    (InvalidOutput("no text"), "nonsense"),
    (DeadlineExceeded("late"), "late"),
]


@pytest.mark.parametrize("error", [failure for failure, _ in FAILURES], ids=[name for _, name in FAILURES])
async def test_where_the_editor_fails_the_aligner_edits(error: CorrectionError) -> None:
    done = await edited(ScriptedChat(lambda _: error)).align(request())
    assert done.text == "Take a brush. (by the aligner) Then paint it."
    assert done.editor == EditorUse(failed=1)
    assert done.aligner == SCRIPTED.content_hash, "so that it is not remembered as the editor's"


@pytest.mark.parametrize("reply", ["Certainly!", '{"replacements": []}'])
async def test_a_reply_without_a_form_is_a_failure_that_is_paid_for(reply: str) -> None:
    chat = ScriptedChat(lambda _: reply)
    engine = edited(chat)
    done = await engine.align(request())
    assert done.text == "Take a brush. (by the aligner) Then paint it."
    assert done.editor is not None
    assert (done.editor.calls, done.editor.failed) == (0, 1)
    assert done.editor.read > 0 < done.editor.written
    for _ in range(4):
        await engine.align(request())
    assert len(chat.asked) == 3, "a group that writes nonsense is left alone, too"


async def test_more_passages_than_fit_a_call_are_the_aligners() -> None:
    chat = ScriptedChat(FRIENDLY)
    done = await edited(chat).align(request("You fool. " * 70))
    assert (done.editor, chat.asked) == (EditorUse(failed=1), [])


async def test_another_draft_is_written_warmer() -> None:
    chat = ScriptedChat(FRIENDLY)
    await edited(chat).align(request())
    await edited(chat).align(request(draft=1))
    assert chat.temperatures == [0.0, model_group.DRAFT_TEMPERATURE]


async def test_the_editor_gets_a_share_of_the_time() -> None:
    chat = ScriptedChat(FRIENDLY)
    await edited(chat).align(request(deadline_s=10.0))
    assert 6.0 < chat.seconds[0] <= 10.0 * editor.EDITING_SHARE


async def test_an_engine_that_fails_while_it_judges_again_fails_the_answer() -> None:
    engine = scorer()
    first = engine.script

    def once(asked: AlignRequest) -> object:
        return first(asked) if "fool" in asked.answer else EngineFault("x")

    engine.script = once  # type: ignore[assignment]
    with pytest.raises(EngineFault):
        await edited(ScriptedChat(FRIENDLY), engine).align(request())


async def test_after_three_failures_the_group_is_left_alone_and_then_probed() -> None:
    now = [0.0]
    replies: list[str | CorrectionError] = [EngineUnavailable("away")]
    chat = ScriptedChat(lambda messages: replies[0] if isinstance(replies[0], CorrectionError) else FRIENDLY(messages))
    group = ModelGroup("strong", chat, clock=lambda: now[0])
    engine = EditedEngine(scorer(), ChatWriter(group))
    for _ in range(5):
        await engine.align(request())
    assert len(chat.asked) == 3
    with pytest.raises(BreakerOpen):
        await group.ask(request(), Question([], 1), str, {}, 1.0)
    now[0] += 1.0
    await engine.align(request())
    assert len(chat.asked) == 4, "one probe, which failed"
    await engine.align(request())
    assert len(chat.asked) == 4
    replies[0] = "well"
    now[0] += 5.0
    assert (await engine.align(request())).text == "Take a brush. Use outdoor paint. Then paint it."
    assert (await engine.align(request())).editor is not None
    assert len(chat.asked) == 6


def unreadable(_: Reply) -> str:
    raise InvalidOutput("no JSON")


@pytest.mark.parametrize("failure", ["late", "unreadable"])
async def test_failures_of_one_tenant_stop_no_call_of_another(failure: str) -> None:
    """They depend on its texts and on the time that it has, and once opened the circuit for all."""

    class Slow(ScriptedChat):
        async def ask(self, messages: Sequence, **settings: object) -> Reply:  # type: ignore[override,type-arg]
            await asyncio.sleep(0.1)
            return await super().ask(messages, **settings)  # type: ignore[arg-type]

    group = ModelGroup("strong", Slow(lambda _: "well"))
    question = Question([], 1)
    read, deadline_s = (str, 0.01) if failure == "late" else (unreadable, 5.0)
    for _ in range(5):
        with pytest.raises(CorrectionError):
            await group.ask(request(tenant="a"), question, read, {}, deadline_s)
    with pytest.raises(BreakerOpen):
        await group.ask(request(tenant="a"), question, str, {}, 5.0)
    _, use = await group.ask(request(tenant="b"), question, str, {}, 5.0)
    assert use.calls == 1


async def test_refused_questions_say_nothing_about_other_questions() -> None:
    """A provider's filter refuses what a judge of harmful texts is asked about on an ordinary day."""
    replies: list[str | CorrectionError] = [QuestionRefused("x")]
    group = ModelGroup("strong", ScriptedChat(lambda _: replies[0]))
    for _ in range(5):
        with pytest.raises(QuestionRefused):
            await group.ask(request(), Question([], 1), str, {}, 5.0)
    replies[0] = "well"
    _, use = await group.ask(request(), Question([], 1), str, {}, 5.0)
    assert use.calls == 1


async def test_a_cancelled_probe_says_nothing() -> None:
    now = [0.0]
    group = ModelGroup("strong", Never(), clock=lambda: now[0])
    for _ in range(3):
        group.circuit("-").note_failure(now[0])
    now[0] += 10.0
    probe = asyncio.create_task(group.ask(request(), Question([], 1), str, {}, 60.0))
    await asyncio.sleep(0)
    assert group.circuit("-").is_probing
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert not group.circuit("-").is_probing
    assert group.circuit("-").wants_probe(now[0])


class Never(ScriptedChat):
    """A model group that never answers."""

    def __init__(self) -> None:
        super().__init__(lambda _: "")

    async def ask(self, *_: object, **__: object) -> Reply:  # type: ignore[override]
        await asyncio.Event().wait()
        raise AssertionError


async def test_what_the_editor_takes_is_charged_to_the_quota() -> None:
    now = [0.0]

    class Slow(ScriptedChat):
        async def ask(self, messages: Sequence, **settings: object) -> Reply:  # type: ignore[override,type-arg]
            now[0] += 4.0
            return await super().ask(messages, **settings)  # type: ignore[arg-type]

    group = ModelGroup("strong", Slow(FRIENDLY), clock=lambda: now[0])
    metered = request(quota=Quota("a", 3.0), tenant="t")
    done = await EditedEngine(scorer(), ChatWriter(group)).align(metered)
    assert done.editor is not None
    assert done.editor.ms == pytest.approx(4_000)
    with pytest.raises(QuotaSpent):
        await EditedEngine(scorer(), ChatWriter(group)).align(metered)
    other = request(quota=Quota("b", 3.0), tenant="u")
    assert (await EditedEngine(scorer(), ChatWriter(group)).align(other)).editor is not None


async def test_who_edits_is_part_of_what_the_cache_knows_it_by() -> None:
    chat = ScriptedChat(FRIENDLY)
    plain = await scorer().info()
    strong = await edited(chat).info()
    other = await EditedEngine(scorer(), ChatWriter(ModelGroup("other", chat))).info()
    assert len({plain.content_hash, strong.content_hash, other.content_hash}) == 3
    assert (await edited(chat).align(request())).aligner == strong.content_hash


async def test_an_engine_without_a_head_takes_no_editor() -> None:
    headless = ScriptedEngine(about=replace(SCRIPTED, has_head=False))
    with pytest.raises(EngineFault, match="no detector head"):
        await edited(ScriptedChat(FRIENDLY), headless).info()


# Streams: the session gives the engine's verdicts, and the editor writes in place of a stretch.


async def session_on(chat: ScriptedChat, answer: str, engine: SegmentEngine | None = None) -> Session:
    session = await edited(chat, engine).read(request(""))
    for char in answer:
        await session.feed(char)
    await session.end()
    return session


def span(answer: str, first: int, stop: int, before: str) -> Span:
    return Span(first=first, stop=stop, end=len(answer), before=before, deadline_s=10.0)


async def test_a_stretch_of_a_stream_is_replaced() -> None:
    chat = ScriptedChat(FRIENDLY)
    session = await session_on(chat, ANSWER)
    verdicts = await session.wait_for_verdicts(0)
    assert verdicts is not None
    assert [verdict.flagged for verdict in verdicts] == [False, True, False]
    done = await session.replace(span(ANSWER, 1, 2, "Take a brush."))
    assert done.text == "Use outdoor paint."
    assert done.editor is not None
    assert marked(chat.asked[0]) == {1: "You fool."}


async def test_a_stretch_that_is_flagged_again_is_removed() -> None:
    session = await session_on(ScriptedChat(lambda _: replying({1: "Well, fool."})), ANSWER)
    await session.wait_for_verdicts(0)
    done = await session.replace(span(ANSWER, 1, 2, "Take a brush."))
    assert done.text == ""
    assert done.editor is not None
    assert done.editor.refused == 1


async def test_what_is_judged_in_a_stream_stands_behind_what_went_out() -> None:
    seen: list[str] = []

    def score(text: str) -> float:
        seen.append(text)
        return 2.0 if "fool" in text else -2.0

    session = await session_on(ScriptedChat(FRIENDLY), ANSWER, SegmentEngine(score))
    await session.wait_for_verdicts(0)
    seen.clear()
    await session.replace(span(ANSWER, 1, 2, "Take a wide brush."))
    assert seen == ["Take a wide brush.", "Use outdoor paint."]


async def test_in_a_stream_the_aligner_edits_where_the_editor_fails() -> None:
    session = await session_on(ScriptedChat(lambda _: EngineUnavailable("away")), ANSWER)
    await session.wait_for_verdicts(0)
    done = await session.replace(span(ANSWER, 1, 2, "Take a brush."))
    assert (done.text, done.editor) == ("(by the aligner)", EditorUse(failed=1))


async def test_a_held_stream_is_edited_at_its_end() -> None:
    chat = ScriptedChat(FRIENDLY)
    session = await session_on(chat, ANSWER)
    assert not chat.asked
    done = await session.finish(request())
    assert done.text == "Take a brush. Use outdoor paint. Then paint it."


# Another answer, from its beginning.


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply("Take a brush."), "Take a brush."),
        (Reply("  Take a brush.\n"), "Take a brush."),
        (Reply("Take a brush, fool."), ""),
        (Reply("Take a brush. And then", finished=False), ""),
        (Reply(" "), ""),
    ],
)
async def test_another_answer_counts_if_nothing_of_it_is_flagged(reply: Reply, text: str) -> None:
    chat = ScriptedChat(lambda _: reply)
    done = await ChatWriter(ModelGroup("strong", chat)).write_new_answer(request("You fool."), scorer(), max_tokens=100)
    assert done.text == text
    assert done.editor is not None
    assert done.editor.calls == 1
    assert chat.forms == [None]


async def test_editors_are_opened_once_a_group() -> None:
    opened: list[str] = []

    def opening(name: str) -> ScriptedChat:
        opened.append(name)
        return ScriptedChat(FRIENDLY)

    made = editor.Editors(opening)
    assert made.group("a") is made.group("a")
    assert made.group("b") is not made.group("a")
    assert opened == ["a", "b"]
