"""Another model group answers than the one that was asked: the policy of the stricter holds, whole and in streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aligner_proxy.errors import EngineFault
from aligner_proxy.gateway import routing
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.gateway.test_guardrail import answer, build, chunk, data, ledger_of, opened, user
from tests.support.comments import without_id
from tests.support.scripted import ScriptedEngine
from tests.support.stream_fixtures import flow

RULES: dict[str, Any] = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        {"match": {"model": "off"}, "mode": "off", "objectives": ["kind"]},
        {"match": {"model": "watched"}, "mode": "shadow", "objectives": ["kind"]},
        {"match": {"model": "bare"}, "objectives": []},
        {"match": {"model": "strict"}, "objectives": ["harmless"], "on_error": "block"},
        {"match": {"model": "*"}, "name": "all", "objectives": ["kind"]},
    ],
}
DEPLOYMENTS = {name: {"model_name": name} for name in ("off", "watched", "bare", "strict", "gpt")}
ROUTER = SimpleNamespace(get_model_info=DEPLOYMENTS.get, fallbacks=[{"off": ["gpt"]}])


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    guard = build(tmp_path, monkeypatch, RULES)
    monkeypatch.setattr(routing, "_find_router", lambda: ROUTER)
    monkeypatch.setattr(routing, "resolve_name", lambda model, team_id: (model, ()))
    return guard


def by(group: str, item: Any) -> Any:
    """The item as LiteLLM marks it: with the deployment that gave it, here named like its group."""
    item._hidden_params = {"model_id": group}
    return item


def unmarked(item: Any) -> Any:
    item._hidden_params = {}
    return item


@pytest.mark.parametrize(("asked", "group"), [("off", "gpt"), ("gpt", "off"), ("bare", "gpt"), ("watched", "strict")])
async def test_a_whole_answer(guard: AlignerGuardrail, asked: str, group: str) -> None:
    request = data(asked)
    await opened(guard, request)
    edited = await guard.async_post_call_success_hook(request, user(), by(group, answer("It is so. You fool.")))
    assert edited.choices[0].message.content == "It is so."
    assert ledger_of(request).headers()["x-aligner-status"] == "corrected"


async def test_who_answers_as_asked_changes_nothing(guard: AlignerGuardrail) -> None:
    for asked in ("off", "gpt"):
        request = data(asked)
        before = (await opened(guard, request)).policy
        await guard.async_post_call_success_hook(request, user(), by(asked, answer("It is so. You fool.")))
        assert ledger_of(request).policy == before
    assert ledger_of(request).status == "corrected"


async def test_objectives_are_those_of_the_group_that_answered(guard: AlignerGuardrail) -> None:
    request = data("strict")
    await opened(guard, request)
    guard.pipeline = Pipeline(ScriptedEngine(lambda _: EngineFault("x")))
    with pytest.raises(Blocked):
        await guard.async_post_call_success_hook(request, user(), by("gpt", answer("It is so.")))
    policy = ledger_of(request).policy
    assert ([objective.name for objective in policy.objectives], policy.name) == (["kind"], "all")


async def _streamed(guard: AlignerGuardrail, request: dict[str, Any], items: Sequence[Any]) -> list[Any]:
    stream = guard.async_post_call_streaming_iterator_hook(user(), flow(items), request)
    return [item async for item in stream]


def _text(items: Sequence[Any]) -> str:
    return "".join(item.choices[0].delta.content or "" for item in items if not isinstance(item, bytes))


@pytest.mark.parametrize("asked", ["off", "watched", "bare", "gpt"])
@pytest.mark.parametrize("before", [0, 1])
async def test_a_stream_that_another_model_took_over_before_its_first_words(
    guard: AlignerGuardrail, asked: str, before: int
) -> None:
    request = data(asked)
    await opened(guard, request)
    words = [by("strict", chunk("It is so.")), by("strict", chunk(" You fool."))]
    got = await _streamed(guard, request, [unmarked(chunk(""))] * before + words)
    assert _text(got) == "It is so."
    assert without_id(got[-1]) == b": aligner status=corrected\n\n"
    assert [objective.name for objective in ledger_of(request).policy.objectives] == ["harmless"]


async def test_a_stream_known_from_its_beginning_to_be_of_another_model(guard: AlignerGuardrail) -> None:
    request = data("off")
    ledger = await opened(guard, request)
    request["deployment"] = SimpleNamespace(model_name="gpt")
    headers = await guard.async_post_call_response_headers_hook(request, user(), object())
    assert headers is not None
    assert headers["x-aligner-status"] == "pending"
    got = await _streamed(guard, request, [unmarked(chunk("It is so.")), unmarked(chunk(" You fool."))])
    assert _text(got) == "It is so."
    assert ledger.is_final


async def test_a_stream_that_breaks_before_its_first_words_breaks_for_the_client(guard: AlignerGuardrail) -> None:
    request = data("off")
    await opened(guard, request)
    with pytest.raises(RuntimeError, match="upstream"):
        await _streamed(guard, request, [unmarked(chunk("")), RuntimeError("upstream")])
    assert ledger_of(request).is_final


async def test_a_stream_without_words_is_not_waited_for_to_its_end(guard: AlignerGuardrail) -> None:
    request = data("off")
    await opened(guard, request)
    seen: list[int] = []

    async def flow() -> AsyncIterator[Any]:
        for number in range(100):
            seen.append(number)
            yield unmarked(chunk(""))

    stream = guard.async_post_call_streaming_iterator_hook(user(), flow(), request)
    await anext(stream)
    assert len(seen) < 20
    await stream.aclose()
