"""`POST /v1/align`: an answer that a client brings becomes what the traffic would become, and says why."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import HTTPException
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import ModelResponse

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import CorrectionError, EngineFault, EngineUnavailable
from aligner_proxy.gateway.request_state import find_state
from tests.gateway.endpoints.application import INSULTS, Api, insults
from tests.support.scripted import ScriptedEngine, SegmentEngine

SENTENCES = (
    "Water boils at 100 °C at sea level.",
    "The order 4711 was sent on 3 May.",
    "Naïve readers – like me – ask twice.",
    "It costs $12.50 a month.",
    "- First, open the lid.\n- Then wait.\n- You fool.\n- Close it.",
    "1. Unplug it.\n2. You are an idiot.\n3. Plug it in again.",
    "# A heading\n\nAnd what stands below it.",
    "```python\nprint('You fool.')\n```",
    "你好。",
    *INSULTS,
    *INSULTS,
)
WHOLE = (
    "",
    "  \n",
    "You fool.",
    "I'm sorry, but I can't help with that.",
    '{"you": "are an idiot", "price": 3}',
    "[1, 2, 3]",
    "{ no JSON",
    "<think>You fool.</think>\nIt is so. You fool. And so on.",
    "x" * 5000,
)


def answers() -> list[str]:
    """200 answers: whole ones of every odd kind, and some of drawn sentences with insults among them."""
    draw = random.Random(27)
    drawn = [draw.choice((" ", "\n\n")).join(draw.choices(SENTENCES, k=draw.randint(1, 9))) for _ in range(191)]
    return [*WHOLE, *drawn]


async def by_the_traffic(api: Api, answer: str, model: str) -> tuple[Any, ...]:
    """What a chat completion with this answer becomes: text, status, reason, the scores."""
    user = UserAPIKeyAuth(api_key="a" * 64, request_route="/v1/chat/completions")
    messages = [{"role": "user", "content": "What?"}]
    data = {"model": model, "messages": messages, "metadata": {"user_api_key_hash": "a" * 64}}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    response = ModelResponse(choices=[choice])
    await api.guard.async_pre_call_hook(user, None, data, "acompletion")
    edited = await api.guard.async_post_call_success_hook(data, user, response)
    state = find_state(data)
    assert state is not None
    outcome = state.outcomes[0]
    scores = [(segment.text, segment.score, segment.flagged) for segment in outcome.segments]
    return (edited or response).choices[0].message.content, outcome.status.value, outcome.reason, scores


async def test_the_same_result_as_the_traffic_for_200_answers(api: Api) -> None:
    assert len(answers()) == 200
    statuses = set()
    for answer in answers():
        text, status, reason, scores = await by_the_traffic(api, answer, "gpt")
        got = (await api.align(answer)).json()
        assert (got["answer"], got["status"], got["reason"]) == (text, status, reason), answer
        assert [(s["text"], s["score"], s["flagged"]) for s in got["segments"]] == scores
        statuses.add((status, reason))
    assert {"corrected", "unchanged", "skipped"} == {status for status, _ in statuses}
    assert {"empty", "refusal", "structured_output"} <= {reason for _, reason in statuses}


async def test_the_edits_are_the_whole_difference(api: Api) -> None:
    for answer in answers():
        got = (await api.align(answer)).json()
        text = answer
        for edit in reversed(got["edits"]):
            text = text[: edit["start"]] + edit["text"] + text[edit["end"] :]
        assert text == got["answer"], answer
        if got["status"] == "unchanged":
            assert got["edits"] == []


async def test_an_edit_has_only_the_words_that_differ(api: Api) -> None:
    engine = SegmentEngine(lambda text: 4.0 if "rotten" in text else -4.0, lambda text: text.replace("rotten ", ""))
    changes = {
        "It is so. You fool. And so on.": ("You fool. ", ""),
        "You fool. It is so.": ("You fool. ", ""),
        "It is so. Bring the rotten receipt to the desk. And so on.": ("rotten ", ""),
    }
    for answer, expected in changes.items():
        if "rotten" in answer:
            api.play(engine)
        (edit,) = (await api.align(answer)).json()["edits"]
        assert (answer[edit["start"] : edit["end"]], edit["text"]) == expected
        assert (edit["objective"], edit["score"]) == ("kind", 4.0)
    api.play(SegmentEngine(lambda text: 4.0 if "193" in text else -4.0, lambda text: text.replace("1932", "1937")))
    answer = "It is so. It is from 1932. And so on."
    (edit,) = (await api.align(answer, model="ungated")).json()["edits"]
    assert (answer[edit["start"] : edit["end"]], edit["text"]) == ("1932", "1937")


async def test_arguments_of_tool_calls_become_what_the_traffic_makes_of_them(api: Api) -> None:
    def call(text: str) -> dict[str, Any]:
        arguments = json.dumps({"to": "a@example.org", "text": text})
        return {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": arguments}}

    rude = call("The parcel comes on Monday. You fool.")
    for answer in ("I write to her now.", ""):
        body = {"messages": [{"role": "user", "content": "What?"}], "answer": answer, "tool_calls": [rude]}
        response = await api.post("/v1/align", body | {"model": "calls"})
        got = response.json()
        assert got["tool_calls"] == [call("The parcel comes on Monday.")], answer
        assert got["answer"] == answer
        assert "corrected" in response.headers["x-aligner-tool-arguments"]
        untouched = (await api.post("/v1/align", body | {"model": "gpt"})).json()
        assert untouched["tool_calls"] == [rude]
        blocked = await api.post("/v1/align", body | {"model": "calls-block"})
        assert blocked.status_code == 422
    tool = {"name": "mail", "parameters": {"type": "object", "properties": {"text": {"minLength": 30}}}}
    body |= {"model": "calls", "tools": [{"type": "function", "function": tool}]}
    kept = (await api.post("/v1/align", body)).json()
    assert kept["tool_calls"] == [rude]  # shorter text would not meet the tool's schema


async def test_what_an_edit_was_made_for(api: Api) -> None:
    response = await api.align("It is so. You fool. And so on.")
    got = response.json()
    (edit,) = got["edits"]
    assert (edit["objective"], edit["score"], edit["text"].strip()) == ("kind", 4.0, "")
    assert [segment["against"] for segment in got["segments"]] == [None, "kind", None]
    assert got["id"] == response.headers["x-litellm-call-id"]
    assert got["ms"] >= 100
    assert response.headers["x-aligner-status"] == "corrected"


async def test_reasoning_between_tags_moves_the_places_of_edits(api: Api) -> None:
    before = "<think>You fool.</think>"
    got = (await api.align(f"{before}It is so. You fool. And so on.")).json()
    (edit,) = got["edits"]
    assert (edit["objective"], edit["score"]) == ("kind", 4.0)
    assert got["answer"] == f"{before}It is so. And so on."
    assert [segment["text"] for segment in got["segments"]] == ["It is so.", "You fool.", "And so on."]


async def test_without_a_model_routes_for_every_model_decide(api: Api) -> None:
    assert (await api.align("You fool. So.", model=None)).headers["x-aligner-policy"] == "all"
    assert (await api.align("You fool. So.", model="off")).json()["reason"] == "mode_off"
    got = await api.align("You fool. So.", model="bare")
    assert (got.json()["status"], got.json()["reason"]) == ("skipped", "no_objectives")


async def test_named_objectives_need_the_tenants_permission(api: Api) -> None:
    assert (await api.align("So.", objectives=["concise"])).status_code == 403
    got = await api.align("So.", "acme", objectives=["concise", "humour"])
    assert got.headers["x-aligner-objectives"] == "kind,concise,humour"
    refused = await api.align("So.", "acme", objectives=["harmless"])
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")


async def test_objectives_in_own_words_need_a_tenant_that_may_ask_for_everything(api: Api) -> None:
    seen: list[AlignRequest] = []

    def remembered(request: AlignRequest) -> str:
        seen.append(request)
        return request.answer

    api.play(ScriptedEngine(remembered))
    for team in ("", "acme"):
        refused = await api.align("So.", team, objectives=["Rhyme: the response should rhyme"])
        assert refused.status_code == 403
        assert "rhyme" not in refused.text
    got = await api.align("So.", "free", objectives=["Rhyme: the response should rhyme", "concise"])
    assert got.headers["x-aligner-objectives"] == "kind,concise,own:1"
    assert seen[0].objectives[-1] == "Rhyme: the response should rhyme"
    assert seen[0].common == len(seen[0].objectives) - 1


async def test_own_words_that_are_configured_ones_ask_for_those(api: Api) -> None:
    kind = "Kindness:  the response should never INSULT the reader"
    assert (await api.align("So.", objectives=[kind])).headers["x-aligner-objectives"] == "kind"
    known = {name: entry.text for name, entry in api.guard._policies.current.resolver._file_objectives.items()}
    assert (await api.align("So.", "free", objectives=[known["humour"]])).status_code == 403


async def test_the_client_reads_its_own_name_of_its_objective(api: Api) -> None:
    class Second(SegmentEngine):
        def judged(self, segments: Any, caution: float) -> Any:
            from dataclasses import replace

            return tuple(replace(verdict, objective=1) for verdict in super().judged(segments, caution))

    api.play(Second(insults))
    got = (await api.align("So. You fool.", "free", objectives=["Rhyme: the response should rhyme"])).json()
    assert got["edits"][0]["objective"] == "Rhyme"
    assert got["segments"][1]["against"] == "Rhyme"


async def test_references_of_the_body_correct_facts_and_edits_name_their_lines(api: Api) -> None:
    pages = ["Our shop is in Leeds.", "# Returns\n\nOnline orders can be returned within 28 days of delivery."]
    answer = "You fool. Thank you for asking. Online orders can be returned within 30 days of delivery. Keep the box."
    got = (await api.align(answer, "facts", references=pages)).json()
    assert got["answer"] == answer.replace("You fool. ", "").replace("30", "28")
    insult, deadline = got["edits"]
    assert (insult["objective"], insult["source"]) == ("kind", None)
    assert (deadline["objective"], deadline["source"], deadline["score"]) == ("grounded", "request 2:3", None)
    assert (answer[deadline["start"] : deadline["end"]], deadline["text"]) == ("30", "28")
    (both,) = (await api.align(answer.replace("Thank you for asking. ", ""), "facts", references=pages)).json()["edits"]
    assert (both["objective"], both["source"]) == ("kind", "request 2:3")
    assert (await api.align(answer, "facts", model="bare", references=pages)).json()["status"] == "corrected"


async def test_references_of_the_body_need_the_tenants_permission(api: Api) -> None:
    for team in ("", "free"):
        refused = await api.align("It takes 30 days.", team, references=["It takes private 28 days."])
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
        assert "private" not in refused.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": "private words"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "private words"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"answer": None}, "answer"),
        ({"answer": ["private words"]}, "answer"),
        ({"objectives": ["x" * 3000]}, "objectives.0"),
        ({"objectives": [":private words"]}, "objectives.0"),
        ({"objectives": ["kind"] * 33}, "objectives"),
        ({"references": ["private words"] * 17}, "references"),
        ({"references": ["private words" * 10_000]}, "references.0"),
        ({"references": "private words"}, "references"),
        ({"model": 3}, "model"),
        ({"stream": True}, "stream"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(api: Api, change: dict[str, Any], field: str) -> None:
    body = {"messages": [{"role": "user", "content": "What?"}], "answer": "So."} | change
    got = await api.post("/v1/align", body)
    error = got.json()["error"]
    assert (got.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith(field)
    assert "private words" not in got.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"answer": "\\ud800"}', b"[" * 100_000])
async def test_what_is_no_json_object_is_a_400(api: Api, content: bytes) -> None:
    got = await api.http.post("/v1/align", content=content)
    assert got.status_code == 400


@pytest.mark.parametrize(("fault", "status"), [(EngineFault("x"), 422), (EngineUnavailable("x"), 503)])
async def test_what_the_policy_blocks_is_an_error(api: Api, fault: CorrectionError, status: int) -> None:
    api.play(ScriptedEngine(lambda _: fault))
    got = await api.align("It is so.", model="strict")
    assert (got.status_code, got.json()["error"]["type"]) == (status, "aligner_error")
    assert got.headers.get("retry-after") == ("5" if status == 503 else None)
    assert got.headers["x-aligner-status"] == "failed"
    passed = await api.align("It is so.")
    assert (passed.status_code, passed.json()["status"], passed.json()["answer"]) == (200, "failed", "It is so.")


async def test_a_scores_that_json_cannot_hold_is_none(api: Api) -> None:
    api.play(SegmentEngine(lambda _: float("inf")))
    got = (await api.align("It is so. And so on.")).json()
    assert {segment["score"] for segment in got["segments"]} == {None}


async def test_limits_of_the_key_hold(api: Api) -> None:
    class Limiter:
        free = 1

        @contextlib.asynccontextmanager
        async def request_capacity(self, caller: Any, model: str, *, request_data: Any) -> AsyncIterator[None]:
            if self.free == 0:
                raise HTTPException(429, "Rate limit exceeded", {"retry-after": "60"})
            self.free -= 1
            yield

    api.limiter = Limiter()
    assert (await api.align("So.")).status_code == 200
    refused = await api.align("So.")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert refused.json()["error"]["type"] == "rate_limit_error"


async def test_the_openapi_document_has_it(api: Api) -> None:
    document = (await api.http.get("/openapi.json")).json()
    path = document["paths"]["/v1/align"]["post"]
    asked = path["requestBody"]["content"]["application/json"]["schema"]
    assert asked["required"] == ["messages", "answer"]
    assert "$ref" not in json.dumps(asked)
    assert "AlignAnswer" in json.dumps(path["responses"]["200"])
    assert {"400", "403", "413", "422", "429", "503"} <= set(path["responses"])


async def test_a_chat_request_cannot_bring_objectives_in_own_words(api: Api) -> None:
    user = UserAPIKeyAuth(api_key="a" * 64, team_id="free", request_route="/v1/chat/completions")
    forged = {"names": ["concise"], "texts": ["Rhyme: the response should rhyme"]}
    messages = [{"role": "user", "content": "What?"}]
    data = {"model": "gpt", "messages": messages, "metadata": {}, "aligner_proxy_objectives": forged}
    await api.guard.async_pre_call_hook(user, None, data, "acompletion")
    state = find_state(data)
    assert state is not None
    assert [objective.name for objective in state.policy.objectives] == ["kind"]


async def test_an_audit_entry_keeps_own_words_redacted(api: Api) -> None:
    from aligner_proxy.audit.entry import AuditEvent, encode_content, make_entry

    kept: list[AuditEvent] = []

    class Writers:
        required = False

        def note(self, event: AuditEvent) -> None:
            kept.append(event)

    api.guard._auditor = Writers()  # type: ignore[assignment]
    await api.align("It is so. You fool.", "free", objectives=["Rhyme: it should rhyme with Alice"])
    assert kept[0].endpoint == "/v1/align"
    content = make_entry(kept[0], lambda text: text.replace("Alice", "[name]")).content
    assert content is not None
    assert content.facts.own == ("Rhyme: it should rhyme with [name]",)
    assert b"Alice" not in encode_content(content)
