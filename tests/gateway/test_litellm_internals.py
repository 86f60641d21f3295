"""What we lean on inside LiteLLM is still there, and does what we use it for."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from litellm.proxy._types import ProxyException

from aligner_proxy.gateway import litellm_internals, router_fields


async def test_what_is_to_be_done_last_is_done_before_the_proxy_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    async def own(worker_heartbeat: object) -> None:
        done.append(worker_heartbeat)

    async def last() -> None:
        done.append("ours")

    server: Any = SimpleNamespace(proxy_shutdown_event=own)
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", server)
    litellm_internals.at_shutdown(last)
    await server.proxy_shutdown_event(worker_heartbeat="theirs")
    assert done == ["ours", "theirs"]


def test_outside_a_proxy_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def last() -> None:
        raise AssertionError

    monkeypatch.delitem(sys.modules, "litellm.proxy.proxy_server", raising=False)
    litellm_internals.at_shutdown(last)


def test_the_proxy_looks_its_last_step_up_when_it_ends() -> None:
    from litellm.proxy import proxy_server

    lifespan = proxy_server.proxy_startup_event.__wrapped__  # type: ignore[attr-defined]
    assert "proxy_shutdown_event" in lifespan.__code__.co_names


@pytest.mark.parametrize("place", ["body", "override"])
@pytest.mark.parametrize("inside", [False, True])
def test_litellm_checks_no_more_fallbacks_than_we_let_it(place: str, inside: bool) -> None:
    from litellm.proxy.auth import auth_utils

    litellm_internals.bound_fallbacks(router_fields.too_many, router_fields.TOO_MANY)
    litellm_internals.bound_fallbacks(router_fields.too_many, router_fields.TOO_MANY)
    few: list[Any] = ["gpt"] * router_fields.MAX_FALLBACKS
    many: list[Any] = [{"model": "gpt", "fallbacks": ["a"] * 50_000}] if inside else [{"model": "gpt"}] * 50_000

    def safe(fallbacks: list[Any]) -> bool:
        body = {"fallbacks": fallbacks}
        sent = body if place == "body" else {"router_settings_override": body}
        return auth_utils.is_request_body_safe(sent, {}, None, "gpt")

    assert safe(few)
    with pytest.raises(ProxyException) as refused:
        safe(many)
    assert str(refused.value.code) == "400"
