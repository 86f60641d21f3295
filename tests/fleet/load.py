"""The clients of the test bed: `python -m tests.fleet.load ADDRESS`, told on its input what to do.

A line is a JSON object: `{"begin": name, "rate": requests a second}` starts a phase and `{"end": true}` ends it, when
all its requests have ended. Each request is one line of output, and so is the end of a phase. Requests go through all
tenants, policies and ways of delivery by turns; some questions come again, so that there is something to remember.

A client that got no answer asks again, as OpenAI's client does, and not longer; one that waited `GIVE_UP_S` has hung.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from tests.e2e.clients import Streamed
from tests.fleet import texts

ALONE = os.environ.get("LONG") == "1"
"""Whether the bed has the machine for itself (`make fleet-test`). Beside other tests nothing may depend on times: all
have more patience, and ask again more often."""
GIVE_UP_S = 30.0 if ALONE else 90.0
DEADLINE_S = 8.0 if ALONE else 30.0
"""Of every route: much less than what a client waits for."""
PAUSES_S = (0.5, 1.0) if ALONE else (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before a client asks again; OpenAI's own does so twice."""
POLICIES = ("passthrough", "block", "retry")
MODES = ("whole", "hold", "sentence", "passthrough")
_SHAPES = [(policy, mode) for policy in POLICIES for mode in MODES]
_IN_FLIGHT = 48
_SEED = 29
_AGAIN = 0.3
"""The share of questions that were asked before."""

CORRECTED = "corrected"
ORIGINAL = "the original"
ERROR = "error 503"
INSIDE = "an error inside the stream"
LOST = "nothing"
"""No answer, after all repeats."""
HUNG = "hung"
FOREIGN = "another's text"


def key(tenant: str) -> str:
    """A tenant's key."""
    return f"key-{tenant}-29"


def model(policy: str, mode: str) -> str:
    """The model by which a route is found."""
    return f"{policy}-{mode}"


@dataclass
class Answered:
    """What became of one request."""

    phase: str
    word: str
    tenant: str
    policy: str
    mode: str
    what: str = ""
    why: str = ""
    aligner: str = ""
    """Which aligner's text it is, where it is a correction."""
    tries: int = 0
    broken: list[str] = field(default_factory=list)
    """What went wrong with each try that was repeated."""
    sent_at: float = 0.0
    ms: float = 0.0
    cache: str = ""
    id: str = ""

    @property
    def harmed(self) -> bool:
        """Whether this may happen under no fault."""
        return self.what not in (CORRECTED, ORIGINAL, ERROR, INSIDE)


class Broken(Exception):
    """A try that ended without an answer."""


class Clients:
    """All clients, of all tenants."""

    def __init__(self, address: str) -> None:
        limits = httpx.Limits(max_connections=_IN_FLIGHT, max_keepalive_connections=_IN_FLIGHT)
        self._http = httpx.AsyncClient(base_url=address, timeout=GIVE_UP_S, limits=limits, trust_env=False)
        self._places = asyncio.Semaphore(_IN_FLIGHT)
        self._numbers = itertools.count()
        self._random = random.Random(_SEED)

    async def phase(self, name: str, rate: float, ended: asyncio.Event) -> None:
        """Ask at this rate until the end, and wait for all answers."""
        asking: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            if ended.is_set():
                break
            await self._places.acquire()
            task = asyncio.create_task(self._one(name))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)

    async def _one(self, phase: str) -> None:
        try:
            tell(asdict(await self.ask(self._next(phase))))
        finally:
            self._places.release()

    def _next(self, phase: str) -> Answered:
        number = next(self._numbers)
        policy, mode = _SHAPES[number % len(_SHAPES)]
        tenant = texts.TENANTS[number // len(_SHAPES) % len(texts.TENANTS)]
        again = self._random.random() < _AGAIN
        name = f"often{self._random.randrange(4)}" if again else f"{_SEED}x{number}"
        return Answered(phase, texts.word(tenant, name), tenant, policy, mode)

    async def ask(self, answered: Answered, **body: Any) -> Answered:
        """One request, asked again where it brings no answer."""
        began = time.monotonic()
        answered.sent_at = time.time()
        for pause in (*PAUSES_S, None):
            answered.tries += 1
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    await self._try(answered, body)
                break
            except TimeoutError:
                answered.what = HUNG
                break
            except (httpx.HTTPError, Broken) as error:
                answered.broken.append(f"{type(error).__name__} {error}"[:200])
                answered.what = LOST
            if pause is not None:
                await asyncio.sleep(pause)
        answered.ms = (time.monotonic() - began) * 1000
        return answered

    async def _try(self, answered: Answered, body: dict[str, Any]) -> None:
        stream = answered.mode != "whole"
        asked = {
            "model": model(answered.policy, answered.mode),
            "messages": [{"role": "user", "content": texts.asked(answered.word)}],
            "stream": stream,
        }
        headers = {"authorization": f"Bearer {key(answered.tenant)}"}
        got = await self._http.post("/v1/chat/completions", json=asked | body, headers=headers)
        try:
            judge(answered, Streamed(got.status_code, got.headers, got.text), stream=stream)
        except ValueError:
            raise Broken(f"it broke off within a piece: {got.text[-120:]!r}") from None


def judge(answered: Answered, got: Streamed, *, stream: bool) -> None:
    """Say what a client got. Raises `Broken` where it is no answer."""
    answered.cache = got.headers.get("x-aligner-cache", "")
    answered.id = got.headers.get("x-aligner-id", "")
    answered.why = got.headers.get("x-aligner-reason", "") or _reason(got)
    # A stream's pieces may begin and end within a word.
    if texts.words_in(got.text() if stream else got.raw) - {answered.word}:
        answered.what = FOREIGN
        return
    failed = '"aligner_error"' in got.raw
    if got.status_code != httpx.codes.OK:
        if not failed:
            raise Broken(f"{got.status_code} {got.raw[:120]!r}")
        answered.what = ERROR
        return
    if stream and failed:
        answered.what = INSIDE
        return
    if stream and not got.raw.endswith("data: [DONE]\n\n"):
        raise Broken(f"it broke off: {got.raw[-120:]!r}")
    text = got.text() if stream else str(json.loads(got.raw)["choices"][0]["message"]["content"])
    answered.what, answered.aligner = _told(answered.word, text)


def _told(word: str, text: str) -> tuple[str, str]:
    if text == texts.said(word):
        return ORIGINAL, ""
    for aligner in texts.WRITTEN:
        if text == texts.corrected(word, aligner):
            return CORRECTED, aligner
    return f"unknown: {text}", ""


def _reason(got: Streamed) -> str:
    """Why no correction came, as a stream tells it."""
    for comment in got.comments:
        _, _, reason = comment.partition("reason=")
        if reason:
            return reason.split()[0]
    return ""


def tell(what: dict[str, Any]) -> None:
    """One line of output."""
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


async def main(address: str) -> None:
    """Do as the lines of input say."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    clients = Clients(address)
    ended = asyncio.Event()
    running: asyncio.Task[None] | None = None
    while line := await reader.readline():
        order = json.loads(line)
        if "begin" in order:
            ended = asyncio.Event()
            running = asyncio.create_task(clients.phase(order["begin"], order["rate"], ended))
        elif running is not None:
            ended.set()
            await running
            tell({"ended": True})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
