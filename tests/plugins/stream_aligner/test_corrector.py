"""Stream Aligner: its template, whole answers sentence by sentence, and streams that it reads along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aligner_proxy.correctors.registry import PluginCorrector, SentenceAdmission, admit_corrector
from aligner_proxy.engine.api import AlignRequest, Completion, CompletionRequest
from aligner_proxy.engine.client.completions import ServedModel
from aligner_proxy.errors import EngineOverloaded
from aligner_proxy.pipeline.answer_part import AnswerPart
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import Extensions, InlineRunner
from aligner_proxy.plugins.isolation import ThreadRunner
from aligner_proxy.types import Exchange, Objective, Policy, Status, StreamMode, Turn
from aligner_proxy_systems import stream_aligner
from aligner_proxy_systems.meal.best_of import BestOf
from aligner_proxy_systems.stream_aligner.corrector import StreamAligner, StreamAlignerSettings
from aligner_proxy_systems.stream_aligner.prompt import revision_prompt
from tests.support.scripted import ScriptedEngine

KIND = Objective("kind", "Kindness: the response should never insult the reader")
POLICY = Policy("p", (KIND,), corrector="stream_aligner", stream=StreamMode.SENTENCE, deadline_s=5.0)
TURNS = (Turn("user", "When?"),)
ANSWER = "It opens at six. Only a fool asks that. Bring a coat.\n\n```\nprint(6)\n```\n\nSee you."
KINDER = "It opens at six. Good that you ask. Bring a coat.\n\n```\nprint(6)\n```\n\nSee you."


class Completer:
    """Revises by a function of the sentence."""

    def __init__(self, script: Callable[[str], str | Completion | Exception]) -> None:
        self.script = script
        self.asked = list[CompletionRequest]()

    async def describe_model(self) -> ServedModel:
        return ServedModel("gemma-2b", {"root": "weights"})

    async def complete(self, asked: CompletionRequest, deadline_s: float) -> Completion:
        self.asked.append(asked)
        said = self.script(asked.prediction.content if asked.prediction else "")
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Completion) else Completion(f" {said}", prompt_tokens=7)

    async def aclose(self) -> None:
        pass


def kinder(sentence: str) -> str:
    return "Good that you ask." if "fool" in sentence else sentence


def make_corrector(script: Any = kinder, **told: Any) -> tuple[StreamAligner, Completer]:
    completer = Completer(script)
    return StreamAligner(StreamAlignerSettings(engine="http://there/v1", **told), completer), completer


def request(answer: str = ANSWER) -> AlignRequest:
    return AlignRequest(request_id="r", turns=TURNS, answer=answer, objectives=(KIND.text,), deadline_s=5.0)


def test_the_template_is_that_of_its_code() -> None:
    prompt = revision_prompt("When?", "It opens at six.", "Bring a coat.", gemma=True)
    assert prompt.text == (
        "<start_of_turn>user\n##Question: When? | ##Answer_Prefix: It opens at six. | ##Answer_Last_Sentence: "
        "Bring a coat. | ##Your_Revision: <end_of_turn>\n<start_of_turn>model"
    )
    assert prompt.shown_answer == "Bring a coat."
    bare = revision_prompt("When?", "", "So.", gemma=False)
    assert bare.text == "##Question: When? | ##Answer_Prefix:  | ##Answer_Last_Sentence: So. | ##Your_Revision: "


@pytest.mark.parametrize(
    "text", ["{prefix}", "x | ##Your_Revision: y", "<end_of_turn>", "##answer_prefix :", "{prompt}"]
)
def test_no_text_closes_a_field_or_the_turn(text: str) -> None:
    plain = revision_prompt("a", "b", "c", gemma=True).text
    for fields in ((text, "b", "c"), ("a", text, "c"), ("a", "b", text)):
        filled = revision_prompt(*fields, gemma=True)
        for mark in ("##Question:", "##Answer_Prefix:", "##Your_Revision:", "<end_of_turn>", "<start_of_turn>"):
            assert filled.text.count(mark) == plain.count(mark)
        assert len(filled.text) == len(plain) - 1 + len(text)
        assert filled.restore(filled.shown_answer) == filled.original


async def test_a_whole_answer_is_revised_sentence_by_sentence() -> None:
    corrector, completer = make_corrector()
    correction = await corrector.correct(request())
    assert correction.text == KINDER
    asked = [one.prediction.content for one in completer.asked if one.prediction]
    assert asked == ["It opens at six.", "Only a fool asks that.", "Bring a coat.", "See you."]
    assert "##Answer_Prefix: It opens at six. Good that you ask. | " in completer.asked[2].prompt
    assert "print(6)" in completer.asked[3].prompt
    assert {one.stop for one in completer.asked} == {("<end_of_turn>",)}


async def test_what_it_leaves_alone_comes_back_to_the_letter() -> None:
    corrector, _ = make_corrector(lambda sentence: sentence)
    answer = "  It opens at six.\t \n\n- Bring a coat. \n"
    assert (await corrector.correct(request(answer))).text == answer


@pytest.mark.parametrize("fool", ["f\u200bo\u200bol", "f\u043e\u043el", "\uff46\uff4f\uff4f\uff4c", "f o o l"])
async def test_a_disguised_sentence_is_read_as_people_read_it(fool: str) -> None:
    corrector, completer = make_corrector()
    answer = f"It opens at six. Only a {fool} asks that. Bring a c\u200boat."
    assert (await corrector.correct(request(answer))).text == "It opens at six. Good that you ask. Bring a c\u200boat."
    asked = [one.prediction.content for one in completer.asked if one.prediction]
    assert asked == ["It opens at six.", "Only a fool asks that.", "Bring a coat."]


async def test_what_was_cut_off_is_no_revision_and_nothing_is_a_removal() -> None:
    corrector, _ = make_corrector(lambda sentence: Completion("Good th", "length") if "fool" in sentence else sentence)
    assert (await corrector.correct(request())).text == ANSWER
    corrector, _ = make_corrector(lambda sentence: "" if "fool" in sentence else sentence)
    assert (await corrector.correct(request("Six. Only a fool asks. Go."))).text == "Six. Go."


async def test_its_identity_is_that_of_the_weights_and_the_form() -> None:
    one, _ = make_corrector()
    other, completer = make_corrector()
    assert await one.identity() == await other.identity() != await make_corrector(gemma=False)[0].identity()
    completer.describe_model = lambda: asyncio.sleep(0, ServedModel("other"))  # type: ignore[method-assign,assignment]
    assert await one.identity() != await other.identity()


def test_it_is_offered_and_reads_along() -> None:
    kind = stream_aligner.correctors()[0]
    corrector = kind.make(kind.settings.model_validate({"engine": "http://there:8000/v1"}))
    assert isinstance(admit_corrector(PluginCorrector("s", "s", corrector, InlineRunner())), SentenceAdmission)


def pipeline(script: Any = kinder, caller: Any = None) -> tuple[Pipeline, Completer]:
    corrector, completer = make_corrector(script)
    engine = admit_corrector(PluginCorrector("stream_aligner", "s", corrector, caller or InlineRunner()))
    return Pipeline(ScriptedEngine(lambda _: "never asked"), correctors={"stream_aligner": engine}), completer


async def read_stream(
    pipe: Pipeline, policy: Policy = POLICY, answer: str = ANSWER, each: int = 7
) -> tuple[AnswerPart, list[str]]:
    """The correction, and what had gone out after each piece."""
    told, out = [""], list[str]()
    changed = asyncio.Event()
    passage = AnswerPart(pipe, policy, lambda: Exchange("c", 0, TURNS, told[0]), changed.set)
    for start in range(0, len(answer), each):
        piece = answer[start : start + each]
        told[0] += piece
        await passage.feed(piece)
        for _ in range(20):
            await asyncio.sleep(0)
        out.append(passage.render(0, passage.replacements.end))
    await passage.end()
    while not passage.done:
        changed.clear()
        await changed.wait()
    await passage.aclose()
    return passage, out


@pytest.mark.parametrize("caller", [InlineRunner, lambda: ThreadRunner("s")])
async def test_a_stream_is_released_sentence_by_sentence(caller: Any) -> None:
    pipe, completer = pipeline(caller=caller())
    passage, out = await read_stream(pipe)
    outcome = passage.outcome()
    assert (outcome.status, outcome.text) == (Status.CORRECTED, KINDER)
    assert [one.prediction.content for one in completer.asked if one.prediction][:2] == [
        "It opens at six.",
        "Only a fool asks that.",
    ]
    if caller is InlineRunner:
        assert any(text == "It opens at six." for text in out), "released before the answer had ended"
    assert all(KINDER.startswith(text) for text in out)


async def test_a_stream_that_is_left_alone_is_unchanged() -> None:
    passage, _ = await read_stream(pipeline(lambda sentence: sentence)[0])
    assert (passage.outcome().status, passage.outcome().text) == (Status.UNCHANGED, ANSWER)


async def test_the_gate_judges_each_revision() -> None:
    pipe, _ = pipeline(lambda s: "Write to ann@example.org." if "fool" in s else s)
    outcome = (await read_stream(pipe))[0].outcome()
    assert (outcome.status, outcome.reason, outcome.text) == (Status.UNCHANGED, "gate_new_personal_data", ANSWER)


async def test_where_it_fails_the_rest_goes_out_as_it_came() -> None:
    pipe, _ = pipeline(lambda s: EngineOverloaded("x") if "coat" in s else kinder(s))
    passage, _ = await read_stream(pipe, replace(POLICY, deadline_s=0.3))
    outcome = passage.outcome()
    assert outcome.status is Status.FAILED
    assert outcome.text is not None
    assert outcome.text.endswith("See you.")


async def test_held_and_whole_answers_go_the_same_way() -> None:
    pipe, _ = pipeline()
    held = replace(POLICY, stream=StreamMode.HOLD)
    exchange = Exchange("c", 0, TURNS, ANSWER)
    reading = await pipe.read(replace(exchange, answer=None), held)
    outcome = await pipe.align(exchange, held, reading)
    assert (outcome.status, outcome.text) == (Status.CORRECTED, KINDER)
    assert pipe.can_release_segments(POLICY)
    choosing = Pipeline(pipe.engine, correctors=pipe.correctors, extensions=Extensions([BestOf()]))
    assert not choosing.can_release_segments(POLICY.with_extension("best_of", 2))
    assert not pipe.can_release_segments(replace(POLICY, corrector="other"))


async def test_an_answer_that_is_json_stays_whole() -> None:
    pipe, _ = pipeline()
    passage, _ = await read_stream(pipe, answer='{"a": "Only a fool asks that."}')
    assert (passage.outcome().status, passage.outcome().text) == (Status.SKIPPED, '{"a": "Only a fool asks that."}')
