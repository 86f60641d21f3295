"""Answers held to references, through the real proxy: from each source, whole and as streams; doubts to a judge."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import Gateway, Streamed
from tests.e2e.deployment import CLAUDE, INSTRUCT, OPENAI, Deployment
from tests.e2e.scripted_answers import IN_DOUBT, OUTDATED, UP_TO_DATE
from tests.e2e.scripted_judge import PREFIX
from tests.e2e.test_stream_modes import asked, spoken

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PAGE = "# Returns\n\nOnline orders can be returned within 28 days of delivery.\n"
FILE = "RETURNS.md"
PRICES = "# Gifts\n\nWrapping a present costs £4 in paper and £6 in a box.\n"
PRICE_FILE = "PRICES.md"
HEADER = "x-account-facts"
REFERENCES: dict[str, Any] = {
    "system": "system",
    "tools": "tool_results",
    "file": {"file": f"{{folder}}/{FILE}"},
    "header": {"header": HEADER},
}
MODES = ("hold", "sentence")
MODELS = {"chat": "", "messages": "-claude"}
DEPLOYMENT = Deployment()
for source, reference in REFERENCES.items():
    for mode in MODES:
        DEPLOYMENT.model(f"{source}-{mode}").model(f"{source}-{mode}-claude", CLAUDE)
        DEPLOYMENT.route(f"{source}-{mode}*", objectives=[], references=[reference], stream=mode)
DEPLOYMENT.model("judge-facts", {**OPENAI, "model": f"openai/{PREFIX}facts"})
for name, more in {"hold": {}, "sentence": {}, "live": {"stream": "passthrough"}, "shadow": {"mode": "shadow"}}.items():
    for suffix, kind in (("", OPENAI), ("-claude", CLAUDE), ("-instruct", INSTRUCT)):
        DEPLOYMENT.model(f"doubted-{name}{suffix}", kind)
    settings: dict[str, Any] = {"stream": name} if name in MODES else more
    held = {"references": [{"file": f"{{folder}}/{PRICE_FILE}"}], "judge": {"chat": "judge-facts"}}
    DEPLOYMENT.route(f"doubted-{name}*", objectives=[], **held, **settings)


@pytest.fixture(scope="module")
def client(folder: Path, request: pytest.FixtureRequest) -> Gateway:
    """The gateway with the key of a tenant that may bring references; the file is there before it starts."""
    (folder / FILE).write_text(PAGE)
    (folder / PRICE_FILE).write_text(PRICES)
    tenants: dict[str, Gateway] = request.getfixturevalue("tenants")
    return tenants["vip"]


def brought(source: str, endpoint: str, script: str) -> dict[str, Any]:
    """The fields of a request that bring the page from a source; a file is there already."""
    said = {"role": "user", "content": script}
    if source == "system":
        above = {"role": "system", "content": PAGE}
        return {"messages": [above, said]} if endpoint == "chat" else {"messages": [said], "system": PAGE}
    if source != "tools":
        return {"messages": [said]}
    if endpoint == "chat":
        call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
        asked = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"messages": [said, asked, {"role": "tool", "tool_call_id": "call_1", "content": PAGE}]}
    use = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": PAGE}
    results = {"role": "user", "content": [result, {"type": "text", "text": script}]}
    return {"messages": [said, {"role": "assistant", "content": [use]}, results]}


def sent(source: str) -> dict[str, str]:
    """The headers of a request."""
    return {HEADER: f"base64:{base64.b64encode(PAGE.encode()).decode()}"} if source == "header" else {}


def whole(client: Gateway, source: str, endpoint: str, script: str) -> tuple[Any, str]:
    """A whole answer and its text."""
    body = {"model": f"{source}-hold{MODELS[endpoint]}", **brought(source, endpoint, script)}
    path = "/v1/chat/completions" if endpoint == "chat" else "/v1/messages"
    more = {} if endpoint == "chat" else {"max_tokens": 99}
    got = client.http.post(path, json=body | more, headers=sent(source))
    assert got.status_code == 200, got.text
    told = got.json()
    return got, told["choices"][0]["message"]["content"] if endpoint == "chat" else told["content"][0]["text"]


@pytest.mark.parametrize("endpoint", MODELS)
@pytest.mark.parametrize("source", REFERENCES)
def test_a_whole_answer(client: Gateway, source: str, endpoint: str) -> None:
    got, text = whole(client, source, endpoint, "outdated")
    assert text == UP_TO_DATE
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-grounded"]) == ("corrected", "1")
    got, text = whole(client, source, endpoint, "up_to_date")
    assert (text, got.headers["x-aligner-status"]) == (UP_TO_DATE, "unchanged")
    assert "x-aligner-grounded" not in got.headers


def stream(proxy: Gateway, source: str, mode: str, endpoint: str, script: str) -> Streamed:
    """A streamed answer."""
    path, body = asked(endpoint, f"{source}-{mode}{MODELS[endpoint]}", script, **brought(source, endpoint, script))
    got = proxy.http.post(path, json=body, headers=sent(source))
    return Streamed(got.status_code, got.headers, got.text)


@pytest.mark.covering("source endpoint", "source mode")
@pytest.mark.parametrize("endpoint", MODELS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", REFERENCES)
def test_a_stream(client: Gateway, plain: Gateway, source: str, mode: str, endpoint: str) -> None:
    got = stream(client, source, mode, endpoint, "outdated")
    assert "".join(map(spoken, got.chunks)) == UP_TO_DATE
    assert "status=corrected" in got.comments[-1]
    assert "grounded=1" in got.comments[-1]
    clean = stream(client, source, mode, endpoint, "up_to_date")
    assert "".join(map(spoken, clean.chunks)) == UP_TO_DATE
    assert clean.untouched() == stream(plain, source, mode, endpoint, "up_to_date").untouched()
    assert "status=unchanged" in clean.comments[-1]
    assert "grounded" not in clean.comments[-1]


def test_without_the_page_the_answer_stays(client: Gateway) -> None:
    body = {"model": "system-hold", "messages": [{"role": "user", "content": "outdated"}]}
    got = client.http.post("/v1/chat/completions", json=body)
    assert got.json()["choices"][0]["message"]["content"] == OUTDATED


@pytest.mark.usefixtures("client")
def test_a_header_of_another_tenant_is_refused(tenants: dict[str, Gateway]) -> None:
    got = tenants["other"].chat("outdated", "header-hold", headers=sent("header"))
    assert got.status_code == 403
    assert "allow_references" in got.text


SETTLED = IN_DOUBT.replace("£5", "£6")
SAID = "in_doubt Can you wrap my present?"


@pytest.mark.parametrize("mode", MODES)
def test_a_judge_settles_doubts_in_every_wire_format(client: Gateway, mode: str) -> None:
    whole_answers = {
        "chat": client.chat(SAID, f"doubted-{mode}"),
        "text": client.complete(SAID, model=f"doubted-{mode}-instruct"),
        "messages": client.message(SAID, f"doubted-{mode}-claude"),
        "responses": client.respond(SAID, f"doubted-{mode}"),
    }
    wrong: list[Any] = [
        (name, got.status_code, got.text, got.headers.get("x-aligner-judge"))
        for name, got in whole_answers.items()
        # a judge that was asked the same by another format costs no call
        if SETTLED not in str(got.json())
        or not got.headers.get("x-aligner-judge", "").startswith("judge-facts asked=1 flagged=1")
    ]
    chat = client.chat_stream(SAID, model=f"doubted-{mode}")
    text = client.complete_stream(SAID, model=f"doubted-{mode}-instruct")
    message = client.message_stream(SAID, model=f"doubted-{mode}-claude")
    response = client.respond_stream(SAID, model=f"doubted-{mode}")
    for got, said in (
        (chat, chat.text()),
        (text, text.text()),
        (message, "".join(message.parts("content_block_delta", "index", "text"))),
        (response, "".join(response.parts("response.output_text.delta", "content_index", "delta"))),
    ):
        if said != SETTLED or "grounded=1" not in got.comments[-1] or "judge=1/1/0" not in got.comments[-1]:
            wrong.append((got.status_code, got.raw, said))
    assert not wrong


def test_shadow_mode_and_passthrough_deliver_the_doubt(client: Gateway) -> None:
    assert client.chat(SAID, "doubted-shadow").json()["choices"][0]["message"]["content"] == IN_DOUBT
    assert client.chat_stream(SAID, model="doubted-live").text() == IN_DOUBT
