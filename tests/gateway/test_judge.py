"""A judge through the hooks: who pays, what headers, records, metrics and audit entries say, which level decides."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aligner_proxy.audit.entry import AuditEvent
from aligner_proxy.errors import EngineUnavailable
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.observability import metrics
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.gateway import test_side_texts as side_texts
from tests.gateway.test_guardrail import answer, build, data, ledger_of, user
from tests.support.editors import ScriptedChat
from tests.support.judges import judges, judging
from tests.support.scripted import SegmentEngine

SLY = "Take a brush. You sly dog. Then paint it."
EDITED = "Take a brush. Then paint it."
ROUTE = {"match": {"model": "gpt"}, "objectives": ["harmless"]}
JUDGE = {"chat": "counted"}


def guarded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, policies: dict[str, Any]
) -> tuple[AlignerGuardrail, ScriptedChat]:
    guard = build(folder, monkeypatch, policies)
    chat = ScriptedChat(judging(lambda text: "dog" in text))
    engine = SegmentEngine(lambda text: -0.3 if "dog" in text else -2.0)
    guard.pipeline = Pipeline(engine, judges=judges(chat))
    return guard, chat


async def test_headers_records_and_metrics_say_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, chat = guarded(tmp_path, monkeypatch, {"routes": [{**ROUTE, "judge": JUDGE}]})
    flagged = metrics.JUDGED_SEGMENTS.labels("counted", "flagged")._value
    calls = metrics.JUDGE_CALLS.labels("counted", "replied")._value
    before = (flagged.get(), calls.get())
    events: list[AuditEvent] = []
    monkeypatch.setattr(guard, "_auditor", SimpleNamespace(note=events.append, required=False))
    request = data()
    got = await guard.async_post_call_success_hook(request, user(), answer(SLY, "All is well."))
    assert got.choices[0].message.content == EDITED
    state = ledger_of(request)
    use = state.outcomes[0].correction and state.outcomes[0].correction.judge
    assert use
    cost = f"calls=1 read={use.calls.read} written={use.calls.written}"
    assert state.headers()["x-aligner-judge"] == f"counted asked=1 flagged=1 cleared=0 {cost}"
    assert b" judge=1/1/0 " in state.comment()
    first, second = state.record()["choices"]
    assert {name: first["judge"][name] for name in ("model", "asked", "flagged", "cleared", "calls")} == {
        "model": "counted",
        "asked": 1,
        "flagged": 1,
        "cleared": 0,
        "calls": 1,
    }
    assert "judge" not in second
    # choices are corrected at the same time, so their order is open
    assert [event.record.get("judge") for event in events if event.exchange.index == 0] == [first["judge"]]
    assert (flagged.get(), calls.get()) == (before[0] + 1, before[1] + 1)
    assert "dog" not in json.dumps(state.record())
    assert [payer["user_api_key"] for payer in chat.payers] == [user().api_key]


async def test_the_level_that_comes_last_names_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = {"match": {"team": "acme"}, "name": "acme", "judge": "off"}
    policies = {"defaults": {"judge": JUDGE}, "routes": [ROUTE], "tenants": [off]}
    guard, chat = guarded(tmp_path, monkeypatch, policies)
    got = await guard.async_post_call_success_hook(data(), user(team_id="acme"), answer(SLY))
    assert (got.choices[0].message.content, chat.asked) == (SLY, [])
    got = await guard.async_post_call_success_hook(data(), user(), answer(SLY))
    assert got.choices[0].message.content == EDITED


async def test_metadata_that_is_not_trusted_names_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, chat = guarded(tmp_path, monkeypatch, {"routes": [{**ROUTE, "judge": JUDGE}]})
    caller = user(metadata={"aligner": {"judge": "off"}})
    got = await guard.async_post_call_success_hook(data(), caller, answer(SLY))
    assert (got.choices[0].message.content, len(chat.asked)) == (EDITED, 1)


async def test_a_quota_pays_for_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metered = {"match": {"team": "acme"}, "name": "acme", "quota": 0}
    guard, chat = guarded(tmp_path, monkeypatch, {"routes": [{**ROUTE, "judge": JUDGE}], "tenants": [metered]})
    request = data()
    got = await guard.async_post_call_success_hook(request, user(team_id="acme"), answer(SLY))
    # the head's own verdict stands
    assert (got.choices[0].message.content, chat.asked) == (SLY, [])
    assert ledger_of(request).headers()["x-aligner-judge"].endswith(" failed=1")


SLY_THOUGHT = "The reader is a sly dog, so I keep it short."
BESIDE = ("reasoning", "tool_arguments", "tool_output", "transcripts", "other_text")


@pytest.mark.parametrize("mode", ["hold", "sentence"])
async def test_texts_beside_the_answer_are_judged_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    settings: dict[str, Any] = {**ROUTE, "stream": mode, "judge": JUDGE, "on_error": "block"}
    guard, chat = guarded(tmp_path, monkeypatch, {"routes": [settings | dict.fromkeys(BESIDE, "judge")]})
    wrong = []
    for kind, extra in side_texts.beside(SLY_THOUGHT).items():
        for attempt in (
            side_texts.whole(guard, "gpt", side_texts.answer(extra)),
            side_texts.streamed(guard, "gpt", side_texts.events(extra)),
        ):
            try:
                await attempt
                wrong.append((kind, "delivered"))
            except Blocked as error:
                wrong += [] if error.reason == kind else [(kind, str(error.reason))]
        fine = side_texts.answer(side_texts.beside("The answer is kept short.")[kind])
        assert await side_texts.whole(guard, "gpt", fine) is fine
    assert not wrong
    assert chat.asked


async def test_what_it_clears_beside_the_answer_may_go_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {**ROUTE, "judge": {**JUDGE, "ask": "flagged"}, "on_error": "block"}
    guard, chat = guarded(tmp_path, monkeypatch, {"routes": [settings | dict.fromkeys(BESIDE, "judge")]})
    guard.pipeline = Pipeline(SegmentEngine(lambda text: 2.0 if "cat" in text else -2.0), judges=judges(chat))
    thought = "The reader likes a cat, so I mention one."
    for extra in side_texts.beside(thought).values():
        given = side_texts.answer(extra)
        assert await side_texts.whole(guard, "gpt", given) is given
    chat.script = lambda _: EngineUnavailable("scripted")
    for kind, extra in side_texts.beside("Another cat comes to mind, so I stop.").items():
        with pytest.raises(Blocked, match=kind):
            await side_texts.whole(guard, "gpt", side_texts.answer(extra))


async def test_texts_of_the_request_are_not_for_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**ROUTE, "judge": JUDGE, "incoming_history": "block"}
    guard, chat = guarded(tmp_path, monkeypatch, {"routes": [settings]})
    request = data()
    request["messages"] = [{"role": "assistant", "content": SLY}, {"role": "user", "content": "And then?"}]
    await guard.async_pre_call_hook(user(), None, request, "acompletion")
    await guard.async_post_call_success_hook(request, user(), answer("All is well."))
    assert not chat.asked
