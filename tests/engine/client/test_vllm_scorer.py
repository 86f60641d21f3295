"""Client of the scoring server in vLLM, against a server that says what the real one said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aligner_proxy.engine.client.vllm_scorer import VllmScorer
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import EngineFault, EngineUnavailable, HeadsUnavailable, InvalidOutput, UnknownHead
from aligner_proxy.policy.engine_schema import Backend, ServerKind
from tests.support import tiny
from tests.support.serving import refused_port, served

ABOUT = asdict(tiny.aligner().info) | {"ends": True}
SEGMENTS = [
    {"text": "The harbour opens at six.", "score": -4.25, "flagged": False, "objective": 0},
    {"text": "You are a fool.", "score": 2.5, "flagged": True, "objective": 0},
]
RESPONSE = {"text": "The harbour opens at six. You are a fool.", "segments": SEGMENTS, "prompt_tokens": 90}
Reply = Callable[[dict[str, Any]], Response]


class Pooling:
    """vLLM's `/pooling`; `asked` holds the `data` of every request."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self._reply = reply or (lambda _: said({"response": RESPONSE | {"aligner": ABOUT["content_hash"]}}))

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/pooling", self._pool, methods=["POST"])])

    async def _pool(self, request: Request) -> Response:
        data = json.loads(await request.body())["data"]
        self.asked.append(data)
        return self._reply(data) if "align" in data else said({"about": ABOUT})


def said(data: dict[str, Any]) -> Response:
    return JSONResponse({"request_id": "pooling-1", "created_at": 1, "data": data})


def scorer_at(address: str) -> VllmScorer:
    return VllmScorer(address.replace("http://", "vllm://"), wait_s=0.0)


ASKED = tiny.request(RESPONSE["text"], score_only=True)  # type: ignore[arg-type]


async def test_verdicts_come_back_as_they_were_said() -> None:
    server = Pooling()
    async with served(server.app()) as address:
        scorer = scorer_at(address)
        done = await scorer.align(ASKED)
        await scorer.aclose()
    assert [(s.text, s.score, s.flagged) for s in done.segments] == [
        (s["text"], s["score"], s["flagged"]) for s in SEGMENTS
    ]
    assert done.aligner == ABOUT["content_hash"]
    assert server.asked[-1]["align"]["objectives"] == list(tiny.OBJECTIVES)


async def test_who_it_is_is_asked_once() -> None:
    server = Pooling()
    async with served(server.app()) as address:
        scorer = scorer_at(address)
        await scorer.align(ASKED)
        await scorer.align(ASKED)
        assert (await scorer.info()).has_head
        await scorer.aclose()
    assert sum("align" not in data for data in server.asked) == 1


async def test_sixteen_at_once_ask_once_who_it_is() -> None:
    server = Pooling()
    async with served(server.app()) as address:
        scorer = scorer_at(address)
        await asyncio.gather(*(scorer.align(ASKED) for _ in range(16)))
        await scorer.aclose()
    assert sum("align" not in data for data in server.asked) == 1


@pytest.mark.parametrize(("judged_by", "asked"), [(ABOUT["content_hash"], 1), ("e" * 64, 3)])
async def test_who_judged_says_who_it_is(judged_by: str, asked: int) -> None:
    server = Pooling(lambda _: said({"response": RESPONSE | {"aligner": judged_by}}))
    async with served(server.app()) as address:
        scorer = scorer_at(address)
        for _ in range(3):
            await scorer.align(ASKED)
            if scorer._cached_info is not None:  # twenty seconds pass, of the thirty after which what was said is old
                scorer._confirmed_at -= 20.0
        await scorer.aclose()
    assert sum("align" not in data for data in server.asked) == asked


async def test_taught_heads_travel_with_the_request_that_names_them() -> None:
    server = Pooling()
    head = TaughtHead(tiny.OBJECTIVES[0], ABOUT["content_hash"], 0.0, 1.0, b"\0\0" * 192)
    request = ASKED.model_copy(update={"heads": (head.content_hash,)})
    async with served(server.app()) as address:
        scorer = scorer_at(address)
        with pytest.raises(UnknownHead):
            await scorer.align(request)
        assert await scorer.put_head(head.to_bytes()) == head.content_hash
        await scorer.align(request)
        await scorer.aclose()
    assert list(server.asked[-1]["heads"]) == [head.content_hash]


async def test_an_error_of_ours_keeps_its_type() -> None:
    server = Pooling(lambda _: said({"error": {"type": "unknown_head", "message": "no such head"}}))
    async with served(server.app()) as address:
        scorer = scorer_at(address)
        with pytest.raises(UnknownHead, match="no such head"):
            await scorer.align(ASKED)
        await scorer.aclose()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda _: JSONResponse({"data": {"response": 3}}), InvalidOutput),
        (lambda _: JSONResponse({"data": {}}), InvalidOutput),
        (lambda _: JSONResponse({"error": {"message": "secret", "code": 500}}, 500), EngineFault),
    ],
)
async def test_what_is_no_verdict_is_an_error_that_quotes_nothing(reply: Reply, error: type[Exception]) -> None:
    async with served(Pooling(reply).app()) as address:
        scorer = scorer_at(address)
        with pytest.raises(error) as caught:
            await scorer.align(ASKED)
        await scorer.aclose()
    assert "secret" not in str(caught.value)


async def test_nobody_there_is_unavailable() -> None:
    scorer = VllmScorer(f"vllm://127.0.0.1:{refused_port()}", wait_s=0.0)
    with pytest.raises(EngineUnavailable):
        await scorer.align(ASKED)
    await scorer.aclose()


async def test_it_neither_writes_nor_teaches() -> None:
    scorer = VllmScorer("vllm://127.0.0.1:1")
    with pytest.raises(EngineFault, match="scorer of a completions server"):
        await scorer.align(tiny.request())
    with pytest.raises(HeadsUnavailable):
        await scorer.rows(None)  # type: ignore[arg-type]
    await scorer.aclose()


def test_it_is_named_as_scorer_and_nowhere_else() -> None:
    backend = Backend(at=("http://host:8000/v1",), scorer="vllm://host:8001")
    assert (backend.kind, backend.scorer) == (ServerKind.COMPLETIONS, "vllm://host:8001")
    with pytest.raises(ValueError, match="only judges"):
        Backend(at=("vllm://host:8001",))
    with pytest.raises(ValueError, match="not an engine address"):
        Backend(at=("http://host:8000/v1",), scorer="vllm://")
