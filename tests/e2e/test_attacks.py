"""The real proxy, attacked by its clients: whatever they send, what their tenant must have is there, or nothing is."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.attacks.attack import Attack, rows
from tests.e2e.clients import Streamed
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

INSULT = "You are an idiot"
CORRECTED = "the answer is corrected, or refused"

REQUESTS = rows(
    ("live-guardrails-none", "tenant", "an empty list of guardrails", CORRECTED, {"guardrails": []}),
    ("live-guardrails-other", "tenant", "a guardrail of another name instead", CORRECTED, {"guardrails": ["nope"]}),
    (
        "live-guardrails-config",
        "tenant",
        "settings for the guardrail",
        CORRECTED,
        {"guardrail_config": {"mode": "off"}},
    ),
    ("live-disable", "tenant", "LiteLLM's switch, in the body", CORRECTED, {"disable_global_guardrails": True}),
    (
        "live-disable-metadata",
        "tenant",
        "LiteLLM's switches, in metadata",
        CORRECTED,
        {"metadata": {"disable_global_guardrails": True, "opted_out_global_guardrails": ["aligner"], "guardrails": []}},
    ),
    (
        "live-pose",
        "tenant",
        "another tenant's fields, in both of LiteLLM's buckets",
        CORRECTED,
        {
            "metadata": {"user_api_key_team_id": "vip", "user_api_key_metadata": {"disable_global_guardrails": True}},
            "litellm_metadata": {"user_api_key_alias": "vip", "aligner": {"mode": "off"}},
        },
    ),
    (
        "live-mock",
        "tenant",
        "brings the answer along",
        CORRECTED,
        {"mock_response": f"Fine. {INSULT} for asking. Bye."},
    ),
    ("live-models", "tenant", "two models in one field", CORRECTED, {"model": "gpt,brief"}),
    ("live-models-off", "tenant", "a model that is left alone beside one that is not", CORRECTED, {"model": "off,gpt"}),
    (
        "live-fastest",
        "tenant",
        "two models of which the faster may answer",
        CORRECTED,
        {"model": "off,gpt", "fastest_response": True},
    ),
    (
        "live-fallback",
        "tenant",
        "a model that is left alone, made to fail over to one that is not",
        CORRECTED,
        {"model": "off", "fallbacks": ["gpt"], "mock_testing_fallbacks": True},
    ),
    ("live-many", "tenant", "hides the answer among others", "each is corrected", {"n": 4}),
    ("live-stream-text", "tenant", "asks for a stream in a word", CORRECTED, {"stream": "true"}),
    ("live-tags", "tenant", "tags that no route is for", CORRECTED, {"metadata": {"tags": ["off", "raw", "*"]}}),
)


def delivered(got: httpx.Response) -> str:
    """Everything in a response, and the text of its first choice joined, which a stream sends in pieces."""
    return got.text + Streamed(got.status_code, got.headers, got.text).text()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", REQUESTS)
def test_no_body_escapes_the_aligner(attack: Attack, stream: bool, tenants: Any) -> None:
    body = {"stream": stream, **attack.payload}
    got = tenants["acme"].chat("rude escape", **body)
    assert INSULT not in delivered(got), got.headers.get("x-aligner-reason")
    if got.status_code == httpx.codes.OK:
        assert got.headers["x-aligner-objectives"].startswith("harmless")


FIRST = {"role": "user", "content": "good"}
DIRECTIONS = rows(
    (
        "live-context-fallbacks",
        "tenant",
        "a model that is left alone, which fails, and others in LiteLLM's second list of them",
        "400",
        {"model": "offline", "context_window_fallbacks": [{"offline": ["gpt"]}]},
    ),
    (
        "live-content-fallbacks",
        "tenant",
        "the same in LiteLLM's third list",
        "400",
        {"model": "offline", "content_policy_fallbacks": [{"offline": ["gpt"]}]},
    ),
    (
        "live-router-settings",
        "tenant",
        "settings of the router that only a key may have",
        "400",
        {"model": "offline", "router_settings_override": {"fallbacks": [{"offline": ["off"]}]}},
    ),
    (
        "live-fallbacks-object",
        "tenant",
        "fallbacks as an object",
        "400",
        {"model": "offline", "fallbacks": {"gpt": []}},
    ),
    (
        "live-fallback-words",
        "tenant",
        "a fallback with another conversation than the one that is judged",
        "400",
        {"fallbacks": [{"model": "gpt", "messages": [FIRST]}]},
    ),
    (
        "live-extra-body",
        "tenant",
        "another conversation and model for the upstream alone",
        "400",
        {"extra_body": {"messages": [FIRST], "model": "other"}},
    ),
    ("live-provider", "tenant", "another provider for the same model", "400", {"custom_llm_provider": "hosted_vllm"}),
    ("live-mark", "tenant", "LiteLLM's own marks in the body", "400", {"_excluded_deployment_ids": ["x"]}),
    ("live-fallbacks-many", "tenant", "fifty thousand fallbacks", "400", {"fallbacks": ["gpt"] * 50_000}),
    (
        "live-fallbacks-deep",
        "tenant",
        "fifty thousand fallbacks inside one, as blocks",
        "400",
        {"fallbacks": [{"model": "gpt", "fallbacks": [{"model": "gpt"}] * 50_000}]},
    ),
    ("live-tags-many", "tenant", "fifty thousand tags", "400", {"metadata": {"tags": ["t"] * 50_000}}),
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", DIRECTIONS)
def test_no_body_directs_the_router(attack: Attack, stream: bool, tenants: Any) -> None:
    got = tenants["other"].chat("rude direction", stream=stream, **attack.payload)
    assert str(got.status_code) == attack.holds
    assert got.json()["error"]["type"] == "invalid_request_error"
    assert INSULT not in got.text


NAMES = rows(
    ("live-name-id", "tenant", "the id of a deployment in place of its model", "the policy of the model", None),
    ("live-name-alias", "tenant", "an alias that a laxer route fits", "the policy of the model", "nickname"),
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", NAMES)
def test_no_other_name_escapes_the_route_of_a_model(attack: Attack, stream: bool, tenants: Any) -> None:
    by_name = tenants["other"].chat("good", model="strict")
    model = attack.payload or by_name.headers["x-litellm-model-id"]
    got = tenants["other"].chat("rude name", model=model, stream=stream)
    assert got.headers["x-aligner-policy"] == by_name.headers["x-aligner-policy"]
    assert INSULT not in got.text


TAKEOVERS = rows(
    (
        "live-takeover-strict",
        "tenant",
        "a model that is left alone, which fails over to one that is not",
        "the answer is corrected",
        "offline",
    ),
    (
        "live-takeover-lax",
        "tenant",
        "a model that fails over to one that is left alone",
        "the answer is corrected",
        "outage",
    ),
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", ["chat", "respond", "message"])
@pytest.mark.parametrize("attack", TAKEOVERS)
def test_who_answers_decides_and_who_was_asked_stays_a_bound(
    attack: Attack, endpoint: str, stream: bool, tenants: Any
) -> None:
    got = getattr(tenants["other"], endpoint)("rude takeover", model=attack.payload, stream=stream)
    assert got.status_code == httpx.codes.OK
    assert INSULT not in got.text
    assert got.headers["x-aligner-status"] == ("pending" if stream else "corrected")


SKIPS = rows(
    ("live-skip-tools", "client", "lets the answer call a tool beside its text", CORRECTED, ("tools", {})),
    ("live-skip-length", "client", "lets the answer be cut off", CORRECTED, ("length", {"max_tokens": 9})),
    ("live-skip-filter", "upstream", "says that its filter ended the answer", CORRECTED, ("filter", {})),
    ("live-skip-cited", "upstream", "adds a citation", CORRECTED, ("cited", {})),
    ("live-skip-logprobs", "client", "asks for token probabilities", CORRECTED, ("rude", {"logprobs": True})),
    (
        "live-skip-json",
        "client",
        "asks for JSON",
        CORRECTED,
        ("rude", {"response_format": {"type": "json_object"}}),
    ),
    (
        "live-skip-schema",
        "client",
        "asks for JSON of a schema that no edit meets",
        CORRECTED,
        ("rude", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": False}}}),
    ),
    ("live-skip-surrogate", "client", "half a letter in the question", CORRECTED, ("rude \ud800", {})),
    ("live-skip-surrogate-system", "client", "half a letter in a role", CORRECTED, ("rude", {"user": "\udfff"})),
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("attack", SKIPS)
def test_nothing_turns_an_enforced_correction_off(attack: Attack, stream: bool, tenants: Any) -> None:
    question, more = attack.payload
    got = tenants["strict"].chat(question, stream=stream, **more)
    assert INSULT not in delivered(got)
    assert got.status_code in (httpx.codes.OK, httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY), got.text
    if got.status_code == httpx.codes.OK and "error" not in got.text:
        assert "Paris" in delivered(got)


HEADERS = rows(
    (
        "live-header-status",
        "client",
        "sends our response headers itself",
        "they are not reflected",
        {"x-aligner-status": "forged", "x-aligner-policy": "forged", "x-aligner-objectives": "concise"},
    ),
    ("live-header-litellm", "client", "LiteLLM's headers for tags and ids", CORRECTED, {"x-litellm-tags": "off,raw"}),
    ("live-header-trace", "client", "a trace that is none", CORRECTED, {"traceparent": "00-" + "z" * 400}),
    (
        "live-header-id",
        "client",
        "a call id of odd characters",
        CORRECTED,
        {"x-litellm-call-id": '"}{\\u000a%0a<script>'},
    ),
)


@pytest.mark.parametrize("attack", HEADERS)
def test_no_header_escapes_the_aligner(attack: Attack, tenants: Any) -> None:
    got = tenants["acme"].chat("rude header", headers=attack.payload)
    assert got.status_code == httpx.codes.OK
    assert INSULT not in got.text
    assert got.headers["x-aligner-status"] == "corrected"
    assert "forged" not in str(got.headers)


PATHS = rows(
    ("live-path-slash", "client", "a slash too many", CORRECTED, "/v1/chat/completions/"),
    ("live-path-double", "client", "two slashes", CORRECTED, "//v1/chat/completions"),
    ("live-path-short", "client", "the path without a version", CORRECTED, "/chat/completions"),
    ("live-path-engine", "client", "the oldest form of the path", CORRECTED, "/engines/gpt/chat/completions"),
    (
        "live-path-azure",
        "client",
        "a path that names another model than the body",
        CORRECTED,
        "/openai/deployments/gpt/chat/completions",
    ),
    (
        "live-path-query",
        "client",
        "forged fields in the query",
        CORRECTED,
        "/v1/chat/completions?user_api_key_team_id=vip&guardrails=%5B%5D",
    ),
    ("live-path-up", "client", "steps upwards", CORRECTED, "/v1/x/../chat/completions"),
    ("live-path-letters", "client", "capital letters", CORRECTED, "/V1/Chat/Completions"),
    ("live-path-line", "client", "a line break behind the path", CORRECTED, "/v1/chat/completions%0A"),
    ("live-path-line-model", "client", "a line break in a path", CORRECTED, "/engines/gpt%0A/chat/completions"),
)


@pytest.mark.parametrize("attack", PATHS)
def test_no_path_escapes_the_aligner(attack: Attack, tenants: Any) -> None:
    model = "off" if attack.id == "live-path-azure" else "gpt"
    body = {"model": model, "messages": [{"role": "user", "content": "rude path"}]}
    got = tenants["acme"].http.post(attack.payload, json=body)
    assert INSULT not in got.text, dict(got.headers)


STRANGERS = rows(
    (
        "live-cache-words",
        "tenant",
        "the very words of another tenant",
        "its cached answer is not found",
        "rude shared words",
    ),
    (
        "live-cache-forged",
        "tenant",
        "the same, with that tenant's fields forged",
        "its cached answer is not found",
        "rude forged words",
    ),
)


@pytest.mark.parametrize("attack", STRANGERS)
def test_nobody_reads_another_tenants_cache(attack: Attack, tenants: Any) -> None:
    assert tenants["vip"].chat(attack.payload).headers["x-aligner-cache"] == "miss"
    forged = {"user_api_key_alias": "vip", "user_api_key_hash": "0" * 64, "user_api_key_team_id": "vip"}
    got = tenants["other"].chat(attack.payload, metadata=forged if attack.id == "live-cache-forged" else {})
    assert got.headers["x-aligner-cache"] == "miss"


STALLS = rows(
    (
        "live-stall-line",
        "client",
        "an answer of 21,000 characters without a line break, sentence by sentence",
        "corrected, and the loop does not stall",
        {"script": "line", "model": "released"},
    ),
    (
        "live-stall-wishes",
        "client",
        "a system prompt of 20 kB in which everything might be a preference",
        "corrected, and the loop does not stall",
        {"script": "rude", "model": "wishes", "system": ("no " * 300 + "lists. ") * 22},
    ),
    (
        "live-long-held",
        "upstream",
        "a held stream longer than what is corrected at once",
        "corrected part by part",
        {"script": "flood", "model": "gpt"},
    ),
    (
        "live-long-released",
        "upstream",
        "the same, sentence by sentence",
        "corrected part by part",
        {"script": "flood", "model": "released"},
    ),
)
STALL_S = "2.5"
"""No request holds the loop for so long, whatever else the machine does."""


def long_stalls(gateway: Any) -> float:
    """Stalls of the gateway's loop that were longer, by its own watchdog."""
    page = gateway.http.get("/metrics/").text
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("aligner_loop_stall_seconds"))
    bucket = f'aligner_loop_stall_seconds_bucket{{le="{STALL_S}",owner="aligner"}}'
    return float(values['aligner_loop_stall_seconds_count{owner="aligner"}']) - float(values[bucket])


@pytest.mark.some(3)
@pytest.mark.parametrize("attack", STALLS)
def test_no_request_stalls_the_loop(attack: Attack, tenants: Any, gateway: Any) -> None:
    asked = attack.payload
    before = long_stalls(gateway)
    messages = [{"role": "system", "content": asked.get("system", "Hm.")}, {"role": "user", "content": asked["script"]}]
    got = tenants["vip"].chat_stream(asked["script"], model=asked["model"], messages=messages)
    assert INSULT not in got.text()
    assert got.comments[0].startswith(": aligner status=corrected")
    assert long_stalls(gateway) == before


OPERATOR = rows(
    ("live-metrics", "tenant", "reads everybody's metrics", "401 or 403", "/metrics/"),
    ("live-models-info", "tenant", "reads the providers' settings", "401 or 403", "/model/info"),
    ("live-callbacks", "tenant", "lists what runs in the gateway", "401 or 403", "/active/callbacks"),
    ("live-config", "tenant", "reads the configuration", "401 or 403", "/get/config/callbacks"),
)


@pytest.mark.parametrize("attack", OPERATOR)
def test_a_tenants_key_is_for_models_alone(attack: Attack, tenants: Any) -> None:
    assert tenants["acme"].http.get(attack.payload).status_code in (401, 403)


NO_MODEL = "401, 403 or 404, and nothing is sent to a model"
UNCORRECTED = rows(
    ("live-other-files", "tenant", "uploads and lists files", NO_MODEL, ("GET", "/v1/files")),
    ("live-other-batches", "tenant", "asks by a batch", NO_MODEL, ("POST", "/v1/batches")),
    ("live-other-realtime", "tenant", "asks for a realtime session", NO_MODEL, ("POST", "/v1/realtime/client_secrets")),
    ("live-other-speech", "tenant", "has an answer spoken", NO_MODEL, ("POST", "/v1/audio/speech")),
    ("live-other-threads", "tenant", "asks by the Assistants API", NO_MODEL, ("POST", "/v1/threads")),
    (
        "live-other-inputs",
        "tenant",
        "reads an earlier answer among the inputs of a later one",
        NO_MODEL,
        ("GET", "/v1/responses/resp_1/input_items"),
    ),
    (
        "live-other-cursor",
        "tenant",
        "asks by a path for another client",
        NO_MODEL,
        ("POST", "/cursor/chat/completions"),
    ),
    (
        "live-other-google",
        "tenant",
        "asks in Google's format",
        NO_MODEL,
        ("POST", "/v1beta/models/gpt:generateContent"),
    ),
    ("live-other-anthropic", "tenant", "asks by a pass-through route", NO_MODEL, ("POST", "/anthropic/v1/messages")),
    ("live-other-openai", "tenant", "asks by a pass-through route", NO_MODEL, ("POST", "/openai/chat/completions")),
    ("live-other-mcp", "tenant", "lists the tools of MCP servers", NO_MODEL, ("GET", "/mcp-rest/tools/list")),
    ("live-other-agents", "tenant", "asks an agent", NO_MODEL, ("POST", "/a2a/gpt/message/send")),
)


@pytest.mark.parametrize("attack", UNCORRECTED)
def test_a_key_reaches_no_endpoint_that_nothing_corrects(attack: Attack, tenants: Any) -> None:
    method, path = attack.payload
    body = {"model": "gpt", "messages": [{"role": "user", "content": "rude path"}], "input": "rude path"}
    got = tenants["acme"].http.request(method, path, json=body if method == "POST" else None)
    assert got.status_code in (401, 403, 404), got.text[:300]
    assert INSULT not in got.text


STORED = rows(
    ("live-stored-team", "tenant", "fetches a response that a key without a team stored", "403", ("vip", "acme")),
    ("live-stored-key", "tenant", "fetches a response that another team stored", "403", ("acme", "vip")),
    ("live-stored-master", "tenant", "fetches a response that the operator stored", "403", ("", "acme")),
)


@pytest.mark.parametrize("attack", STORED)
def test_nobody_reads_what_another_stored(attack: Attack, tenants: Any, gateway: Any) -> None:
    owner, thief = attack.payload
    storing = tenants[owner] if owner else gateway
    stored = storing.respond("rude stored").json()["id"]
    assert storing.http.get(f"/v1/responses/{stored}").status_code == httpx.codes.OK
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        got = tenants[thief].http.request(method, f"/v1/responses/{stored}{path}")
        assert got.status_code == httpx.codes.FORBIDDEN, (method, path, got.text[:300])
    assert tenants[thief].respond("good", previous_response_id=stored).status_code == httpx.codes.FORBIDDEN
