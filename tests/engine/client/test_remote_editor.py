"""A small head in front of a big editor: who is asked when, with what, and what can never happen to kept text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest, Completion, CompletionRequest, Prediction
from aligner_proxy.engine.client.completions import CompletionsClient, ServedModel
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner, estimate_tokens
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.decoding import splice
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import AnswerTooLong, DeadlineExceeded, EngineFault, EngineUnavailable
from aligner_proxy.text import structure
from aligner_proxy.types import Correction, SegmentScore, Verify
from tests.support import tiny
from tests.support.sampling import examples
from tests.support.scripted import SCRIPTED, ScriptedEngine
from tests.support.serving import Completions, completing, engine_at, refused_port

FAMILY = prompts.TEMPLATES["ultrafeedback"]
ANSWER = "The harbour opens at nine. You fool, look it up. Boats leave every hour from the pier."


class Memory:
    """A `Completer` in memory: it says one thing after the other."""

    def __init__(self, *said: Completion) -> None:
        self.said = list(said)
        self.asked = list[CompletionRequest]()

    async def describe_model(self) -> ServedModel:
        return ServedModel("big", window=4096)

    async def complete(self, asked: CompletionRequest, deadline_s: float) -> Completion:
        self.asked.append(asked)
        return self.said[(len(self.asked) - 1) % len(self.said)]

    async def aclose(self) -> None:
        """Nothing to close."""


def scorer(*flags: int, again: Mapping[str, float] | None = None, answers: list[str] | None = None) -> ScriptedEngine:
    """Scores 2 for the segments with these numbers of the first answer, and as in `again` the texts of others; else -2.

    Whoever asks it asks for scores alone. `answers` gets those that it is asked about.
    """
    asked: list[str] = [] if answers is None else answers

    def script(request: AlignRequest) -> Correction:
        asked.append(request.answer)
        pieces = structure.split(request.answer)
        scores = [2.0 if i in flags else -2.0 for i in range(len(pieces))]
        if request.answer != asked[0]:
            scores = [(again or {}).get(piece.text, -2.0) for piece in pieces]
        verdicts = tuple(SegmentScore(p.text, s, s > request.caution, 0) for p, s in zip(pieces, scores, strict=True))
        assert request.score_only, "it was asked to judge, not to write"
        return Correction(request.answer, verdicts)

    return ScriptedEngine(script)


def written(text: str, **more: Any) -> Completion:
    """What an editor wrote, ended by itself."""
    return Completion(text, **more)


async def test_nothing_flagged_never_leaves_the_machine() -> None:
    editor = Memory(written("x"))
    engine = EditedEngine(scorer(), CompletionsAligner(editor, FAMILY))
    done = await engine.align(tiny.request(ANSWER))
    assert done.text == ANSWER
    assert not editor.asked
    assert [s.flagged for s in done.segments] == [False] * 3
    assert done.aligner == (await engine.info()).content_hash


async def test_the_editor_is_given_what_stands_before_and_writes_the_flagged_run_alone() -> None:
    editor = Memory(written(" Please look it up. ", stop_reason="Boats leave every hour"))
    engine = EditedEngine(scorer(1), CompletionsAligner(editor, FAMILY))
    request = tiny.request(ANSWER)
    done = await engine.align(request)
    assert done.text == "The harbour opens at nine. Please look it up. Boats leave every hour from the pier."
    assert [s.flagged for s in done.segments] == [False, True, False]
    [asked] = editor.asked
    whole = prompts.render(FAMILY, request.turns[0].content, ANSWER, request.objectives)
    assert asked.prompt == whole.text + "The harbour opens at nine."
    assert asked.stop == ("Boats leave every hour",)
    assert asked.prediction == Prediction(content=" You fool, look it up. Boats leave every hour from the pier.")
    assert asked.max_tokens < 50


async def test_the_editor_reads_no_disguise_and_kept_segments_stay_in_it() -> None:
    hidden = "\u200b".join
    first, rude, last = structure.split(ANSWER)
    answer = f"{hidden(first.text)} {hidden(rude.text)} {hidden(last.text)}"
    editor = Memory(written(" Please look it up. ", stop_reason="Boats leave every hour"))
    done = await EditedEngine(scorer(1), CompletionsAligner(editor, FAMILY)).align(tiny.request(answer))
    assert done.text == f"{hidden(first.text)} Please look it up. {hidden(last.text)}"
    [asked] = editor.asked
    assert "\u200b" not in asked.model_dump_json()
    assert "\\u200b" not in asked.model_dump_json()


async def test_caution_is_the_requests_and_acts_on_the_heads_scores() -> None:
    editor = Memory(written(""))
    engine = EditedEngine(scorer(1), CompletionsAligner(editor, FAMILY))
    assert (await engine.align(tiny.request(ANSWER, caution=3.0))).text == ANSWER
    assert not editor.asked
    done = await engine.align(tiny.request(ANSWER, caution=1.0))
    assert done.text == "The harbour opens at nine. Boats leave every hour from the pier."


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (written(" Please look it up. Boats leave every hour from"), " Please look it up."),
        (written(" Please look ", stop_reason="Boats leave every hour"), ""),
        (written(" Please look it up. He said: ", stop_reason="Boats leave every hour"), " Please look it up."),
        (written(" Please look it up. And th"), " Please look it up."),
        (written(" Please look it up. And th", finish_reason="length"), " Please look it up."),
        (written(" You fool, look it up. Sorry."), " Sorry."),
        (written(""), ""),
    ],
)
async def test_what_becomes_of_the_editors_text(said: Completion, kept: str) -> None:
    engine = EditedEngine(scorer(1), CompletionsAligner(Memory(said), FAMILY))
    done = await engine.align(tiny.request(ANSWER))
    assert done.text == f"The harbour opens at nine.{kept} Boats leave every hour from the pier."


@pytest.mark.parametrize(
    ("score", "caution", "kept"),
    [(2.0, 0.0, ""), (-1.9, 0.0, ""), (-2.0, 0.0, " You oaf, look."), (-0.9, 1.0, ""), (-1.0, 1.0, " You oaf, look.")],
)
async def test_what_the_editor_writes_has_to_be_clear_of_the_threshold_where_it_stands(
    score: float, caution: float, kept: str
) -> None:
    answers: list[str] = []
    head = scorer(1, again={"You oaf, look.": score}, answers=answers)
    editor = Memory(written(" You oaf, look. It is there. ", stop_reason="Boats leave every hour"))
    done = await EditedEngine(head, CompletionsAligner(editor, FAMILY)).align(tiny.request(ANSWER, caution=caution))
    assert done.text == f"The harbour opens at nine.{kept} It is there. Boats leave every hour from the pier."
    assert answers[1:] == ["The harbour opens at nine. You oaf, look. It is there."]


async def test_nothing_is_judged_again_where_nothing_was_written() -> None:
    answers: list[str] = []
    head = scorer(1, answers=answers)
    await EditedEngine(head, CompletionsAligner(Memory(written("")), FAMILY)).align(tiny.request(ANSWER))
    assert answers == [ANSWER]


SENTENCES = st.lists(
    st.sampled_from(
        ["It opens at nine.", "- Tea", "You fool!", "| Answer: no", "Ask <|im_end|> there.", "Boats leave every hour."]
    ),
    min_size=1,
    max_size=7,
)


@settings(deadline=None, max_examples=examples(150))
@given(SENTENCES, st.sets(st.integers(0, 6)), st.lists(st.text(max_size=80), min_size=1, max_size=4), st.booleans())
async def test_kept_segments_stand_in_their_order_whatever_the_editor_says(
    sentences: list[str], flags: set[int], said: list[str], finished: bool
) -> None:
    answer = "\n".join(sentences)
    editor = Memory(*(Completion(text, "stop" if finished else "length") for text in said))
    engine = EditedEngine(scorer(*flags), CompletionsAligner(editor, FAMILY))
    done = await engine.align(tiny.request(answer))
    at = 0
    for verdict in done.segments:
        if not verdict.flagged:
            found = done.text.find(verdict.text, at)
            assert found >= 0, (done.text, verdict.text)
            at = found + len(verdict.text)
    assert len(editor.asked) == sum(
        v.flagged and (i == 0 or not done.segments[i - 1].flagged) for i, v in enumerate(done.segments)
    )


async def test_verify_always_asks_for_the_whole_and_keeps_the_verdicts() -> None:
    editor = Memory(written("All of it anew."))
    done = await EditedEngine(scorer(1), CompletionsAligner(editor, FAMILY)).align(
        tiny.request(ANSWER, verify=Verify.ALWAYS)
    )
    assert done.text == "All of it anew."
    assert [s.score for s in done.segments] == [-2.0, 2.0, -2.0]
    assert not editor.asked[0].prompt.endswith("nine.")


async def test_who_they_are_together() -> None:
    engine = EditedEngine(scorer(), CompletionsAligner(Memory(written("")), FAMILY))
    about = await engine.info()
    assert (about.model, about.has_head, about.window) == ("big after scripted", True, 4096)
    other = EditedEngine(scorer(), CompletionsAligner(Memory(written("")), FAMILY, revision="2"))
    assert (await other.info()).content_hash != about.content_hash


async def test_a_scorer_without_a_head_is_refused() -> None:
    from dataclasses import replace

    headless = ScriptedEngine(about=replace(SCRIPTED, has_head=False))
    engine = EditedEngine(headless, CompletionsAligner(Memory(written("")), FAMILY))
    with pytest.raises(EngineFault, match="no detector head"):
        await engine.align(tiny.request(ANSWER))


async def test_a_scorer_that_judged_something_else_is_a_fault() -> None:
    odd = ScriptedEngine(lambda request: Correction(request.answer, (SegmentScore("Other.", 2.0, False),)))
    with pytest.raises(EngineFault, match="other segments"):
        await EditedEngine(odd, CompletionsAligner(Memory(written("")), FAMILY)).align(tiny.request(ANSWER))


async def test_real_servers_a_tiny_head_here_and_an_editor_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real sockets: the verdicts are those of the head alone, read while the answer is written, too."""
    monkeypatch.setattr(splice, "CLEAR_MARGIN", -10.0)  # the scores of a tiny head lie close together
    judge = LocalEngine(lambda: tiny.aligner())
    await judge.start()
    server = Completions(lambda body: " Thank you.")
    async with engine_at(judge) as address, completing(server) as base:
        engine = EditedEngine(HttpEngine(address), CompletionsAligner(CompletionsClient(base), FAMILY))
        alone = await judge.align(tiny.request(caution=1e6))
        scores = sorted(s.score for s in alone.segments if s.score is not None)
        request = tiny.request(caution=scores[-1] - 1e-6)  # one segment stands out
        done = await engine.align(request)
        assert [s.score for s in done.segments] == pytest.approx([s.score for s in alone.segments], abs=1e-4)
        assert len(server.asked) == 1
        assert "Thank you." in done.text

        reading = await engine.read(request.model_copy(update={"answer": ""}))
        for start in range(0, len(request.answer), 40):
            await reading.feed(request.answer[start : start + 40])
        again = await reading.finish(request)
        await reading.aclose()
        assert again.text == done.text
        assert len(server.asked) == 2
        await engine.aclose()
    await judge.aclose()


async def test_an_editor_that_is_away_or_slow_or_too_small_is_named() -> None:
    away = CompletionsClient(f"http://127.0.0.1:{refused_port()}/v1", "big", wait_s=0.0)
    with pytest.raises(EngineUnavailable):
        await EditedEngine(scorer(1), CompletionsAligner(away, FAMILY)).align(tiny.request(ANSWER))
    async with completing(Completions(lambda body: "x", delay_s=30.0)) as base:
        slow = EditedEngine(scorer(1), CompletionsAligner(CompletionsClient(base), FAMILY))
        with pytest.raises(DeadlineExceeded):
            await slow.align(tiny.request(ANSWER, deadline_s=0.3))
        await slow.aclose()
    small = EditedEngine(scorer(1), CompletionsAligner(Memory(written("")), FAMILY, window=256))
    with pytest.raises(AnswerTooLong):
        await small.align(tiny.request(ANSWER * 20))


async def test_in_a_long_answer_only_the_part_of_a_flagged_run_is_sent() -> None:
    answer = " ".join(f"{number}: {ANSWER}" for number in range(40))
    flagged = [n for n, piece in enumerate(structure.split(answer)) if piece.text.startswith("You fool")]
    editor = Memory(written(""))
    done = await EditedEngine(scorer(*flagged), CompletionsAligner(editor, FAMILY, window=768)).align(
        tiny.request(answer)
    )
    assert done.text == answer.replace(" You fool, look it up.", "")
    assert len(editor.asked) == len(flagged)
    assert all(estimate_tokens(asked.prompt) + asked.max_tokens <= 768 for asked in editor.asked)


async def test_a_flagged_run_that_spans_several_parts_is_written_part_by_part() -> None:
    answer = " ".join(f"{number}: {ANSWER}" for number in range(40))
    count = len(structure.split(answer))
    editor = Memory(written(" Please look it up."))
    engine = EditedEngine(scorer(*range(2, count - 2)), CompletionsAligner(editor, FAMILY, window=768))
    done = await engine.align(tiny.request(answer))
    assert done.text.startswith(structure.split(answer)[0].text)
    assert done.text.endswith(structure.split(answer)[-1].text)
    assert len(editor.asked) > 2
    assert all(estimate_tokens(asked.prompt) + asked.max_tokens <= 768 for asked in editor.asked)
