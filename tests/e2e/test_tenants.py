"""Who asks decides: keys from a file, objectives per tenant, and nothing shared between tenants."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED


def test_keys_come_from_the_file(gateway: Any, tenants: Any) -> None:
    assert tenants["acme"].chat("good").status_code == 200
    for key in (None, "nonsense", "key-acme-11", "9" * 64):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        body = {"model": "gpt", "messages": [{"role": "user", "content": "good"}]}
        got = httpx.post(
            f"{gateway.address}/v1/chat/completions", json=body, headers=headers, trust_env=False, verify=False
        )
        assert (got.status_code, got.json()["error"]["type"]) == (401, "auth_error"), key
    assert tenants["acme"].http.get("/v1/models").status_code == 200
    assert tenants["acme"].http.get("/model/info").status_code == 403
    assert gateway.http.get("/model/info").status_code == 200


def test_enforced_objectives_come_first_and_wishes_last(tenants: Any) -> None:
    wish = {"x-aligner-objectives": "concise"}
    assert tenants["acme"].chat("good", headers=wish).headers["x-aligner-objectives"] == "harmless,kind,concise"
    assert tenants["other"].chat("good").headers["x-aligner-objectives"] == "kind"


@pytest.mark.parametrize("stream", [False, True])
def test_a_wish_that_is_not_allowed_is_a_403_before_anything_is_spent(
    tenants: Any, upstream: str, stream: bool
) -> None:
    before = len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json())
    got = tenants["other"].chat("good", headers={"x-aligner-objectives": "concise"}, stream=stream)
    assert got.status_code == 403
    assert got.json()["error"]["type"] == "permission_error"
    bypass = tenants["other"].chat("good", headers={"x-aligner-bypass": "1"}, stream=stream)
    assert bypass.status_code == 403
    assert len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()) == before


def test_bypass_where_it_is_allowed(tenants: Any, plain: Any) -> None:
    got = tenants["vip"].chat("rude", headers={"x-aligner-bypass": "1"})
    assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("skipped", "bypass")
    assert got.content == plain.chat("rude").content


def test_a_body_cannot_pose_as_another_tenant(tenants: Any) -> None:
    forged = {"user_api_key_team_id": "acme", "user_api_key_team_alias": "acme", "user_api_key_alias": "vip"}
    got = tenants["other"].chat("good", metadata={**forged, "aligner_proxy_state": {"policy": {"mode": "off"}}})
    assert got.headers["x-aligner-objectives"] == "kind"
    assert got.headers["x-aligner-status"] == "unchanged"


def test_two_tenants_with_the_same_words_share_nothing_stored(tenants: Any, engine: Any) -> None:
    before = len(engine.calls())
    statuses = [tenants[who].chat("rude alike").headers["x-aligner-cache"] for who in ("other", "vip", "other", "vip")]
    assert statuses == ["miss", "miss", "hit", "hit"]
    assert len(engine.calls()) == before + 2


def test_two_tenants_with_the_same_words_share_nothing_in_flight(tenants: Any, engine: Any) -> None:
    before = len(engine.calls())
    with ThreadPoolExecutor(4) as pool:
        answering = [pool.submit(tenants[who].chat, "slow alike") for who in ("other", "vip", "other", "vip")]
        assert {job.result().headers["x-aligner-status"] for job in answering} == {"corrected"}
    assert len(engine.calls()) == before + 2


def test_no_store_leaves_nothing_behind(tenants: Any, engine: Any) -> None:
    before = len(engine.calls())
    for _ in range(2):
        got = tenants["other"].chat("rude unstored", headers={"cache-control": "no-store"})
        assert (got.headers["x-aligner-status"], "x-aligner-cache" in got.headers) == ("corrected", False)
    assert len(engine.calls()) == before + 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_may_forbid_storing_too(tenants: Any, engine: Any, stream: bool) -> None:
    before = len(engine.calls())
    for _ in range(2):
        tenants["other"].chat(f"unstored {stream}", stream=stream)
    assert len(engine.calls()) == before + 2
