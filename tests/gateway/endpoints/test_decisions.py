"""The gateway as a decision model: the same keys, tenants and limits as for its other endpoints."""

from __future__ import annotations

import asyncio
import logging
import struct
from base64 import b64encode
from typing import Any

import httpx
import pytest

from aligner_proxy.engine.api import AlignRequest, ExchangeRows, RowsRequest, RowsResponse
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import EngineFault, EngineUnavailable
from aligner_proxy.gateway.endpoints import decisions
from aligner_proxy.types import Correction
from tests.gateway.endpoints.application import Api, insults
from tests.support.scripted import ScriptedEngine, SegmentEngine

RUDE = "Open the lid. You fool."
OWN = "Own kindness: the response should never insult anybody"


async def ask(api: Api, *instructions: str, team: str = "", text: str = RUDE, **more: Any) -> httpx.Response:
    questions = [{"type": "predicate", "name": f"q{n}", "instructions": words} for n, words in enumerate(instructions)]
    return await api.post(
        "/aligner/v1/decisions", {"model": "gpt", "input": text, "questions": questions, **more}, team
    )


async def test_objectives_are_asked_about_by_name(api: Api) -> None:
    got = await ask(api, "kind")
    assert got.status_code == 200, got.text
    [answer] = got.json()["answers"]
    assert (answer["type"], answer["name"]) == ("predicate", "q0")
    assert answer["probability"] > 0.95
    assert (await ask(api, "kind", text="Open the lid.")).json()["answers"][0]["probability"] < 0.1
    questions = {"kind": {"type": "noul", "instructions": "kind"}}
    body = {"model": "gpt", "state": RUDE, "questions": questions}
    other = (await api.post("/aligner/v1/systemone", body)).json()
    assert other["answers"]["kind"]["noul"] == answer["probability"]


async def test_a_tenant_asks_about_what_it_may_request(api: Api) -> None:
    for team, words, status in (
        ("", "Is it rude?", 403),
        ("", OWN, 403),
        ("", "concise", 403),
        ("acme", "concise", 200),
        ("acme", OWN, 403),
        ("free", OWN, 200),
        ("free", "Is it rude?", 200),
        ("free", "humour", 403),
        ("free", "no-such-objective", 403),
    ):
        got = await ask(api, "kind", words, team=team)
        assert got.status_code == status, (team, words, got.text)
        assert "fool" not in got.text


async def test_each_question_is_scored_against_its_objective_alone(api: Api) -> None:
    seen: list[tuple[str, ...]] = []

    class Recording(SegmentEngine):
        async def align(self, request: Any) -> Any:
            seen.append(request.objectives)
            assert request.score_only
            assert request.tenant != "-"
            return await super().align(request)

    api.play(Recording(insults))
    got = await ask(api, "kind", OWN, "kind", team="free")
    assert len(got.json()["answers"]) == 3
    assert sorted(seen) == sorted([("Kindness: the response should never insult the reader",), (OWN,)])


async def test_what_is_not_in_its_form_is_refused(api: Api) -> None:
    for change in ({"input": 3}, {"questions": []}, {"input": "  "}, {"input": "x" * 100_001}):
        got = await ask(api, "kind", **change)
        assert got.status_code == 400, got.text
        assert "invalid_request_error" in got.text


async def test_a_failure_of_the_engine_is_an_error(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for error, status in ((EngineUnavailable("gone"), 503), (EngineFault("bug"), 422)):
        api.play(ScriptedEngine(lambda _, error=error: error))
        got = await ask(api, "kind")
        assert (got.status_code, got.json()["error"]["type"]) == (status, "aligner_error")
    assert "fool" not in caplog.text


async def test_questions_of_a_client_that_has_left_are_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SegmentEngine(insults)
    engine.delay_s = 60

    async def left() -> None:
        while not engine.seen:
            await asyncio.sleep(0)

    monkeypatch.setattr(decisions, "client_gone_waiter", lambda: left)
    api.play(engine)
    async with asyncio.timeout(30):
        assert (await ask(api, "kind")).status_code == 499
    assert engine.cancelled


CRITERIA = {
    "true": ["You fool.", "You donkey.", "You dolt."],
    "false": ["Open the lid.", "Wait for an hour.", "Then go on."],
}


async def ask_with_examples(api: Api, team: str, **more: Any) -> httpx.Response:
    question = {"type": "noul", "instructions": OWN, "criteria": CRITERIA, **more}
    return await api.post("/aligner/v1/systemone", {"model": "gpt", "state": RUDE, "questions": {"q": question}}, team)


async def test_examples_teach_a_head_for_the_caller(api: Api) -> None:
    heads: list[TaughtHead] = []
    seen: list[Any] = []

    class TaughtEngine(SegmentEngine):
        """Reads rows of one number: whether a text speaks to somebody."""

        async def rows(self, request: RowsRequest) -> RowsResponse:
            seen.append(request)
            numbers = [float("You" in exchange.answer) for exchange in request.exchanges]
            read = tuple(
                ExchangeRows(segments=((0, 1),), rows=b64encode(struct.pack("<e", number)).decode(), scores=((0.0,),))
                for number in numbers
            )
            return RowsResponse(aligner=self.about.content_hash, width=1, exchanges=read)

        async def put_head(self, data: bytes) -> str:
            heads.append(TaughtHead.from_bytes(data))
            return heads[-1].content_hash

        async def align(self, request: AlignRequest) -> Correction:
            seen.append(request)
            return await super().align(request)

    engine = TaughtEngine(insults)
    del engine.rows  # a script of other rows
    api.play(engine)
    for text in ("first", "second"):
        got = await ask_with_examples(api, "free", note=text)
        assert got.status_code == 200, got.text
    read, first, second = seen
    assert [exchange.answer for exchange in read.exchanges] == [*CRITERIA["true"], *CRITERIA["false"]]
    assert read.tenant == first.tenant != "-"
    assert read.objectives == first.objectives == (OWN,)
    assert first.heads == second.heads == (heads[0].content_hash,)
    assert struct.unpack("<e", heads[0].weight)[0] > 0
    assert (await ask_with_examples(api, "")).status_code == 403


async def test_examples_need_an_engine_that_can_learn(api: Api) -> None:
    api.play(ScriptedEngine())
    got = await ask_with_examples(api, "free")
    assert got.json()["error"]["type"] == "aligner_error"
    assert "fool" not in got.text
