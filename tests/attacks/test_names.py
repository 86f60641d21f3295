"""The real proxy, asked for two models at once: one whose answers are corrected, and one that is left alone."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.attacks.attack import Attack, rows
from tests.e2e.clients import Gateway, Streamed
from tests.e2e.conftest import deployment, engine, folder, proxies, tenants, upstream
from tests.e2e.shared import SHARED

__all__ = ["deployment", "engine", "folder", "proxies", "tenants", "upstream"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

INSULT = "You are an idiot"
CORRECTED = "gpt"
LEFT_ALONE = "off"
QUESTION = "rude names"
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", {"messages": [{"role": "user", "content": QUESTION}]}),
    "text": ("/completions", {"prompt": QUESTION}),
    "responses": ("/responses", {"input": QUESTION}),
    "messages": ("/messages", {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 99}),
}
HOLDS = "the policy of the stricter model"
# Form: what is tried, the address, and the names of the body in their order. {a} answers, {b} stands beside it.
EVERYWHERE = {
    "twice": ("two `model` keys in the body", "/v1{end}", ('"model": "{b}"', '"model": "{a}"')),
    "twice-escaped": ("a second `model` key, as numbers", "/v1{end}", ('"model": "{b}"', '"\\u006d\\u006fdel": "{a}"')),
    "twice-deep": (
        "two `model` keys around an object that has one too",
        "/v1{end}",
        ('"model": "{b}"', '"metadata": {{"model": "{a}"}}', '"model": "{a}"'),
    ),
}
BY_BODY = {
    "query": ("a model in the query, which LiteLLM passes over", "/v1{end}?model={b}", ('"model": "{a}"',)),
}
BY_ADDRESS = {
    "query": ("a model in the query, which goes before that of the body", "/v1{end}?model={a}", ('"model": "{b}"',)),
    "query-escaped": ("the same, with the name of the field as numbers", "/v1{end}?%6dodel={a}", ('"model": "{b}"',)),
    "query-twice": ("two models in the query", "/v1{end}?model={b}&model={a}", ('"model": "{a}"',)),
    "engine": ("another model in the oldest form of the path", "/engines/{a}{end}", ('"model": "{b}"',)),
    "azure": ("another model in the path", "/openai/deployments/{a}{end}", ('"model": "{b}"',)),
    "path-query": ("one model in the path and one in the query", "/engines/{a}{end}?model={b}", ('"model": "{a}"',)),
    "path-alone": ("one model in the path and one in the query, none in the body", "/engines/{a}{end}?model={b}", ()),
}
FORMS = {
    "chat": EVERYWHERE | BY_ADDRESS,
    "text": EVERYWHERE | BY_ADDRESS,
    "responses": EVERYWHERE | BY_BODY,
    "messages": EVERYWHERE | BY_BODY,
}
NAMES = rows(
    *(
        (f"names-{wire}-{form}", "tenant", f"{wire}: {tried}", HOLDS, (wire, address, names))
        for wire, forms in FORMS.items()
        for form, (tried, address, names) in forms.items()
    )
)


def asked(gateway: Gateway, attack: Attack, answering: str, beside: str, *, stream: bool) -> httpx.Response:
    """The answer to a request that names one model in such a way that it answers, and another one beside it."""
    wire, address, names = attack.payload
    end, body = ASKED[wire]
    written = [name.format(a=answering, b=beside) for name in names]
    fields = [json.dumps(body)[1:-1], *(['"stream": true'] if stream else [])]
    path = address.format(a=answering, b=beside, end=end)
    content = "{" + ", ".join([*written[:1], *fields, *written[1:]]) + "}"
    return gateway.http.post(path, content=content, headers={"content-type": "application/json"})


def status(got: httpx.Response, *, stream: bool) -> str:
    """What became of the answer."""
    if not stream:
        return str(got.headers["x-aligner-status"])
    comments = Streamed(got.status_code, got.headers, got.text).comments
    return comments[-1].removeprefix(": aligner status=").split()[0]


@pytest.mark.some(19)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", NAMES)
def test_a_laxer_model_that_answers_keeps_the_policy_of_the_other(attack: Attack, stream: bool, tenants: Any) -> None:
    got = asked(tenants["other"], attack, LEFT_ALONE, CORRECTED, stream=stream)
    assert got.status_code == httpx.codes.OK, got.text
    assert got.headers["x-litellm-model-group"] == LEFT_ALONE
    assert status(got, stream=stream) == "corrected", dict(got.headers)
    assert INSULT not in got.text


@pytest.mark.some(11)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", NAMES)
def test_a_stricter_model_that_answers_has_its_own_policy(attack: Attack, stream: bool, tenants: Any) -> None:
    got = asked(tenants["other"], attack, CORRECTED, LEFT_ALONE, stream=stream)
    assert got.status_code == httpx.codes.OK, got.text
    assert got.headers["x-litellm-model-group"] == CORRECTED
    assert status(got, stream=stream) == "corrected", dict(got.headers)
    assert INSULT not in got.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("address", ["?model=unheard-of", "?mode=gpt", "?MODEL=gpt"])
def test_what_is_no_name_of_a_model_changes_nothing(address: str, stream: bool, tenants: Any) -> None:
    body = {"model": LEFT_ALONE, "input": QUESTION, "stream": stream}
    got = tenants["other"].http.post(f"/v1/responses{address}", json=body)
    assert got.headers["x-aligner-reason"] == "mode_off"


def test_a_body_that_readers_may_take_differently_is_refused(tenants: Any) -> None:
    content = '{"model": "off", "messages": [{"role": "user", "content": "rude"}], "model": "gpt", ' + "[" * 1100
    got = tenants["other"].http.post("/v1/chat/completions", content=content)
    assert got.status_code == httpx.codes.BAD_REQUEST
