"""Bodies with several names of a model."""

from __future__ import annotations

import json
import types
from typing import Any

import orjson
import pytest
from litellm.proxy._types import ProxyException
from litellm.proxy.common_utils import http_parsing_utils
from starlette.requests import Request

from aligner_proxy.gateway import duplicate_models, litellm_internals, routing


def data(url: str, **body: Any) -> dict[str, Any]:
    """A request as LiteLLM hands it to hooks."""
    return {"proxy_server_request": {"url": url, "body": body}}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"model": "a"}', ()),
        (b'{"model": "a", "model": "b"}', ("a", "b")),
        (b'{"model": "a", "\\u006d\\u006Fdel": "b"}', ("a", "b")),
        (b'{"\\u006dodel": "a"}', ("a",)),
        (b'{"model": "a", "tools": [{"model": "b", "model": "c"}]}', ("a",)),
        (b'{"model": "a", "n": ' + b"9" * 5_000 + b', "model": "b"}', ("a", "b")),
        (b'{"model": 1, "model": "b"}', ("b",)),
        (b'[["model", "a"], ["model", "b"]]', ()),
        (b"", ()),
    ],
)
def test_names_in_a_body_that_has_several(body: bytes, names: tuple[str, ...]) -> None:
    duplicate_models.note_model_names(b'{"model": "before", "model": "this one"}')
    duplicate_models.note_model_names(body)
    assert routing.list_written_names(data("http://g/v1/responses")) == names


@pytest.mark.parametrize("end", [b"[" * 5_000, b'"half'])
def test_a_body_that_not_every_reader_reads_is_refused(end: bytes) -> None:
    with pytest.raises(ProxyException) as caught:
        duplicate_models.note_model_names(b'{"model": "a", "model": "b", "x": ' + end)
    assert caught.value.code == "400"


async def test_litellms_parser_shows_each_body_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_parsing_utils, "orjson", orjson)
    for _ in range(2):  # a guardrail may be made more than once
        litellm_internals.watch_bodies(duplicate_models.note_model_names)
    body = b'{"input": "x", "model": "a", "model": "b"}'

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/responses", "headers": headers, "query_string": b""}
    read = await http_parsing_utils.read_request_body(Request(scope, receive))
    assert read == json.loads(body) == {"input": "x", "model": "b"}
    assert routing.list_written_names(data("http://g/v1/responses", **read)) == ("b", "a")
    assert isinstance(http_parsing_utils.orjson, litellm_internals._WatchedParser)
    assert http_parsing_utils.orjson._parser is orjson
    assert isinstance(http_parsing_utils.orjson.dumps, types.BuiltinFunctionType)
