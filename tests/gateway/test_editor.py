"""An editor through the hooks: which model group it is, who pays, and what headers, records and the audit entry say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aligner_proxy.audit.entry import AuditEvent, policy_hash
from aligner_proxy.gateway import routing
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.observability import metrics
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.gateway.test_guardrail import answer, build, data, ledger_of, user
from tests.support.editors import ScriptedChat, editors, repairing
from tests.support.scripted import SegmentEngine

RUDE = "Take a brush. You fool. Then paint it."
EDITED = "Take a brush. Use outdoor paint. Then paint it."
FRIENDLY = repairing(lambda _: "Use outdoor paint.")
ROUTE = {"match": {"model": "gpt"}, "objectives": ["harmless"]}


class Opening:
    """Editors whose groups are remembered in the order in which they are opened."""

    def __init__(self) -> None:
        self.chat = ScriptedChat(FRIENDLY)
        self.groups: list[str] = []
        self.editors = editors(self.chat)
        self.editors._open_chat = self._opened

    def _opened(self, name: str) -> ScriptedChat:
        self.groups.append(name)
        return self.chat


def guarded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, policies: dict[str, Any]
) -> tuple[AlignerGuardrail, Opening]:
    guard = build(folder, monkeypatch, policies)
    opening = Opening()
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0)
    guard.pipeline = Pipeline(engine, editors=opening.editors)
    return guard, opening


async def test_the_key_that_litellm_authenticated_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, opening = guarded(tmp_path, monkeypatch, {"routes": [{**ROUTE, "editor": {"model": "strong"}}]})
    request = data(user_api_key="the key of another", user_api_key_team_id="another team")
    caller = user(team_id="acme", user_id="ann", key_alias="ci", end_user_id="eve")
    got = await guard.async_post_call_success_hook(request, caller, answer(RUDE))
    assert got.choices[0].message.content == EDITED
    assert opening.groups == ["strong"]
    [payer] = opening.chat.payers
    assert payer == {
        "user_api_key": caller.api_key,
        "user_api_key_hash": caller.api_key,
        "user_api_key_alias": "ci",
        "user_api_key_team_id": "acme",
        "user_api_key_user_id": "ann",
        "user_api_key_end_user_id": "eve",
    }


async def test_headers_records_and_metrics_say_what_it_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, _ = guarded(tmp_path, monkeypatch, {"routes": [{**ROUTE, "editor": {"model": "counted"}}]})
    calls = metrics.EDITOR_CALLS.labels("counted", "replied")._value
    before = calls.get()
    request = data()
    await guard.async_post_call_success_hook(request, user(), answer(RUDE, "All is well.", RUDE))
    state = ledger_of(request)
    uses = [outcome.correction and outcome.correction.editor for outcome in state.outcomes]
    assert [use and use.calls for use in uses] == [1, None, 1]
    assert uses[0] is not None
    read, written = 2 * uses[0].read, 2 * uses[0].written
    assert state.headers()["x-aligner-editor"] == f"counted calls=2 read={read} written={written}"
    assert f" editor=2/{read}/{written} ".encode() in state.comment()
    told = state.record()["choices"]
    assert told[0]["editor"]["model"] == "counted"
    assert "editor" not in told[1]
    assert calls.get() == before + 2
    assert "paint" not in json.dumps(state.record())


async def test_the_audit_entry_says_it_and_not_who_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, _ = guarded(tmp_path, monkeypatch, {"routes": [{**ROUTE, "editor": {"model": "strong"}}]})
    events: list[AuditEvent] = []
    monkeypatch.setattr(guard, "_auditor", SimpleNamespace(note=events.append, required=False))
    for caller in (user(team_id="acme"), user(team_id="other", key_alias="ci")):
        await guard.async_post_call_success_hook(data(), caller, answer(RUDE))
    assert [event.record["editor"]["calls"] for event in events] == [1, 1]
    assert events[0].outcome.policy.payer != events[1].outcome.policy.payer
    assert len({policy_hash(event.outcome.policy) for event in events}) == 1
    assert all("user_api_key" not in repr(event.outcome.policy) for event in events)


async def test_the_model_that_answers_may_be_the_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, opening = guarded(tmp_path, monkeypatch, {"routes": [{**ROUTE, "editor": "upstream"}]})
    await guard.async_post_call_success_hook(data(), user(), answer(RUDE))
    assert opening.groups == ["gpt"]


async def test_behind_an_alias_it_is_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "resolve_name", lambda model, _: (model, ("gpt-group",)))
    guard, opening = guarded(tmp_path, monkeypatch, {"routes": [{**ROUTE, "editor": "upstream"}]})
    await guard.async_post_call_success_hook(data(), user(), answer(RUDE))
    assert opening.groups == ["gpt-group"]


@pytest.mark.parametrize("first", ["upstream", "local"])
async def test_where_another_group_answers_that_one_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    routes = [{**ROUTE, "editor": first}, {"match": {}, "objectives": ["harmless"], "editor": "upstream"}]
    guard, opening = guarded(tmp_path, monkeypatch, {"routes": routes})
    monkeypatch.setattr(routing, "find_answering_group", lambda *_: "fallback")
    await guard.async_post_call_success_hook(data(), user(team_id="acme"), answer(RUDE))
    assert opening.groups == ["fallback"]
    assert opening.chat.payers[0]["user_api_key_team_id"] == "acme"


async def test_a_file_without_editors_says_nothing_of_who_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, opening = guarded(tmp_path, monkeypatch, {"routes": [ROUTE]})
    request = data()
    await guard.async_post_call_success_hook(request, user(team_id="acme"), answer(RUDE))
    state = ledger_of(request)
    assert (state.policy.payer, state.policy.upstream) == ((), "")
    assert "x-aligner-editor" not in state.headers()
    assert not opening.chat.asked
