"""Adapters: what another gateway sends, recorded with our own sentences, and the verdict that it understands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from litellm.proxy.guardrails.guardrail_hooks.generic_guardrail_api.generic_guardrail_api import GenericGuardrailAPI
from litellm.types.proxy.guardrails.guardrail_hooks.generic_guardrail_api import GenericGuardrailAPIResponse

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineFault
from tests.gateway.endpoints.application import Api
from tests.support.scripted import ScriptedEngine

RECORDED = Path(__file__).with_name("recorded")
GENERIC = "/beta/litellm_basic_guardrail_api"
WEBHOOK = "/v1/align/webhook"


def recorded(name: str) -> dict[str, Any]:
    request: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return request


def failing(api: Api) -> None:
    api.play(ScriptedEngine(lambda _: EngineFault("x")))


async def test_litellm_gets_the_corrected_texts(api: Api) -> None:
    got = GenericGuardrailAPIResponse.from_dict((await api.post(GENERIC, recorded("litellm_response"))).json())
    assert got.action == "GUARDRAIL_INTERVENED"
    assert got.texts == ["The parcel left on Monday. It should arrive on Thursday.", "All is well."]


async def test_litellm_is_left_alone_where_nothing_is_to_change(api: Api) -> None:
    body = recorded("litellm_response")
    # of a stream the only sentence would be held back, because it may go on
    held = {"action": "NONE", "stream_holdback_chars": [len("All is well.")]}
    assert (await api.post(GENERIC, body | {"texts": ["All is well."]})).json() == held
    assert (await api.post(GENERIC, body | {"texts": None})).json() == {"action": "NONE"}


async def test_a_prompt_passes(api: Api) -> None:
    failing(api)
    body = recorded("litellm_response") | {"input_type": "request", "model": "strict"}
    assert (await api.post(GENERIC, body)).json() == {"action": "NONE"}


async def test_a_prompt_passes_whatever_its_form(api: Api) -> None:
    """A long conversation of an agent, and turns in forms of other endpoints."""
    odd_turns = [{"content": ["text"]}, {"type": "function_call", "arguments": "{}"}, {"role": None, "content": 3}]
    for texts, turns in ((["So."] * 65, []), ([], odd_turns)):
        sent = {"input_type": "request", "texts": texts, "structured_messages": turns}
        assert (await api.post(GENERIC, sent)).json() == {"action": "NONE"}
    got = (await api.post(WEBHOOK, {"body": {"messages": odd_turns}})).json()
    assert set(got["action"]) == {"reason"}


async def test_half_a_letter_keeps_no_answer_from_being_judged(api: Api) -> None:
    """Gateways in JavaScript cut texts between the halves of a letter, and write a half as an escape."""
    for path, name in ((GENERIC, "litellm_response"), (WEBHOOK, "agentgateway_response"), (WEBHOOK, "portkey_chat")):
        sent = json.dumps(recorded(name)).replace(" You fool.", " You fool. Bye \\ud83d\\ude00 \\ud83d.")
        got = await api.http.post(path, content=sent)
        assert got.status_code == 200, name
        assert "Bye \U0001f600 \ufffd." in str(got.json()), name


async def test_turns_in_other_forms_keep_no_answer_from_being_judged(api: Api) -> None:
    odd_turns = [{"content": ["text"]}, {"type": "function_call", "arguments": "{}"}, {"role": "user", "content": 3}]
    sent = recorded("litellm_response") | {"structured_messages": odd_turns}
    assert (await api.post(GENERIC, sent)).json()["action"] == "GUARDRAIL_INTERVENED"
    sent = recorded("portkey_chat")
    sent["request"]["json"]["messages"] = odd_turns
    assert (await api.post(WEBHOOK, sent)).json()["data"] == {"status": "corrected"}


async def test_litellm_is_told_what_is_blocked(api: Api) -> None:
    failing(api)
    got = (await api.post(GENERIC, recorded("litellm_response") | {"model": "strict"})).json()
    assert got["action"] == "BLOCKED"
    assert "could not be aligned" in got["blocked_reason"]


async def test_litellms_settings_may_name_objectives(api: Api) -> None:
    settings = {"additional_provider_specific_params": {"objectives": ["concise"], "other": 1}}
    body = recorded("litellm_response") | settings
    assert (await api.post(GENERIC, body)).status_code == 403
    assert (await api.post(GENERIC, body, "acme")).status_code == 200


async def test_the_conversation_is_read_where_litellm_sends_it(api: Api) -> None:
    seen: list[AlignRequest] = []

    def remembered(request: AlignRequest) -> str:
        seen.append(request)
        return request.answer

    api.play(ScriptedEngine(remembered))
    messages = [{"role": "user", "content": "Where is my parcel?"}]
    await api.post(GENERIC, recorded("litellm_response") | {"structured_messages": messages})
    assert [turn.content for turn in seen[0].turns] == ["Where is my parcel?"]
    assert seen[0].request_id.startswith("7d1f")


async def test_litellms_own_guardrail_understands_the_verdict(api: Api) -> None:
    other = GenericGuardrailAPI(api_base="http://gateway", api_key="key", guardrail_name="aligner")
    other.async_handler.client = api.http
    texts = ["So. You fool.", "So."]
    got = await other.apply_guardrail({"texts": list(texts), "model": "gpt"}, {}, "response")
    assert got["texts"] == ["So.", "So."]
    assert (await other.apply_guardrail({"texts": list(texts)}, {}, "request"))["texts"] == texts


async def test_agentgateway_gets_as_many_choices_as_it_sent(api: Api) -> None:
    sent = recorded("agentgateway_response")
    got = (await api.post(WEBHOOK, sent)).json()["action"]
    texts = [choice["message"]["content"] for choice in got["body"]["choices"]]
    assert texts == ["We close at six.", "Parking is free."]
    assert [choice["message"]["role"] for choice in got["body"]["choices"]] == ["assistant", "assistant"]


async def test_agentgateways_actions_are_told_apart_by_their_fields(api: Api) -> None:
    good = {"body": {"choices": [{"message": {"role": "assistant", "content": "All is well."}}]}}
    assert (await api.post(WEBHOOK, good)).json() == {"action": {"reason": "unchanged"}}
    assert set((await api.post(WEBHOOK, recorded("agentgateway_request"))).json()["action"]) == {"reason"}


async def test_agentgateway_rejects_what_is_blocked(api: Api) -> None:
    failing(api)
    got = (await api.post(WEBHOOK, recorded("agentgateway_response"), "strict")).json()["action"]
    assert isinstance(got["body"], str)
    assert (got["status_code"], set(got)) == (422, {"body", "status_code", "reason"})


@pytest.mark.parametrize("kind", ["chat", "text", "messages", "responses"])
async def test_portkey_gets_its_response_with_other_texts(api: Api, kind: str) -> None:
    sent = recorded(f"portkey_{kind}")
    got = (await api.post(WEBHOOK, sent)).json()
    assert (got["verdict"], got["data"]) == (True, {"status": "corrected"})
    before = json.dumps(sent["response"]["json"])
    after = json.dumps(got["transformedData"]["response"]["json"])
    assert after == before.replace(" You fool.", "")
    assert after != before


LOGPROBS = {"content": [{"token": "We", "logprob": -0.1, "bytes": [87, 101], "top_logprobs": []}]}
NOTE = {
    "type": "url_citation",
    "url_citation": {"start_index": 2, "end_index": 5, "url": "https://e.org", "title": "A"},
}
CITATION = {"type": "web_search_result_location", "url": "https://e.org", "cited_text": "Near.", "encrypted_index": "x"}
FILE_NOTE = {"type": "file_citation", "index": 20, "file_id": "file_1", "filename": "a.txt"}
POINTERS: dict[str, dict[str, Any]] = {
    "chat": {"logprobs": LOGPROBS},
    "chat message": {"annotations": [NOTE]},
    "text": {"logprobs": {"tokens": ["We"], "text_offset": [0], "token_logprobs": [-0.1], "top_logprobs": None}},
    "messages": {"citations": [CITATION]},
    "responses": {"annotations": [FILE_NOTE], "logprobs": LOGPROBS["content"]},
}


def find_owner(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The object of a response in which the pointers into its first text stand."""
    if "choices" in body:
        choice: dict[str, Any] = body["choices"][0]
        return choice["message"] if kind.endswith("message") else choice
    parts = (body["output"][-1] if "output" in body else body)["content"]
    return next(part for part in parts if "You fool." in part.get("text", ""))


@pytest.mark.parametrize("kind", POINTERS)
async def test_what_points_into_an_answer_of_portkeys_fits_its_text(api: Api, kind: str) -> None:
    """As through the proxy: such an answer stays, or is corrected and loses them, as `on_skip` says."""
    sent = recorded(f"portkey_{kind.split()[0]}")
    find_owner(kind, sent["response"]["json"]).update(POINTERS[kind])
    kept = (await api.post(WEBHOOK, sent)).json()
    assert (kept["data"], "transformedData" in kept) == ({"status": "skipped"}, False)
    sent["request"]["json"]["model"] = "pointers"
    got = (await api.post(WEBHOOK, sent)).json()["transformedData"]["response"]["json"]
    after = json.dumps(got)
    assert "You fool." not in after
    for name, value in POINTERS[kind].items():
        assert json.dumps(value) not in after, name


async def test_an_answer_of_portkeys_keeps_its_pointers_if_another_is_edited(api: Api) -> None:
    sent = recorded("portkey_chat")
    sent["request"]["json"]["model"] = "pointers"
    message = {"role": "assistant", "content": "All is well.", "annotations": [NOTE]}
    choice = {"index": 1, "finish_reason": "stop", "message": message, "logprobs": LOGPROBS}
    sent["response"]["json"]["choices"].append(choice)
    got = (await api.post(WEBHOOK, sent)).json()
    assert got["transformedData"]["response"]["json"]["choices"][1] == choice


@pytest.mark.parametrize(("status", "why"), [("incomplete", {"reason": "max_output_tokens"}), ("in_progress", None)])
async def test_a_response_of_portkeys_that_is_cut_off_is_left_alone(api: Api, status: str, why: Any) -> None:
    sent = recorded("portkey_responses")
    sent["response"]["json"] |= {"status": status, "incomplete_details": why}
    got = (await api.post(WEBHOOK, sent)).json()
    assert (got["data"], "transformedData" in got) == ({"status": "skipped"}, False)


async def test_portkeys_prompts_pass(api: Api) -> None:
    sent = recorded("portkey_chat") | {"eventType": "beforeRequestHook"}
    assert (await api.post(WEBHOOK, sent)).json() == {"verdict": True}


async def test_portkey_refuses_what_is_blocked(api: Api) -> None:
    failing(api)
    sent = recorded("portkey_chat")
    sent["request"]["json"]["model"] = "strict"
    got = (await api.post(WEBHOOK, sent)).json()
    assert got["verdict"] is False
    assert "transformedData" not in got


async def test_the_conversation_that_portkey_sends_is_read(api: Api) -> None:
    seen: dict[str, list[str]] = {}

    def remembered(request: AlignRequest) -> str:
        seen["turns"] = [f"{turn.role}: {turn.content}" for turn in request.turns]
        return request.answer

    api.play(ScriptedEngine(remembered))
    expected = {
        "chat": ["system: Be brief.", "user: When do you open?"],
        "text": ["user: When do you open?"],
        "messages": ["system: Be brief.", "user: When do you open?"],
        "responses": ["system: Be brief.", "user: When do you open?"],
    }
    for kind, turns in expected.items():
        assert (await api.post(WEBHOOK, recorded(f"portkey_{kind}"))).json()["verdict"] is True
        assert seen["turns"] == turns, kind


@pytest.mark.parametrize("path", [GENERIC, WEBHOOK])
async def test_a_body_in_another_form_is_a_400(api: Api, path: str) -> None:
    got: httpx.Response = await api.post(path, {"input_type": "other", "body": 3, "texts": 4})
    assert (got.status_code, got.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_texts_are_bounded(api: Api) -> None:
    body = recorded("litellm_response") | {"texts": ["So."] * 65}
    assert (await api.post(GENERIC, body)).status_code == 400
    sent = recorded("portkey_text")
    sent["response"]["json"]["choices"] *= 65
    assert (await api.post(WEBHOOK, sent)).status_code == 400
