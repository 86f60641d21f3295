"""The id of an answer: told with every answer that was looked at, and that of its audit entry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.plugins.api import Entry
from tests.gateway.test_guardrail import POLICIES, answer, build, data, ledger_of, user
from tests.support.background import wait_for_shadows
from tests.support.comments import id_in
from tests.support.stream_fixtures import chat_items


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    return build(tmp_path, monkeypatch, {**POLICIES, "audit": {"enabled": True}})


async def entries(guard: AlignerGuardrail, folder: Path) -> list[Entry]:
    """What is on record, once everything is settled."""
    await wait_for_shadows(guard._shadows)
    await guard._audit_writers.aclose()
    store = AuditStore(folder / "home" / "audit.db")
    found = list(store.entries())
    store.close()
    return found


async def headers(guard: AlignerGuardrail, request: dict[str, Any], response: object) -> dict[str, str]:
    return await guard.async_post_call_response_headers_hook(request, user(), response) or {}


@pytest.mark.parametrize("text", ["It is so. You fool.", "It is so.", '{"text": "It is so. You fool."}'])
@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_of_a_whole_answer(guard: AlignerGuardrail, tmp_path: Path, text: str, mode: str) -> None:
    request = data()
    who = user(metadata={"aligner": {"mode": mode, "on_skip": {"structured_output": "judge"}}})
    response = answer(text)
    await guard.async_post_call_success_hook(request, who, response)
    told = (await headers(guard, request, response))["x-aligner-id"]
    assert [entry.aligner_id for entry in await entries(guard, tmp_path)] == [told]


@pytest.mark.parametrize("stream", ["hold", "sentence", "passthrough"])
async def test_of_a_stream(guard: AlignerGuardrail, tmp_path: Path, stream: str) -> None:
    async def flow() -> AsyncIterator[Any]:
        for item in chat_items(["It is so. ", "You fool."]):
            yield item

    request = data()
    who = user(metadata={"aligner": {"stream": stream}})
    await guard.async_pre_call_hook(who, None, request, "acompletion")
    told = (await headers(guard, request, object()))["x-aligner-id"]
    played = [item async for item in guard.async_post_call_streaming_iterator_hook(who, flow(), request)]
    assert id_in(played[-1].decode().splitlines()[-2]) == told
    assert [entry.aligner_id for entry in await entries(guard, tmp_path)] == [told]


async def test_the_choices_of_one_answer_share_it(guard: AlignerGuardrail, tmp_path: Path) -> None:
    request = data()
    await guard.async_post_call_success_hook(request, user(), answer("It is so. You fool.", "It is so."))
    found = await entries(guard, tmp_path)
    assert sorted((entry.aligner_id, entry.choice) for entry in found) == [
        (ledger_of(request).arrival.aligner_id, 0),
        (ledger_of(request).arrival.aligner_id, 1),
    ]


async def test_a_skipped_answer_has_none(guard: AlignerGuardrail, tmp_path: Path) -> None:
    request = data()
    response = answer("")
    await guard.async_post_call_success_hook(request, user(), response)
    assert "x-aligner-id" not in await headers(guard, request, response)
    assert await entries(guard, tmp_path) == []
