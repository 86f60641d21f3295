"""What we lean on inside LiteLLM is still there, and does what we use it for."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from litellm import DualCache
from litellm.litellm_core_utils.litellm_logging import Logging
from litellm.proxy._types import LiteLLMRoutes, ProxyException, UserAPIKeyAuth
from litellm.proxy.auth.route_checks import RouteChecks
from litellm.proxy.hooks import PROXY_HOOKS
from litellm.proxy.utils import InternalUsageCache

from aligner_proxy.formats import ANSWERS
from aligner_proxy.gateway import litellm_internals, routing
from tests.support.stream_fixtures import chunk


async def test_what_is_to_be_done_last_is_done_before_the_proxy_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    async def own(worker_heartbeat: object) -> None:
        done.append(worker_heartbeat)

    async def last() -> None:
        done.append("ours")

    server: Any = SimpleNamespace(proxy_shutdown_event=own)
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", server)
    litellm_internals.run_at_shutdown(last)
    await server.proxy_shutdown_event(worker_heartbeat="theirs")
    assert done == ["ours", "theirs"]


def test_outside_a_proxy_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def last() -> None:
        raise AssertionError

    monkeypatch.delitem(sys.modules, "litellm.proxy.proxy_server", raising=False)
    litellm_internals.run_at_shutdown(last)


def test_the_proxy_looks_its_last_step_up_when_it_ends() -> None:
    from litellm.proxy import proxy_server

    lifespan = proxy_server.proxy_startup_event.__wrapped__  # type: ignore[attr-defined]
    assert "proxy_shutdown_event" in lifespan.__code__.co_names


async def admitted(limiter: Any, keys: int) -> int:
    """How many of so many keys, each with one request a minute, LiteLLM lets call."""
    callers = [UserAPIKeyAuth(api_key=f"{number:064x}", rpm_limit=1) for number in range(keys)]
    count = 0
    for caller in callers:
        descriptors = limiter.create_rate_limit_descriptors(
            caller, {"model": "m"}, None, None, model_has_failures=False
        )
        answer = await limiter.should_rate_limit(descriptors, skip_tpm_check=True)
        count += answer["overall_code"] == "OK"
    return count


async def test_litellm_counts_for_every_key_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cache of counters is small: without more room each key would find its own forgotten."""
    cache = InternalUsageCache(DualCache(default_in_memory_ttl=1))
    server = SimpleNamespace(proxy_logging_obj=SimpleNamespace(internal_usage_cache=cache))
    monkeypatch.setattr(litellm_internals, "proxy_module", lambda: server)
    limiter = PROXY_HOOKS["parallel_request_limiter"](cache)
    litellm_internals.make_room_for_counters(300)
    assert [await admitted(limiter, 300) for _ in range(3)] == [300, 0, 0]
    litellm_internals.make_room_for_counters(3)
    assert await admitted(limiter, 300) == 0


@pytest.mark.parametrize("place", ["body", "override"])
@pytest.mark.parametrize("inside", [False, True])
def test_litellm_checks_no_more_fallbacks_than_we_let_it(place: str, inside: bool) -> None:
    from litellm.proxy.auth import auth_utils

    litellm_internals.bound_fallbacks(routing.has_too_many_fallbacks, routing.TOO_MANY_FALLBACKS)
    litellm_internals.bound_fallbacks(routing.has_too_many_fallbacks, routing.TOO_MANY_FALLBACKS)
    few: list[Any] = ["gpt"] * routing.MAX_FALLBACKS
    many: list[Any] = [{"model": "gpt", "fallbacks": ["a"] * 50_000}] if inside else [{"model": "gpt"}] * 50_000

    def safe(fallbacks: list[Any]) -> bool:
        body = {"fallbacks": fallbacks}
        sent = body if place == "body" else {"router_settings_override": body}
        return auth_utils.is_request_body_safe(sent, {}, None, "gpt")

    assert safe(few)
    with pytest.raises(ProxyException) as refused:
        safe(many)
    assert str(refused.value.code) == "400"


async def test_the_tokens_of_a_long_stream_that_a_client_left_are_counted_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were counted in the event loop: two million characters stalled it for half a second on a busy machine."""
    from litellm.litellm_core_utils import streaming_chunk_builder_utils
    from litellm.proxy import common_request_processing as processing

    builder: Any = streaming_chunk_builder_utils
    counted: list[bool] = []
    billed: list[Any] = []
    count_tokens = builder.token_counter

    def count(*arguments: Any, **keywords: Any) -> object:
        counted.append(threading.current_thread() is threading.main_thread())
        return count_tokens(*arguments, **keywords)

    async def dispatch(_logging: object, response: Any) -> bool:
        billed.append(response)
        return True

    monkeypatch.setattr(builder, "token_counter", count)
    monkeypatch.setattr(processing, "_dispatch_disconnect_billing_event", dispatch)
    bill_now: Any = processing._bill_partial_streamed_spend_on_disconnect
    original = getattr(bill_now, "__wrapped__", bill_now)  # another test may have had a guardrail made
    monkeypatch.setattr(processing, "_bill_partial_streamed_spend_on_disconnect", original)
    litellm_internals.count_tokens_off_loop()
    litellm_internals.count_tokens_off_loop()
    logging = Logging("m", [], True, "completion", datetime.now(UTC), "call-1", "1")
    for size in (2, 40_000):
        chunks = [chunk("tide "), *(chunk("The boats rise. ") for _ in range(size // 16)), chunk("The tide " * size)]
        stream = SimpleNamespace(chunks=chunks, messages=[{"role": "user", "content": "When?"}], model="m")
        ways = []
        for bill in (original, processing._bill_partial_streamed_spend_on_disconnect):
            counted.clear()
            assert await bill({"litellm_logging_obj": logging}, stream)
            ways.append((billed[-1].choices[0].message.content, billed[-1].usage.total_tokens, any(counted)))
        assert ways[0][:2] == ways[1][:2]
        assert [in_loop for *_, in_loop in ways] == [True, size == 2]


def test_own_endpoints_are_among_those_that_litellms_keys_may_call() -> None:
    groups = (LiteLLMRoutes.openai_routes, LiteLLMRoutes.llm_api_routes)
    before = [list(group.value) for group in groups]
    try:
        for group in groups:  # another test of this process may have admitted them
            group.value[:] = [path for path in group.value if path not in ANSWERS]
        sizes = [len(group.value) for group in groups]
        assert not RouteChecks.is_llm_api_route("/v1/align")
        litellm_internals.admit_paths(ANSWERS)
        litellm_internals.admit_paths(ANSWERS)
        assert all(RouteChecks.is_llm_api_route(path) for path in ANSWERS)
        assert [len(group.value) for group in groups] == [size + len(ANSWERS) for size in sizes]
    finally:
        for group, routes in zip(groups, before, strict=True):
            group.value[:] = routes


async def test_an_answer_that_a_client_brings_is_a_request_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = InternalUsageCache(DualCache())
    limiter = PROXY_HOOKS["parallel_request_limiter"](internal_usage_cache=cache)
    server = SimpleNamespace(proxy_logging_obj=SimpleNamespace(get_proxy_hook=lambda _: limiter))
    monkeypatch.setattr(litellm_internals, "proxy_module", lambda: server)
    caller = UserAPIKeyAuth(api_key="a" * 64, max_parallel_requests=1)
    for _ in range(2):
        async with litellm_internals.count_request(caller, {"model": "gpt"}):
            with pytest.raises(ProxyException) as caught:
                async with litellm_internals.count_request(caller, {}):
                    raise AssertionError
            assert (caught.value.code, int(caught.value.headers["retry-after"]) > 0) == ("429", True)


async def test_what_was_set_aside_of_a_budget_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from litellm.proxy.spend_tracking import budget_reservation

    released: list[object] = []

    async def release(reservation: object) -> None:
        released.append(reservation)

    monkeypatch.setattr(budget_reservation, "release_budget_reservation", release)
    server = SimpleNamespace(proxy_logging_obj=SimpleNamespace(get_proxy_hook=lambda _: None))
    monkeypatch.setattr(litellm_internals, "proxy_module", lambda: server)
    caller = UserAPIKeyAuth(api_key="a" * 64)
    caller.budget_reservation = {"entries": []}
    with pytest.raises(KeyError):
        async with litellm_internals.count_request(caller, {}):
            raise KeyError
    assert released == [{"entries": []}]


@pytest.mark.parametrize("server", [SimpleNamespace(), SimpleNamespace(llm_router=None)])
def test_without_a_router_no_model_is_configured(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_internals, "proxy_module", lambda: server)
    assert litellm_internals.model_names() == frozenset()
