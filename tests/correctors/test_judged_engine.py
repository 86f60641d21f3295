"""A judge over an engine with a model: whole answers, answers that were read ahead, and sentence by sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aligner_proxy.correctors.judge import Judges
from aligner_proxy.correctors.judged_engine import JudgedEngine
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.client.edited_engine import locate_segments
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import EngineFault
from aligner_proxy.text import structure
from aligner_proxy.types import AskAbout, Correction, Judge, Objective, Policy, SegmentScore, Verify
from tests.support import tiny
from tests.support.editors import ScriptedChat
from tests.support.judges import judges, judging
from tests.support.scripted import SCRIPTED, ScriptedEngine

pytestmark = pytest.mark.model
ANSWER = "Take a brush. You sly dog. Then paint the fence. Let it dry."
POLICY = Policy(
    "p",
    (Objective("kind", "Kindness: the response should never insult the reader"),),
    judge=Judge(group="strong", ask=AskAbout.ALL),
)


def request(**settings: object) -> AlignRequest:
    # the small model's head is random, so nothing is flagged but by the judge
    asked = tiny.request(deadline_s=60.0, caution=1e9)
    return asked.model_copy(update={"answer": ANSWER, "verify": Verify.FLAGGED, **settings})


async def read_ahead(engine: JudgedEngine, *, sees_verdicts: bool) -> Correction:
    """The correction of an answer that came in pieces."""
    session = await engine.read(request(answer=""))
    for piece in (ANSWER[:20], ANSWER[20:45], ANSWER[45:]):
        await session.feed(piece)
    if sees_verdicts:
        await session.wait_for_verdicts(0)
    return await session.finish(request())


async def test_align_and_finish_come_to_the_same() -> None:
    local = LocalEngine(tiny.aligner)
    await local.start()
    for flagged in (lambda text: "dog" in text, lambda _: False, lambda _: True):
        made: Judges = judges(ScriptedChat(judging(flagged)))
        engine = JudgedEngine(local, made.open(POLICY))
        whole = await engine.align(request())
        assert [score.flagged for score in whole.segments if score.text] == [
            flagged(piece.text) for piece in structure.split(ANSWER)
        ]
        assert "dog" not in whole.text or not flagged("dog")
        assert whole.aligner == (await engine.info()).content_hash != (await local.info()).content_hash
        for sees_verdicts in (False, True):
            done = await read_ahead(engine, sees_verdicts=sees_verdicts)
            assert (done.text, done.aligner) == (whole.text, whole.aligner)
            assert [score.flagged for score in done.segments] == [score.flagged for score in whole.segments]
    await local.aclose()


async def test_what_is_not_flagged_stays_byte_for_byte() -> None:
    local = LocalEngine(tiny.aligner)
    await local.start()
    engine = JudgedEngine(local, judges(ScriptedChat(judging(lambda text: "dog" in text))).open(POLICY))
    done = await engine.align(request())
    assert done.text.startswith("Take a brush.")
    assert done.text.endswith("Then paint the fence. Let it dry.")
    unchanged = await engine.align(request(score_only=True))
    assert (unchanged.text, [score.flagged for score in unchanged.segments if score.text][1]) == (ANSWER, True)
    await local.aclose()


async def test_info_refuses_an_engine_without_a_head() -> None:
    engine = ScriptedEngine(about=replace(SCRIPTED, has_head=False))
    with pytest.raises(EngineFault, match="has no detector head"):
        await JudgedEngine(engine, judges(ScriptedChat(judging(bool))).open(POLICY)).info()


def test_locate_segments_finds_each_with_the_white_space_behind_it() -> None:
    for answer in (ANSWER, "- Paint.\n- Paint.\n\n  Paint.", "One."):
        pieces = structure.split(answer)
        scores = [SegmentScore(piece.text, 0.0, False) for piece in pieces]
        located = locate_segments(answer, scores)
        assert [(one.start, one.text) for one in located] == [(one.start, one.text) for one in pieces]
        assert [one.gap for one in located[:-1]] == [one.gap for one in pieces[:-1]]
    with pytest.raises(EngineFault):
        locate_segments(ANSWER, [SegmentScore("Something else.", 0.0, False)])
