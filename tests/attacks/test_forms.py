"""Answers where the route's format does not look for them: in the form of another endpoint, or quoted in an error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import litellm
import pytest
from litellm.proxy._types import UserAPIKeyAuth

from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.types import Status
from tests.attacks.attack import Attack, rows
from tests.gateway.test_foreign_items import (
    READ,
    READ_STREAMS,
    RUDE,
    SHAPES,
    STREAMED,
    WHOLE,
    as_model,
    build_guard,
    deliver,
)
from tests.support.planted_copies import ROUTES

FOREIGN = rows(
    *(
        (
            f"form-{route}-{shape}",
            "upstream",
            f"answers on the {route} endpoint in the form of each endpoint, as {what}",
            "read by its form, or 422 under `on_error: block`",
            (route, shape),
        )
        for route in WHOLE
        for shape, what in (
            ("dict", "plain dicts"),
            ("model", "models of another class"),
            ("object", "objects of another class"),
            ("bytes", "bytes of events"),
            ("str", "texts of events"),
            ("json", "JSON without an event around it"),
            ("list", "lists"),
        )
    )
)
QUOTED = rows(
    *(
        (
            f"quoted-{route}-{name}",
            "upstream",
            f"sends an answer on the {route} endpoint that LiteLLM cannot read and quotes in its error, {what}",
            "the error without its message",
            (route, change(body)),
        )
        for route, body in WHOLE.items()
        for name, what, change in (
            ("json", "as JSON", json.dumps),
            ("escaped", "as escaped JSON", lambda body: json.dumps(json.dumps(body))),
            ("value", "as a Python value", repr),
        )
    )
)


@pytest.mark.parametrize("attack", FOREIGN)
async def test_an_answer_of_another_form_is_read_or_blocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Attack
) -> None:
    route, shape = attack.payload
    change = SHAPES[shape]
    leaks = []
    for stream in ("hold", "sentence"):
        guardrail = build_guard(tmp_path, monkeypatch, "block", stream)
        for form in WHOLE:
            for streamed in (False, True):
                item = list(map(change, STREAMED[form])) if streamed else change(WHOLE[form])
                content, status = await deliver(guardrail, route, item, streamed=streamed)
                is_read = (route, form, shape) in (READ_STREAMS if streamed else READ)
                if RUDE in content or (status is Status.CORRECTED) is not is_read:
                    leaks.append((form, stream, streamed, status))
    assert not leaks


@pytest.mark.parametrize("attack", QUOTED)
async def test_an_error_quotes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Attack) -> None:
    route, quoted = attack.payload
    guardrail = build_guard(tmp_path, monkeypatch, "passthrough", "hold")
    user = UserAPIKeyAuth(request_route=ROUTES[route])

    def new_error() -> Exception:
        return litellm.APIConnectionError(f"cannot read: {quoted}", "openai", "m")

    async def upstream() -> AsyncIterator[Any]:
        for item in STREAMED[route][:1]:
            yield item if route == "messages" else as_model(item)
        raise new_error()

    error = new_error()
    assert RUDE in str(error)
    raised = await guardrail.async_post_call_failure_hook({"model": "m", "metadata": {}}, error, user)
    assert RUDE not in f"{raised} {error} {error.__dict__}"
    source = guardrail.async_post_call_streaming_iterator_hook(user, upstream(), {"model": "m", "metadata": {}})
    with pytest.raises(litellm.APIConnectionError) as caught:
        await _read(source)
    assert RUDE not in f"{caught.value} {caught.value.__dict__} {caught.value.__cause__} {caught.value.__context__}"


async def _read(source: AsyncIterator[Any]) -> None:
    try:
        async for _ in source:
            pass
    except Blocked:
        pytest.fail("the answer was blocked")
