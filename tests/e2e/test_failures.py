"""The engine is gone, full or wrong, and the client leaves: what each client gets, through the real proxy."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.e2e.clients import MASTER_KEY, Gateway
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

KIND = "The capital of France is Paris. It lies on the Seine."
RUDE = "The capital of France is Paris. You are an idiot for asking. It lies on the Seine."


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that happens in other processes."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def told(got: httpx.Response) -> tuple[str, str | None]:
    return got.headers["x-aligner-status"], got.headers.get("x-aligner-reason")


def breaker(gateway: Any) -> float:
    """The circuit breaker's state as the operator sees it."""
    found = re.search(r"^aligner_breaker_state(?:\{[^}]*\})? (\S+)$", gateway.http.get("/metrics/").text, re.MULTILINE)
    assert found
    return float(found[1])


def given_up(gateway: Any) -> int:
    """How many choices were given up because their client left."""
    text = gateway.http.get("/metrics/").text
    found = re.findall(r'^aligner_outcomes_total\{[^}]*reason="cancelled"[^}]*\} (\S+)$', text, re.MULTILINE)
    return sum(int(float(value)) for value in found)


@pytest.fixture
def dead(engine: Any, gateway: Any) -> Iterator[None]:
    """An engine that is gone for the length of a test, and a gateway that trusts it again afterwards."""
    engine.kill()
    yield
    if engine.process.child is None:
        engine.start()
    until(lambda: told(gateway.chat("rude and back")) in (("corrected", None),), "the gateway never came back")


def test_the_gap_of_a_restart_is_passed_fast_and_ends_by_itself(
    gateway: Any, plain: Any, engine: Any, dead: None
) -> None:
    got = [gateway.chat(f"rude gap {i}") for i in range(6)]
    # A probe of readiness that finds no engine counts as well, so the breaker may open before the third answer.
    unavailable = [one for one in got if told(one) == ("failed", "engine_unavailable")]
    assert 1 <= len(unavailable) <= 3
    assert [told(one) for one in got[len(unavailable) :]] == [("failed", "breaker_open")] * (6 - len(unavailable))
    assert {one.content for one in got} == {plain.chat("rude gap 0").content}
    assert breaker(gateway) == 2
    stream = gateway.chat_stream("rude gap stream")
    assert stream.comments == [": aligner status=failed reason=breaker_open"]
    assert stream.text() == RUDE
    blocked = gateway.chat("rude gap", model="strict")
    assert (blocked.status_code, blocked.json()["error"]["type"]) == (503, "aligner_error")
    assert "breaker_open" in blocked.json()["error"]["message"]
    asked = len(engine.calls())
    engine.start()
    until(lambda: told(gateway.chat("rude gap over")) == ("corrected", None), "the breaker never closed")
    assert breaker(gateway) == 0
    assert len(engine.calls()) == asked + 2  # the probe, and then the request that sent it


@pytest.mark.full
def test_a_hung_engine_is_found_out_and_found_again(gateway: Any, plain: Any, engine: Any) -> None:
    """SIGSTOP: the kernel still takes connections, and nobody answers on them."""

    def answer() -> Any:
        """One answer; asked for again where LiteLLM broke: it now and then walks a dict that its threads change."""
        got = gateway.chat("rude and hung", model="hasty")
        broke = got.status_code == httpx.codes.INTERNAL_SERVER_ERROR
        return gateway.chat("rude and hung", model="hasty") if broke else got

    pid = engine.process.child.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        got = [answer()]
        while told(got[-1]) == ("failed", "timeout") and len(got) < 30:
            got.append(answer())
    finally:
        os.kill(pid, signal.SIGCONT)
    assert told(got[-1]) == ("failed", "breaker_open"), (got[-1].status_code, got[-1].text[:500])
    assert len(got) > 3
    assert {one.content for one in got} == {plain.chat("rude and hung", model="hasty").content}
    until(lambda: told(gateway.chat("rude and awake")) == ("corrected", None), "the breaker never closed")


@pytest.mark.some(1)
@pytest.mark.parametrize("stream", [False, True])
def test_where_the_policy_says_retry_a_restart_is_waited_for(
    gateway: Any, engine: Any, dead: None, stream: bool
) -> None:
    for i in range(3):
        gateway.chat(f"rude before the wait {i}")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            gateway.chat_stream if stream else gateway.chat, f"rude and patient {stream}", model="patient"
        )
        time.sleep(0.5)
        assert not asked.done()
        engine.start()
        got = asked.result()
    text = got.text() if stream else got.json()["choices"][0]["message"]["content"]
    assert text == KIND


def test_each_class_of_failure_goes_its_own_way(gateway: Any, plain: Any) -> None:
    refused = gateway.chat("gate", model="sorted")
    assert (refused.status_code, refused.headers["x-aligner-reason"]) == (422, "gate_empty")
    broken = gateway.chat("broken", model="sorted")
    assert (told(broken), broken.content) == (("failed", "engine_error"), plain.chat("broken", model="sorted").content)
    late = gateway.chat("slow and late", model="sorted")
    assert (told(late), late.status_code) == (("failed", "timeout"), 503)


@pytest.mark.parametrize("stream", [False, True])
def test_official_clients_do_not_repeat_what_is_refused_for_good(gateway: Any, engine: Any, stream: bool) -> None:
    """They repeat what fails with a 5xx twice by default, and each time the upstream is paid."""
    started = len(engine.calls())
    gateway.chat(f"gate first {stream}", model="sorted", stream=stream)
    calls_of_one = len(engine.calls()) - started
    assert calls_of_one
    message: Any = {"role": "user", "content": f"gate second {stream}"}
    with (
        openai.OpenAI(base_url=f"{gateway.address}/v1", api_key=MASTER_KEY, timeout=60) as client,
        pytest.raises(openai.UnprocessableEntityError, match="gate_empty"),
    ):
        client.chat.completions.create(model="sorted", messages=[message], stream=stream)
    assert len(engine.calls()) - started == 2 * calls_of_one
    message["content"] = f"gate third {stream}"
    with (
        anthropic.Anthropic(base_url=gateway.address, auth_token=MASTER_KEY, timeout=60) as other,
        pytest.raises(anthropic.UnprocessableEntityError, match="gate_empty"),
    ):
        other.messages.create(model="sorted", messages=[message], max_tokens=64, stream=stream)
    assert len(engine.calls()) - started == 3 * calls_of_one


def test_a_full_engine_sheds_the_tenant_that_takes_more_than_its_share(tenants: Any, engine: Any) -> None:
    """The scripted engine has 4 places: `other` takes all of them, `acme` gets its half when it comes."""
    before = len(engine.calls())
    with ThreadPoolExecutor(8) as pool, engine.holding() as let_go:
        greedy = [pool.submit(tenants["other"].chat, f"held and greedy {i}") for i in range(4)]
        until(lambda: len(engine.calls()) == before + 4, "the engine was never full")
        modest = [pool.submit(tenants["acme"].chat, f"held and modest {i}") for i in range(2)]
        until(lambda: len(engine.calls()) == before + 6, "nobody made room")
        late = tenants["other"].chat("held and late to the party")
        let_go()
    assert told(late) == ("failed", "shed")
    assert Counter(told(one.result()) for one in greedy) == {("corrected", None): 2, ("failed", "shed"): 2}
    assert [told(one.result()) for one in modest] == [("corrected", None)] * 2


def test_beyond_its_quota_a_tenants_answers_pass_or_are_blocked(tenants: Any, plain: Any, engine: Any) -> None:
    """`metered` may use no engine time at all, and has enforced objectives: what is not judged follows `on_error`."""
    before = len(engine.calls())
    got = tenants["metered"].chat("rude and metered")
    assert (got.status_code, told(got)) == (200, ("skipped", "quota"))
    assert got.content == plain.chat("rude and metered").content
    stream = tenants["metered"].chat_stream("rude and metered")
    assert stream.comments == [": aligner status=skipped reason=quota"]
    blocked = tenants["metered"].chat("rude and metered", model="strict")
    assert (blocked.status_code, told(blocked)) == (422, ("failed", "quota"))
    assert len(engine.calls()) == before
    assert told(tenants["other"].chat("rude and metered")) == ("corrected", None)


def test_a_denied_objective_is_a_403_before_anything_is_spent(tenants: Any, upstream: str) -> None:
    before = len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json())
    for wish in ("harmless", "concise"):
        got = tenants["metered"].chat("good", headers={"x-aligner-objectives": wish})
        assert (got.status_code, got.json()["error"]["type"]) == (403, "permission_error")
        assert "denied" in got.json()["error"]["message"]
    assert len(httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()) == before
    assert tenants["metered"].chat("good").headers["x-aligner-objectives"] == "harmless,kind"


LEAVES = """
import http.client, json, sys
host, port, key, body = sys.argv[1:]
there = http.client.HTTPConnection(host, int(port))
headers = {"authorization": "Bearer " + key, "content-type": "application/json"}
there.request("POST", "/v1/chat/completions", body, headers)
there.getresponse().read()
"""


@pytest.mark.some(1)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["patient", "pinged"])
def test_a_client_that_leaves_takes_its_work_along(gateway: Any, engine: Any, stream: bool, model: str) -> None:
    """The client is a process that is killed: its connection ends as connections end."""
    asked = len(engine.calls())
    cancelled = len(engine.calls("cancelled"))
    before = given_up(gateway)
    messages = [{"role": "user", "content": f"held and killed {stream} {model}"}]
    body = f'{{"model": "{model}", "stream": {str(stream).lower()}, "messages": {messages!r}}}'.replace("'", '"')
    where = httpx.URL(gateway.address)
    command = [sys.executable, "-c", LEAVES, where.host, str(where.port), MASTER_KEY, body]
    with engine.holding(), subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
        until(lambda: len(engine.calls()) > asked, "the engine was never asked")
        client.kill()
        until(lambda: len(engine.calls("cancelled")) > cancelled, "the engine went on for nobody")
    until(lambda: given_up(gateway) == before + 1, "nobody wrote down that the client left")


def test_a_choice_that_two_clients_wait_for_is_finished_for_the_one_that_stays(tenants: Any, engine: Any) -> None:
    before = len(engine.calls())
    cancelled = len(engine.calls("cancelled"))
    impatient = Gateway(tenants["other"].address, "key-other-1")
    with ThreadPoolExecutor(2) as pool, engine.holding() as let_go:
        staying = pool.submit(tenants["other"].chat, "held and shared")
        until(lambda: len(engine.calls()) == before + 1, "the engine was never asked")
        body = {"model": "gpt", "messages": [{"role": "user", "content": "held and shared"}]}
        with pytest.raises(httpx.ReadTimeout):
            impatient.http.post("/v1/chat/completions", json=body, timeout=2)
        let_go()
        got = staying.result()
    impatient.http.close()
    assert told(got) == ("corrected", None)
    assert (len(engine.calls()), len(engine.calls("cancelled"))) == (before + 1, cancelled)
