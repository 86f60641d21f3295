"""A LiteLLM model group as an editor: a real router before a real small server, what it is asked, and who pays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger
from litellm.router import Router
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aligner_proxy.correctors.editor_prompt import REPLY_SCHEMA
from aligner_proxy.correctors.litellm_router import GroupChat, GroupDecisions
from aligner_proxy.errors import (
    CorrectionError,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.gateway import litellm_internals
from tests.correctors.failures import FAILURES
from tests.support.serving import refused_port, served

# LiteLLM drops aiohttp sessions without closing them, in the middle of a test, too.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MESSAGES = [{"role": "system", "content": "Edit."}, {"role": "user", "content": "{}"}]
PAYER = {"user_api_key": "hash-of-a-key", "user_api_key_team_id": "acme", "user_api_key_user_id": "ann"}


class Chats:
    """A chat server that says what a script says; `asked` holds every body."""

    def __init__(self, script: Callable[[dict[str, Any]], str | Response]) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append(body)
        reply = self.script(body)
        if isinstance(reply, Response):
            return reply
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        return JSONResponse(head | {"usage": {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48}})


@pytest.fixture(autouse=True)
async def quiet() -> AsyncIterator[None]:
    """LiteLLM tells what it has done in tasks of its own, and keeps its connections; both end before the loop does."""
    yield
    for session in [each for each in gc.get_objects() if type(each) is aiohttp.ClientSession]:
        await session.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextlib.asynccontextmanager
async def chatting(chats: Chats, **params: Any) -> AsyncIterator[GroupChat]:
    async with served(chats.app()) as address:
        deployment = {"model": "openai/big", "api_base": f"{address}/v1", "api_key": "k", **params}
        router = Router([{"model_name": "strong", "litellm_params": deployment}], num_retries=0)
        yield GroupChat("strong", lambda: router)


async def ask(chat: GroupChat, form: Any = REPLY_SCHEMA, deadline_s: float = 20.0) -> Any:
    return await chat.ask(
        MESSAGES, max_tokens=50, temperature=0.0, response_format=form, payer=PAYER, deadline_s=deadline_s
    )


async def test_the_group_is_asked_once_for_a_reply_in_a_form() -> None:
    chats = Chats(lambda _: "It is so.")
    async with chatting(chats) as chat:
        reply = await ask(chat)
        assert list(chat.models()) == ["openai/big"]
    assert (reply.text, reply.read_tokens, reply.written_tokens, reply.finished) == ("It is so.", 40, 8, True)
    [body] = chats.asked
    assert body["messages"] == MESSAGES
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("big", 50, 0)
    assert body["response_format"] == REPLY_SCHEMA
    assert "hash-of-a-key" not in json.dumps(body), "who pays is nothing for the model's server"


async def test_a_server_that_knows_no_such_form_is_asked_without_it_from_then_on() -> None:
    refusal = JSONResponse({"error": {"message": "response_format: unknown"}}, 400)
    chats = Chats(lambda body: refusal if "response_format" in body else "It is so.")
    async with chatting(chats) as chat:
        assert [(await ask(chat)).text for _ in range(2)] == ["It is so."] * 2
    assert ["response_format" in body for body in chats.asked] == [True, False, False]


@pytest.mark.parametrize(("reply", "error"), FAILURES)
async def test_what_may_go_wrong_has_our_names_and_quotes_nothing(
    reply: JSONResponse, error: type[CorrectionError]
) -> None:
    async with chatting(Chats(lambda _: reply)) as chat:
        with pytest.raises(error) as raised:
            await ask(chat)
    assert "SECRET" not in str(raised.value)


async def test_nobody_there_is_an_engine_that_is_away() -> None:
    params = {
        "model": "openai/big",
        "api_base": f"http://127.0.0.1:{refused_port()}/v1",
        "api_key": "k",
        "max_retries": 0,
    }
    router = Router([{"model_name": "strong", "litellm_params": params}], num_retries=0)
    with pytest.raises(EngineUnavailable):
        await ask(GroupChat("strong", lambda: router))
    with pytest.raises(EngineUnavailable):
        await ask(GroupChat("strong", lambda: None))
    with pytest.raises(EngineUnavailable):
        await ask(GroupChat("strong"))
    with pytest.raises(CorrectionError):
        await ask(GroupChat("other", lambda: router))
    assert list(GroupChat("other", lambda: router).models()) == []


async def test_a_reply_without_a_text_is_none() -> None:
    empty = JSONResponse({"id": "c", "object": "chat.completion", "created": 1, "model": "big", "choices": []})
    async with chatting(Chats(lambda _: empty)) as chat:
        with pytest.raises(CorrectionError):
            await ask(chat)


async def test_a_slow_group_is_late() -> None:
    async with chatting(Chats(lambda _: "x"), mock_delay=5, mock_response="x") as chat:
        with pytest.raises(DeadlineExceeded):
            await ask(chat, deadline_s=0.1)


async def test_the_key_of_the_request_is_charged_and_no_logger_hears_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, Any]] = []

    # A name of its own: LiteLLM keeps one logger of each class name for as long as the process lives.
    class HearsPayments(CustomLogger):
        async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            heard.append({"kwargs": kwargs, "response": response_obj})

    monkeypatch.setattr(litellm, "callbacks", [HearsPayments()])
    chats = Chats(lambda _: "SECRET reply")
    async with chatting(chats, input_cost_per_token=0.001, output_cost_per_token=0.01) as chat:
        messages = [{"role": "user", "content": "SECRET question"}]
        await chat.ask(messages, max_tokens=50, temperature=0.0, response_format=None, payer=PAYER, deadline_s=20.0)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if heard:
                break
    [call] = heard
    told = call["kwargs"]
    metadata = told["litellm_params"]["metadata"]
    assert {name: metadata[name] for name in PAYER} == PAYER
    assert told["standard_logging_object"]["response_cost"] == pytest.approx(0.001 * 40 + 0.01 * 8)
    payload = told["standard_logging_object"]
    assert "SECRET" not in json.dumps([payload["messages"], payload["response"]], default=str)


async def test_litellms_own_logger_of_spend_charges_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from litellm.proxy.hooks import proxy_track_cost_callback as costs

    charged: list[dict[str, Any]] = []

    async def charge(**named: Any) -> bool:
        charged.append(named)
        return False

    monkeypatch.setattr(costs, "_update_database_and_spend_counters", charge)
    monkeypatch.setattr(litellm, "callbacks", [costs.ProxyDBLogger()])
    async with chatting(Chats(lambda _: "x"), input_cost_per_token=0.001, output_cost_per_token=0.01) as chat:
        await ask(chat)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if charged:
                break
    [call] = charged
    assert (call["user_api_key"], call["team_id"], call["user_id"]) == ("hash-of-a-key", "acme", "ann")
    assert call["response_cost"] == pytest.approx(0.001 * 40 + 0.01 * 8)


def test_who_pays_is_what_litellm_authenticated() -> None:
    from litellm.proxy._types import UserAPIKeyAuth

    caller = UserAPIKeyAuth(api_key="hash", key_alias="ci", team_id="acme", user_id="ann", spend=3.0, max_budget=9.0)
    assert litellm_internals.payer_metadata(caller) == {
        "user_api_key": caller.api_key,
        "user_api_key_hash": caller.api_key,
        "user_api_key_alias": "ci",
        "user_api_key_team_id": "acme",
        "user_api_key_user_id": "ann",
    }


def test_a_reply_that_is_cut_off_is_not_finished() -> None:
    from types import SimpleNamespace

    from aligner_proxy.correctors.litellm_router import reply_of

    message = SimpleNamespace(content="It is")
    cut = SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason="length")], usage=None)
    assert (reply_of(cut).finished, reply_of(cut).written_tokens) == (False, 2)
    silent = SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=None), finish_reason="stop")])
    with pytest.raises(InvalidOutput):
        reply_of(silent)


async def test_a_team_edits_by_a_model_of_its_own() -> None:
    info = {"team_id": "acme", "team_public_model_name": "ours"}
    params = {"model": "openai/big", "api_key": "k", "mock_response": "It is so."}
    router = Router([{"model_name": "internal", "litellm_params": params, "model_info": info}], num_retries=0)
    assert (await ask(GroupChat("ours", lambda: router), form=None)).text == "It is so."


async def test_a_decision_model_answers_as_a_judge() -> None:
    class Router:
        """Answers decisions with the probabilities that it has."""

        probabilities: tuple[object, ...] = (0.9, 0.1)

        async def adecisions(self, **asked: Any) -> Any:
            self.asked = asked
            answers = [SimpleNamespace(name=str(n), probability=value) for n, value in enumerate(self.probabilities, 1)]
            return SimpleNamespace(answers=answers, usage=SimpleNamespace(input_tokens=7, output_tokens=2))

    router = Router()
    group = GroupDecisions("jev", lambda: router)  # type: ignore[arg-type,return-value]
    questions = [{"type": "predicate", "name": "1", "instructions": "Is it?"}]
    ask = partial(
        group.ask, MESSAGES, max_tokens=9, temperature=0.0, response_format={"questions": questions}, payer=PAYER
    )
    reply = await ask(deadline_s=2.0)
    assert (reply.read_tokens, reply.written_tokens) == (7, 2)
    assert [entry["violates"] for entry in json.loads(reply.text)["verdicts"]] == [True, False]
    assert router.asked["input"] == MESSAGES[-1]["content"]
    assert (router.asked["questions"], router.asked["metadata"]) == (questions, PAYER)
    router.probabilities = ("likely",)
    with pytest.raises(InvalidOutput):
        await ask(deadline_s=2.0)
