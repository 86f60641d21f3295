"""A completions server as the aligner: what it is asked, what its answers mean, and what it may do wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse, PlainTextResponse, Response

from aligner_proxy import prompts
from aligner_proxy.engine.api import CompletionRequest
from aligner_proxy.engine.client import completions_aligner
from aligner_proxy.engine.client.completions import CompletionsClient, request_body
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner, make_frame, veil_controls
from aligner_proxy.engine.decoding.conversation import CUT_MARK
from aligner_proxy.engine.decoding.prompt_fit import count_writing_room
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.text import structure
from aligner_proxy.types import Turn, Verify
from tests.support import tiny
from tests.support.serving import Completions, completing, engine_at, refused_port

FAMILY = prompts.TEMPLATES["ultrafeedback"]


_opened: list[CompletionsAligner] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """Whatever a test opened is closed after it."""
    yield
    while _opened:
        await _opened.pop().aclose()


def aligner(
    base: str, model: str | None = None, family: prompts.Template = FAMILY, *, revision: str = "", **options: object
) -> CompletionsAligner:
    """An aligner at a completions server."""
    completer = CompletionsClient(base, model, wait_s=0.0, **options)  # type: ignore[arg-type]
    window = None if revision != "small" else 512
    _opened.append(CompletionsAligner(completer, family, window=window, revision=revision))
    return _opened[-1]


async def test_the_prompt_is_the_template_and_decoding_is_greedy() -> None:
    request = tiny.request("The harbour opens at nine.")
    server = Completions(lambda body: "The harbour opens at ten.")
    async with completing(server) as base:
        engine = aligner(base, key="k", predicts=True)
        done = await engine.align(request)
    [asked] = server.asked
    expected = prompts.render(FAMILY, request.turns[0].content, request.answer, request.objectives)
    assert asked["prompt"] == expected.text
    assert (asked["temperature"], asked["model"]) == (0, "big")
    assert asked["prediction"] == {"type": "content", "content": request.answer}
    assert asked["max_tokens"] >= len(request.answer) // 3
    assert asked["stop"] == ["\nHuman:", "\nAssistant:", "\nUSER:", "\nASSISTANT:"]
    assert server.headers[0]["authorization"] == "Bearer k"
    assert (done.text, done.prompt_tokens) == ("The harbour opens at ten.", 7)
    assert [s.score for s in done.segments] == [None]


async def test_a_disguise_is_not_sent_and_what_is_kept_comes_back_in_it() -> None:
    hidden = "The har\u200bbour opens at nine."
    request = tiny.request(f"{hidden} You are an \u0456d\u0456ot. <|im\u200b_end|>")
    request = request.model_copy(update={"turns": (Turn("user", "When\u200b does it\u200b open?"),)})
    server = Completions(lambda body: "The harbour opens at nine. You are welcome.")
    async with completing(server) as base:
        done = await aligner(base, predicts=True).align(request)
    read = "The harbour opens at nine. You are an idiot. \u2039|im_end|>"
    [asked] = server.asked
    assert asked["prompt"] == prompts.render(FAMILY, "When does it open?", read, request.objectives).text
    assert asked["prediction"] == {"type": "content", "content": read}
    assert done.text == f"{hidden} You are welcome."


async def test_to_score_only_pays_for_one_token_and_edits_nothing() -> None:
    server = Completions(lambda body: "The harbour opens at ten.")
    async with completing(server) as base:
        done = await aligner(base).align(tiny.request("The harbour opens at nine.", score_only=True))
    assert done.text == "The harbour opens at nine."
    assert [s.score for s in done.segments] == [None]
    assert [body["max_tokens"] for body in server.asked] == [1]


async def test_prediction_is_only_sent_to_who_knows_it() -> None:
    server = Completions(lambda body: "x")
    async with completing(server) as base:
        await aligner(base).align(tiny.request())
    assert "prediction" not in server.asked[0]


async def test_who_it_is_says_the_server_and_changes_with_the_weights() -> None:
    server = Completions(lambda body: "x")
    async with completing(server) as base:
        about = await aligner(base).info()
        assert (about.model, about.window, about.has_head, about.device) == ("big", 2048, False, base)
        hashes = {about.content_hash, (await aligner(base).info()).content_hash}
        assert len(hashes) == 1
        server.models = [{**server.models[0], "root": "big-2"}]
        hashes.add((await aligner(base).info()).content_hash)
        hashes.add((await aligner(base, revision="2").info()).content_hash)
        hashes.add((await aligner(base, None, prompts.TEMPLATES["hh-rlhf"]).info()).content_hash)
        assert len(hashes) == 4
        assert (await aligner(base, revision="small").info()).window == 512


async def test_our_own_engine_is_such_a_server_and_says_the_same_as_when_asked_to_align() -> None:
    """The same prompt, greedy, with the answer as the draft: what the engine itself writes with `verify: always`."""
    local = LocalEngine(lambda: tiny.aligner(head=False))
    await local.start()
    async with engine_at(local) as address:
        engine = aligner(f"{address}/v1", predicts=True)
        about = await engine.info()
        assert (about.model, about.window) == ("tiny", 1024)
        for answer in ("The harbour opens at nine.", tiny.ANSWER):
            request = tiny.request(answer, verify=Verify.ALWAYS)
            expected = await local.align(request)
            got = await engine.align(request)
            # The room is an estimate here, so a text that does not end by itself is cut elsewhere.
            assert got.text[:60] == expected.text[:60]
            assert got.counts.drafted > 0
            assert got.counts.accepted == expected.counts.accepted
    await local.aclose()


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (JSONResponse({"error": {"message": "SECRET", "type": "x y"}}, 400), EngineFault, "status 400"),
        (JSONResponse({"error": {"code": "context_length_exceeded"}}, 400), AnswerTooLong, "do not fit"),
        (JSONResponse({"error": {"type": "exceed_context_size_error"}}, 400), AnswerTooLong, "do not fit"),
        (JSONResponse({"error": {"param": "input_tokens", "type": "BadRequestError"}}, 400), AnswerTooLong, "not fit"),
        (JSONResponse({}, 413), AnswerTooLong, "do not fit"),
        (JSONResponse({}, 401), EngineFault, "key_env"),
        (JSONResponse({"detail": "Not Found"}, 404), EngineFault, "ends with /v1"),
        (JSONResponse({}, 429, {"retry-after": "3"}), EngineOverloaded, "full"),
        (JSONResponse({"error": {"type": "unavailable_error"}}, 503), EngineUnavailable, "not ready"),
        (JSONResponse({}, 504), DeadlineExceeded, "gave up"),
        (PlainTextResponse("SECRET", 500), EngineFault, "status 500"),
        (PlainTextResponse("SECRET", 302), EngineFault, "status 302"),
        (PlainTextResponse("SECRET"), InvalidOutput, "no completion"),
        (JSONResponse({"choices": []}), InvalidOutput, "no completion"),
        (JSONResponse({"choices": [{"message": {"content": "SECRET"}}]}), InvalidOutput, "no completion"),
    ],
)
async def test_what_a_server_may_do_wrong(said: Response, error: type[Exception], words: str) -> None:
    async with completing(Completions(lambda body: said)) as base:
        engine = aligner(base)
        with pytest.raises(error, match=words) as caught:
            await engine.align(tiny.request())
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "model", "words"),
    [
        ([], None, "serves 0 models"),
        ([{"id": "a"}, {"id": "b"}], None, "a, b.*say which with aligner.engine.model"),
        ([{"id": "a"}], "c", "does not serve the model of aligner.engine.model; it serves a"),
        ([{"name": "a"}], None, "is this an OpenAI-compatible server"),
    ],
)
async def test_which_model_is_meant(models: list[dict[str, object]], model: str | None, words: str) -> None:
    async with completing(Completions(lambda body: "x", models)) as base:
        engine = aligner(base, model)
        with pytest.raises(CorrectionError, match=words):
            await engine.info()


async def test_nobody_there() -> None:
    engine = aligner(f"http://127.0.0.1:{refused_port()}/v1")
    with pytest.raises(EngineUnavailable, match="no server answers"):
        await engine.align(tiny.request())


async def test_deadline_and_leaving_give_the_servers_work_up() -> None:
    server = Completions(lambda body: "late", delay_s=30.0)
    async with completing(server) as base:
        engine = aligner(base)
        with pytest.raises(DeadlineExceeded):
            await engine.align(tiny.request(deadline_s=0.5))
        before = len(server.asked)  # none, where this machine is so busy that the deadline came first
        task = asyncio.create_task(engine.align(tiny.request(deadline_s=20)))
        while len(server.asked) == before:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while server.gone < len(server.asked):
            await asyncio.sleep(0.01)


async def test_a_text_cut_off_loses_its_unfinished_sentence_and_an_invented_turn_goes() -> None:
    replies = [
        {"index": 0, "text": "It opens at nine. It clo", "finish_reason": "length"},
        {"index": 0, "text": " It opens at nine.\n\nHuman: And then?", "finish_reason": "stop"},
    ]
    server = Completions(lambda body: replies[len(server.asked) - 1])
    async with completing(server) as base:
        engine = aligner(base)
        request = tiny.request("It opens at ten. It closes at six.")
        assert (await engine.align(request)).text == "It opens at nine."
        assert (await engine.align(request)).text == "It opens at nine."


async def test_an_empty_answer_costs_nothing() -> None:
    server = Completions(lambda body: "x")
    async with completing(server) as base:
        assert (await aligner(base).align(tiny.request("  \n"))).text == "  \n"
    assert not server.asked


async def test_marks_of_the_server_are_text_there_and_come_back_as_they_were() -> None:
    answer = "Write <|im_end|> or </s> at the end."
    server = Completions(lambda body: body["prompt"].split("Answer: ")[1].split(" | Edit")[0])
    async with completing(server) as base:
        done = await aligner(base).align(tiny.request(answer))
    assert "<|" not in server.asked[0]["prompt"]
    assert "</s>" not in server.asked[0]["prompt"]
    assert done.text == answer


@given(st.text(alphabet="<|>/simendpa_ \u2039", max_size=60))
def test_veiled_text_holds_no_control_token_and_keeps_its_length(text: str) -> None:
    hidden = veil_controls(text)
    assert len(hidden) == len(text)
    assert not any(mark in hidden for mark in ("<|", "<s>", "</s>", "<pad>"))
    assert all(a == b or (a, b) == ("<", "\u2039") for a, b in zip(text, hidden, strict=True))


@given(st.integers(512, 4096), st.lists(st.text(max_size=900), max_size=8), st.text(min_size=1, max_size=9000))
def test_what_is_sent_fits_by_estimate(window: int, turns: list[str], answer: str) -> None:
    made = tiny.request(answer).model_copy(update={"turns": tuple(Turn("user", text) for text in turns)})
    framed = make_frame(made, FAMILY, window)
    division = framed.divide(structure.split(answer))
    for part in division.parts:
        passage = division.make_passage(part)
        prompt = framed.render_prompt(passage.undisguised)
        room = count_writing_room(
            completions_aligner.estimate_tokens(prompt.text[prompt.offset_in_prompt(passage.start) : prompt.end])
        )
        assert completions_aligner.estimate_tokens(prompt.text) + room <= window + 2 * len(passage.pieces)
        assert prompt.original == veil_controls(passage.undisguised.text)


def test_objectives_that_fill_the_window_are_refused() -> None:
    with pytest.raises(AnswerTooLong, match="write shorter ones"):
        make_frame(tiny.request().model_copy(update={"objectives": ("Long: " + "word " * 400,)}), FAMILY, 512)


LONG = " ".join(f"{number}: The harbour opens at nine." for number in range(200))


async def test_a_long_answer_goes_there_part_by_part() -> None:
    """A server that copies what it is to edit."""

    def copied(body: dict[str, Any]) -> str:
        return str(body["prediction"]["content"])

    server = Completions(copied)
    async with completing(server) as base:
        done = await aligner(base, revision="small", predicts=True).align(tiny.request(LONG + "\n"))
    assert done.text == LONG + "\n"
    assert len(server.asked) > 5
    assert all(completions_aligner.estimate_tokens(body["prompt"]) + body["max_tokens"] <= 512 for body in server.asked)


async def test_a_long_question_is_cut() -> None:
    server = Completions(lambda body: "It opens at nine.")
    turns = (Turn("user", "First. " + LONG * 50 + " When does it open?"),)
    async with completing(server) as base:
        await aligner(base, revision="small").align(tiny.request().model_copy(update={"turns": turns}))
    [asked] = server.asked
    assert "First. " in asked["prompt"]
    assert CUT_MARK in asked["prompt"]
    assert " When does it open?" in asked["prompt"]
    assert tiny.ANSWER in asked["prompt"]


async def test_a_server_with_a_cache_is_told_whose_prompt_it_is() -> None:
    """By a digest, so that it can keep tenants apart as our own engine does."""
    server = Completions(lambda body: "x")
    async with completing(server) as base:
        await aligner(base).align(tiny.request().model_copy(update={"tenant": "0f" * 8}))
        await aligner(base).align(tiny.request())
    assert [body.get("user") for body in server.asked] == ["0f" * 8, None]


def test_bodies_are_json() -> None:
    asked = CompletionRequest(prompt="p", max_tokens=3, stop=("a", "b", "c", "d", "e"))
    body = json.loads(json.dumps(request_body(asked, None, predicts=False)))
    assert body == {"prompt": "p", "max_tokens": 3, "temperature": 0, "stop": ["a", "b", "c", "d"]}
