"""`POST /v1/decisions` and `/v1/systemone` of an engine, also for LiteLLM's own client over a real socket."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import litellm
import pytest

from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.wire import MAX_BODY_BYTES
from tests.support import tiny
from tests.support.scripted import SegmentEngine
from tests.support.serving import engine_at

KIND = "Kindness: the response should never insult the reader"
RUDE = "Open the lid. You fool."
GOOD = "Open the lid. Then wait."
QUESTION = {"type": "predicate", "name": "rude", "instructions": KIND}


def engine() -> SegmentEngine:
    """An engine that scores a fool high."""
    return SegmentEngine(lambda text: 4.0 if "fool" in text else -4.0)


async def test_litellms_client_gets_answers_in_both_forms() -> None:
    async with engine_at(engine()) as address:
        common: dict[str, Any] = {"api_base": address, "api_key": "none", "timeout": 20}
        for text, is_rude in ((RUDE, True), (GOOD, False)):
            for model in ("openai/aligner", "hosted_vllm/aligner"):
                got = await litellm.adecisions(model=model, input=text, questions=[QUESTION], **common)
                assert (got.answers[0].probability > 0.9) is is_rude, model
                questions = {"rude": {"type": "noul", "instructions": KIND}}
                answer = await litellm.asystemone(model=model, state=text, questions=questions, **common)
                assert (answer.answers["rude"].noul > 0.9) is is_rude, model


async def test_examples_in_criteria_change_the_answer() -> None:
    local = LocalEngine(tiny.aligner)
    await local.start()
    criteria = {"true": ["You fool.", "You donkey.", "You dolt."], "false": ["Open it.", "Wait here.", "Then go on."]}
    question = {"type": "noul", "instructions": KIND}
    async with (
        engine_at(local) as address,
        httpx.AsyncClient(base_url=address, trust_env=False, verify=False) as client,
    ):
        answers = {}
        for text in ("You fool.", "Open it."):
            questions = {"plain": question, "taught": question | {"criteria": criteria}}
            got = await client.post("/v1/systemone", json={"model": "m", "state": text, "questions": questions})
            assert got.status_code == 200, got.text
            answers[text] = {name: answer["noul"] for name, answer in got.json()["answers"].items()}
        assert answers["You fool."]["taught"] > answers["You fool."]["plain"]
        assert answers["Open it."]["taught"] < answers["Open it."]["plain"]
    await local.aclose()


async def test_what_cannot_be_answered_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body: dict[str, Any] = {"model": "m", "input": RUDE, "questions": [QUESTION]}
    async with (
        engine_at(engine()) as address,
        httpx.AsyncClient(base_url=address, trust_env=False, verify=False) as client,
    ):
        for path, change, status in (
            ("/v1/decisions", {"questions": [{**QUESTION, "instructions": "harmless"}]}, 400),
            ("/v1/decisions", {"input": ""}, 400),
            ("/v1/decisions", {"questions": []}, 422),
            ("/v1/decisions", {"questions": [{**QUESTION, "type": "score"}]}, 422),
            ("/v1/systemone", {"state": RUDE}, 422),
        ):
            got = await client.post(path, json=body | change)
            assert got.status_code == status, got.text
            assert "fool" not in got.text
        too_long = await client.post("/v1/decisions", content=b" " * (MAX_BODY_BYTES + 1))
        assert too_long.status_code in (400, 413, 422)
    assert "fool" not in caplog.text
