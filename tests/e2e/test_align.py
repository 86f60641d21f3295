"""`POST /v1/align` and its adapters on the real proxy: LiteLLM's keys, limits and OpenAPI document count."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest
from litellm.proxy.guardrails.guardrail_hooks.generic_guardrail_api.generic_guardrail_api import GenericGuardrailAPI

from tests.e2e.clients import KEYS, Gateway
from tests.e2e.scripted_answers import GOOD, REFUSED, RUDE, UNICODE
from tests.e2e.scripted_engine import INSULT
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED
WEBHOOK = "/v1/align/webhook"
GENERIC = "/beta/litellm_basic_guardrail_api"


def align(client: Gateway, answer: str, script: str = "rude", model: str = "gpt", **body: Any) -> httpx.Response:
    messages = [{"role": "user", "content": script}]
    return client.http.post("/v1/align", json={"messages": messages, "answer": answer, "model": model, **body})


@pytest.mark.parametrize("alias", ["acme", "vip", "metered"])
@pytest.mark.parametrize(("script", "answer"), [("rude", RUDE), ("good", GOOD), ("unicode", UNICODE)])
def test_it_does_what_the_traffic_gets(tenants: dict[str, Gateway], alias: str, script: str, answer: str) -> None:
    chat = tenants[alias].chat(script)
    got = align(tenants[alias], answer, script)
    assert got.json()["answer"] == chat.json()["choices"][0]["message"]["content"]
    for name in ("status", "reason", "objectives", "policy", "model"):
        assert got.headers.get(f"x-aligner-{name}") == chat.headers.get(f"x-aligner-{name}"), name
    assert (got.json()["status"], got.json()["reason"]) == (
        chat.headers["x-aligner-status"],
        chat.headers.get("x-aligner-reason"),
    )


def test_what_it_says_of_a_correction(gateway: Gateway) -> None:
    got = align(gateway, RUDE).json()
    (edit,) = got["edits"]
    assert RUDE[: edit["start"]] + edit["text"] + RUDE[edit["end"] :] == got["answer"] == RUDE.replace(INSULT, "")
    assert align(gateway, REFUSED).json()["reason"] == "refusal"


def test_without_a_model_the_routes_for_every_model_decide(gateway: Gateway) -> None:
    body = {"messages": [{"role": "user", "content": "rude"}], "answer": RUDE}
    got = gateway.http.post("/v1/align", json=body)
    assert (got.headers["x-aligner-policy"], got.json()["status"]) == ("all", "corrected")


def test_keys_and_permissions_are_those_of_the_traffic(gateway: Gateway, tenants: dict[str, Gateway]) -> None:
    with contextlib.closing(Gateway(gateway.address, "unknown")) as unknown:
        assert align(unknown, RUDE).status_code == 401
    assert align(tenants["other"], RUDE, objectives=["concise"]).status_code == 403
    assert align(tenants["acme"], RUDE, objectives=["concise"]).status_code == 200
    assert align(tenants["acme"], RUDE, objectives=["Rhyme: it should rhyme"]).status_code == 403
    assert align(tenants["metered"], RUDE).json()["reason"] == "quota"


def test_what_the_policy_blocks_is_an_error(gateway: Gateway, tenants: dict[str, Gateway]) -> None:
    got = align(tenants["strict"], RUDE, "broken")
    assert (got.status_code, got.json()["error"]["type"]) == (422, "aligner_error")
    chat = tenants["strict"].chat("broken")
    assert (chat.status_code, chat.json()["error"]["message"]) == (422, got.json()["error"]["message"])


def test_bad_bodies(gateway: Gateway) -> None:
    got = gateway.http.post("/v1/align", json={"messages": [{"role": "user", "content": "x"}]})
    assert (got.status_code, got.json()["error"]["param"]) == (400, "answer")
    assert gateway.http.post("/v1/align", content=b"{").status_code == 400


def test_it_is_in_the_openapi_document(gateway: Gateway) -> None:
    paths = gateway.http.get("/openapi.json").json()["paths"]
    assert {"/v1/align", WEBHOOK, GENERIC} <= set(paths)
    assert "answer" in paths["/v1/align"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]


async def test_another_litellm_uses_it_as_a_guardrail(gateway: Gateway) -> None:
    other = GenericGuardrailAPI(api_base=gateway.address, api_key=KEYS["acme"], guardrail_name="aligner")
    got = await other.apply_guardrail({"texts": [RUDE, GOOD], "model": "gpt"}, {}, "response")
    assert got["texts"] == [RUDE.replace(INSULT, ""), GOOD]
    prompt = await other.apply_guardrail({"texts": [RUDE], "model": "gpt"}, {}, "request")
    assert prompt["texts"] == [RUDE]
    await other.async_handler.close()


def test_webhooks(tenants: dict[str, Gateway]) -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": RUDE}}]}
    got = tenants["acme"].http.post(WEBHOOK, json={"body": body}).json()
    assert got["action"]["body"]["choices"][0]["message"]["content"] == RUDE.replace(INSULT, "")
    chat = tenants["other"].chat("rude", model="off").json()
    sent = {
        "eventType": "afterRequestHook",
        "request": {"json": {"model": "gpt", "messages": [{"role": "user", "content": "rude"}]}},
        "response": {"json": chat},
    }
    portkey = tenants["acme"].http.post(WEBHOOK, json=sent).json()
    text = portkey["transformedData"]["response"]["json"]["choices"][0]["message"]["content"]
    assert (portkey["verdict"], text) == (True, RUDE.replace(INSULT, ""))
