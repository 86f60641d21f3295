"""Endpoints that plugins bring: LiteLLM's log-in and limits hold for them, and what they raise reaches nobody."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from litellm.proxy._types import ProxyException

from aligner_proxy.gateway.endpoints import routes
from tests.gateway.endpoints.application import Api, _as_litellm, _caller
from tests.gateway.endpoints.plugin_endpoints import WORD, served


@pytest.fixture
def words(api: Api) -> Api:
    """The gateway with a plugin that says words back."""
    api.guard.endpoints = served(WORD)
    api.app = type(api.app)()
    api.app.add_exception_handler(ProxyException, _as_litellm)
    routes.add_endpoints(api.app, _caller, api.guard)
    api.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=api.app), base_url="http://gateway")
    return api


async def test_it_answers_a_caller_by_its_tenant(words: Api) -> None:
    got = await words.post(WORD.path, {"word": "yes"}, "acme")
    assert (got.status_code, got.json()) == (201, {"word": "yes", "tenant": "team:acme"})
    bad = await words.post(WORD.path, {"word": "yes", "more": 1}, "acme")
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "more")


async def test_a_refusal_is_litellms_error(words: Api) -> None:
    got = await words.post(WORD.path, {"word": "rude"})
    error = got.json()["error"]
    assert (got.status_code, got.headers["retry-after"]) == (429, "7")
    assert (error["message"], error["type"], error["param"]) == ("say it later", "rate_limit_error", "word")


@pytest.mark.parametrize("word", ["broken", "odd"])
async def test_a_fault_is_a_503_that_quotes_nothing(words: Api, word: str) -> None:
    got = await words.post(WORD.path, {"word": word})
    assert (got.status_code, got.json()["error"]["type"]) == (503, "aligner_error")
    assert "secret" not in got.text


async def test_it_counts_among_the_requests_of_its_key(words: Api) -> None:
    class Limiter:
        @contextlib.asynccontextmanager
        async def request_capacity(self, *_: Any, **__: Any) -> AsyncIterator[None]:
            raise HTTPException(429, "too many")
            yield

    words.limiter = Limiter()
    assert (await words.post(WORD.path, {"word": "yes"})).status_code == 429


async def test_the_openapi_document_shows_it(words: Api) -> None:
    operation = words.app.openapi()["paths"][WORD.path]["post"]
    assert operation["description"] == WORD.about
    assert {"201", "400", "409"} <= set(operation["responses"])
