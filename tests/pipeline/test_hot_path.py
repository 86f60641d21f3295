"""How much of the gateway one completion goes through: frames to the engine's socket, modules, calls if left alone."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
import uvicorn

import aligner_proxy
from aligner_proxy.engine.server import app
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.types import Correction, SegmentScore
from tests.gateway.test_guardrail import POLICIES, answer, build, data, user
from tests.support.scripted import ScriptedEngine

PACKAGE = Path(aligner_proxy.__file__).parent
MAX_FRAMES = 12
MAX_MODULES = 30
MAX_CALLS = 160
"""Most calls of functions of ours for an answer that the policy leaves alone."""
_NUMBERS = itertools.count()
RUDE = " You fool."
REPLY = "Boil the rice for 12 minutes, then let it rest.{rude} Serve it with a little butter."


def polite(request: Any) -> Correction:
    """Removes the rude sentence, with the scores of a detector head."""
    text = request.answer.replace(RUDE, "")
    first = "Boil the rice for 12 minutes, then let it rest."
    rude = RUDE.strip()
    last = text.rpartition(". ")[2]
    scores = [SegmentScore(first, -3.0, False), SegmentScore(rude, 4.0, True, 0), SegmentScore(last, -3.0, False)]
    return Correction(text, tuple(scores), aligner="scripted")


@pytest.fixture
def engine_address(tmp_path: Path) -> Iterator[str]:
    """An engine of ours behind a socket, in a thread with an event loop of its own."""
    socket = tmp_path / "engine.sock"
    config = uvicorn.Config(app.create_app(ScriptedEngine(polite)), uds=str(socket), log_config=None, lifespan="off")
    uvicorn_server = uvicorn.Server(config)
    thread = threading.Thread(target=uvicorn_server.run)
    thread.start()
    while not uvicorn_server.started:
        threading.Event().wait(0.01)
    yield f"unix:{socket}"
    uvicorn_server.should_exit = True
    thread.join()


def _ours(filename: str) -> bool:
    return filename.startswith(str(PACKAGE))


def _name(filename: str, function: str) -> str:
    return f"{Path(filename).relative_to(PACKAGE)}:{function}"


def frames_of_ours(background: set[asyncio.Task[Any]]) -> list[str]:
    """Functions of ours that wait for what happens now: the stack, and the await chains of the request's tasks."""
    found = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if _ours(frame.f_code.co_filename):
            found.append(_name(frame.f_code.co_filename, frame.f_code.co_qualname))
        frame = frame.f_back
    for task in asyncio.all_tasks() - {asyncio.current_task()} - background:
        awaited: Any = task.get_coro()
        chain = []
        while awaited is not None:
            code = getattr(awaited, "cr_code", None) or getattr(awaited, "ag_code", None)
            if code is not None and _ours(code.co_filename):
                chain.append(_name(code.co_filename, code.co_qualname))
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
        found += reversed(chain)
    return found


def show(title: str, names: Sequence[str]) -> None:
    sys.stdout.write("\n  ".join([f"\n{title}:", *names]) + "\n")


class _Modules:
    """Collects the modules of ours whose functions are called in this thread."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, frame: FrameType, event: str, _arg: object) -> None:
        filename = frame.f_code.co_filename
        # The body of a module or class runs when it is imported, which no request pays for.
        # Garbage is collected by a task of its own, under Python 3.11 alone and for no request.
        if filename.endswith("gc_workaround.py"):
            return
        if event == "call" and frame.f_code.co_flags & 0x1 and _ours(filename):
            self.names.add(str(Path(filename).relative_to(PACKAGE)))


class _Calls:
    """Counts the calls of functions of ours in this thread."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and _ours(frame.f_code.co_filename):
            self.count += 1


async def complete(guard: AlignerGuardrail) -> Any:
    """One completion through the hooks, as LiteLLM calls them; no two answers are the same."""
    number = next(_NUMBERS)
    request = data() | {"litellm_call_id": f"call-{number}"}
    await guard.async_pre_call_hook(user(), None, request, "acompletion")
    response = answer(REPLY.format(rude=RUDE) + f" That is answer {number}.")
    corrected = await guard.async_post_call_success_hook(request, user(), response)
    headers = await guard.async_post_call_response_headers_hook(request, user(), corrected)
    assert headers is not None
    assert headers["x-aligner-status"] == "corrected"
    assert RUDE not in corrected.choices[0].message.content
    return corrected


@pytest.fixture
async def guard(
    engine_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[AlignerGuardrail]:
    """The guardrail with its own pipeline, cache, circuit breaker and client, connected to that engine."""
    caplog.set_level(logging.WARNING, logger="aligner_proxy")
    build(tmp_path, monkeypatch, POLICIES | {"aligner": {"engine": engine_address}})
    made = AlignerGuardrail(guardrail_name="aligner", default_on=True, event_hook="post_call")
    yield made
    await made.pipeline.engine.aclose()
    assert made.pipeline.cache is not None
    await made.pipeline.cache.aclose()


async def test_frames_from_the_hook_to_the_socket(
    guard: AlignerGuardrail, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await complete(guard)
    background = asyncio.all_tasks() - {asyncio.current_task()}
    stacks: list[list[str]] = []
    send = httpx.AsyncHTTPTransport.handle_async_request

    async def watched(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/corrections"):
            stacks.append(frames_of_ours(background))
        return await send(transport, request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", watched)
    await complete(guard)
    (stack,) = stacks
    with capsys.disabled():
        show(f"{len(stack)} frames of ours from the hook to the engine's socket (innermost first)", stack)
    assert len(stack) <= MAX_FRAMES


async def test_modules_that_run_for_one_completion(guard: AlignerGuardrail, capsys: pytest.CaptureFixture[str]) -> None:
    await complete(guard)
    modules = _Modules()
    sys.setprofile(modules)
    try:
        await complete(guard)
    finally:
        sys.setprofile(None)
    modules.names.discard("observability/stalls.py")  # the watchdog's beat, which belongs to no request
    with capsys.disabled():
        show(f"{len(modules.names)} modules of ours run for one completion", sorted(modules.names))
    assert len(modules.names) <= MAX_MODULES


async def test_calls_for_an_answer_that_is_left_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "aligner_proxy.outcome")  # whoever has switched its lines on
    guard = build(tmp_path, monkeypatch, {"defaults": {"mode": "off"}})
    calls = _Calls()
    for number in range(2):  # the first request fills the caches
        request = data() | {"litellm_call_id": f"call-{number}"}
        calls.count = 0
        sys.setprofile(calls)
        try:
            await guard.async_pre_call_hook(user(), None, request, "acompletion")
            unchanged = await guard.async_post_call_success_hook(request, user(), answer("Let the rice rest."))
            headers = await guard.async_post_call_response_headers_hook(request, user(), None)
        finally:
            sys.setprofile(None)
    assert unchanged is None
    assert headers is not None
    assert headers["x-aligner-reason"] == "mode_off"
    with capsys.disabled():
        show("calls of ours for an answer that is left alone", [str(calls.count)])
    assert calls.count <= MAX_CALLS
