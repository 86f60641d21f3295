"""Preferences through the real proxy: a response, a stream, and a tenant that may not bring any."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED
SAID = {"metadata": {"aligner": {"preference": "No lists and no emoji, please. Be warm."}}}


def test_a_response_is_as_the_request_prefers_it(tenants: Any, upstream: str) -> None:
    got = tenants["vip"].chat("good wishes", model="wishing", **SAID)
    text = got.json()["choices"][0]["message"]["content"]
    assert text.startswith("Water boils at 100 \u00b0C at sea level.  It boils lower")
    assert "\U0001f3d4" not in text
    assert "\n- " not in text
    assert "in the mountains" in text
    assert got.headers["x-aligner-objectives"] == "kind,preference,no-lists,no-emoji"
    assert got.headers["x-aligner-preferences"] == "no-lists=no/yes,no-emoji=no/yes"
    seen = httpx.get(f"{upstream}/seen?n=1", trust_env=False, verify=False).json()
    assert "No lists" not in str(seen)


def test_a_stream_is_held_and_says_it_at_its_end(tenants: Any) -> None:
    stream = tenants["vip"].chat_stream("rude wishes", model="wishing", **SAID)
    assert "idiot" not in stream.text()
    assert stream.comments[-1].startswith(": aligner status=corrected preferences=no-lists=yes/yes,no-emoji=yes/yes")


def test_a_tenant_that_may_not_gets_a_403_before_anything_is_spent(tenants: Any, upstream: str) -> None:
    before = len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json())
    got = tenants["other"].chat("good wishes", model="wishing", **SAID)
    assert (got.status_code, got.json()["error"]["type"]) == (403, "permission_error")
    assert len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()) == before
