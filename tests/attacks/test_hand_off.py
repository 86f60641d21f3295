"""Reports of doubtful answers: who else could say where they go, what they hold, and who could make one up."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tenacity.wait import wait_none

from aligner_proxy.gateway.request_state import find_state
from aligner_proxy.gateway.webhook import SIGNATURE, WebhookSender, sign_report
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, HandOff, SegmentScore
from tests.attacks.attack import Attack, rows
from tests.gateway.test_guardrail import POLICIES, answer, build, data, user
from tests.gateway.test_webhook import SECRET, Desk, asked, opened, outcome_of
from tests.support.background import wait_for_reports
from tests.support.scripted import ScriptedEngine

EVIL = {"url": "http://127.0.0.1:9/evil", "secret_env": "DESK_SECRET", "within": 50.0, "text": True}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_SECRET", SECRET)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with opened() as made:
        yield made


SETTERS = rows(
    ("hand-off-body", "client", "names a webhook in the body's metadata", "the operator's", {"body": EVIL}),
    ("hand-off-header", "client", "names a webhook in a header", "the operator's", {"header": EVIL["url"]}),
    (
        "hand-off-key-metadata",
        "owner of a key",
        "names a webhook in metadata of its key, which the file trusts",
        "the operator's",
        {"key": EVIL},
    ),
    (
        "hand-off-team-metadata",
        "manager of a team",
        "the same in metadata of its team",
        "the operator's",
        {"team": EVIL},
    ),
)


@pytest.mark.parametrize("attack", SETTERS)
async def test_only_the_file_says_where_reports_go(
    attack: Attack, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"url": desk.url, "secret_env": "DESK_SECRET"}
    route = {"match": {"model": "*"}, "objectives": ["kind"], "hand_off": block}
    guard = build(tmp_path, monkeypatch, POLICIES | {"routes": [route]})
    scores = (SegmentScore("It is so.", -0.2, False), SegmentScore("You fool.", -3.0, False))
    guard.pipeline = Pipeline(ScriptedEngine(lambda request: Correction(request.answer, scores, aligner="a")))
    given = attack.payload
    more: dict[str, Any] = {"aligner": {"hand_off": given["body"]}} if "body" in given else {}
    request = data(headers={"x-aligner-hand-off": given["header"]} if "header" in given else None, **more)
    who = user(
        metadata={"aligner": {"hand_off": given["key"]}} if "key" in given else {},
        team_metadata={"aligner": {"hand_off": given["team"]}} if "team" in given else {},
    )
    await guard.async_pre_call_hook(who, None, request, "acompletion")
    await guard.async_post_call_success_hook(request, who, answer("It is so. You fool."))
    state = find_state(request)
    assert state is not None
    assert state.policy.hand_off == HandOff(desk.url, "DESK_SECRET", 0.5)
    await wait_for_reports(guard._webhook)
    await guard._webhook.aclose()
    assert len(desk.bodies) == 1
    assert b"fool" not in desk.bodies[0]


INSIDE = rows(
    (
        "hand-off-redirect",
        "webhook",
        "sends the gateway on to an address inside the network",
        "no redirect is followed",
        {"statuses": [302]},
    ),
    (
        "hand-off-endless",
        "webhook",
        "answers without an end",
        "its body is not read; the next report is sent",
        {"endless": True, "statuses": [200]},
    ),
)


@pytest.mark.parametrize("attack", INSIDE)
async def test_a_webhook_gets_nowhere(attack: Attack) -> None:
    hand_offs = WebhookSender(backoff=wait_none())
    async with opened() as inner, opened(**attack.payload) as desk:
        desk.extra += f"location: {inner.url}\r\n"
        for name in ("id-1", "id-2"):
            hand_offs.offer(asked(), outcome_of(desk.url), name)
        await wait_for_reports(hand_offs)
        assert len(desk.bodies) == 2
        assert not inner.bodies
    await hand_offs.aclose()


FORGED = rows(
    ("hand-off-forged", "neighbour on the network", "posts a report of its own", "its signature is wrong", b"other"),
    ("hand-off-replayed", "neighbour on the network", "posts a report once more under a new time", "the same", None),
)


@pytest.mark.parametrize("attack", FORGED)
async def test_a_report_cannot_be_made_up(attack: Attack, desk: Desk) -> None:
    hand_offs = WebhookSender(backoff=wait_none())
    hand_offs.offer(asked(), outcome_of(desk.url), "id")
    await wait_for_reports(hand_offs)
    await hand_offs.aclose()
    [body] = desk.bodies
    parts = dict(part.split("=") for part in desk.headers[0][SIGNATURE].split(","))
    at = int(parts["t"])
    assert sign_report(SECRET.encode(), at, body) == desk.headers[0][SIGNATURE]
    made_up = (attack.payload or body, at if attack.payload else at + 60)
    expected = hmac.new(SECRET.encode(), f"{made_up[1]}.".encode() + made_up[0], hashlib.sha256).hexdigest()
    assert not hmac.compare_digest(expected, parts["v1"])


SILENT = rows(
    (
        "hand-off-no-store",
        "client",
        "forbids storing, on a route whose reports have text",
        "the report has no text",
        {"no_store": True},
    ),
)


@pytest.mark.parametrize("attack", SILENT)
async def test_what_may_not_be_stored_is_not_handed_on(attack: Attack, desk: Desk) -> None:
    hand_offs = WebhookSender(backoff=wait_none())
    outcome = outcome_of(desk.url, text=True)
    hand_offs.offer(replace(asked(), **attack.payload), outcome, "id")
    await wait_for_reports(hand_offs)
    await hand_offs.aclose()
    assert b"fool" not in desk.bodies[0]
    assert b"sister" not in desk.bodies[0]
