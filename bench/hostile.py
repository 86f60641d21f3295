"""`python -m bench.hostile ADDRESS`: hostile clients that send a gateway its most expensive requests.

Some clients read long streams to their end, one after the other. In addition one client for each attack repeats it:
long questions, lines without a break, thousands of fallbacks, deep JSON, disguised text, answers of two million
characters, clients that stop reading and clients that disconnect. The scripted upstream (`bench.upstream`) writes the
answers. The program prints what the clients got.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.texts import LONG, repeat_text

KEY = "ALIGNER_BENCH_KEY"
"""Environment variable with the clients' key."""
HELD = "up"
RELEASED = "released"
_HUGE = 2_000_000
_PAUSE_S = 0.2
"""Pause between two attacks of one client; an attack has to cost the gateway more than its client."""
_STOPPED_S = 3.0
_LEFT_S = 2.0
_TIMEOUT_S = 600.0
_FIRST_S = 60.0
"""Longest wait for the first event of a stream without other requests."""
_DONE = b"data: [DONE]"
_PAGES = "\n\n".join(answer for _, answer in LONG)
"""Ordinary text, which is repeated in long questions."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of request; `reads` says how its client reads a stream."""

    name: str
    question: str
    model: str = HELD
    stream: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)
    filler: int = 0
    """Characters of filler text before the question."""
    reads: str = "all"
    """`all`, `first` (leaves after the first event), `slow` (pauses while reading), `leaves` (disconnects after a
    while)."""

    def body(self, number: int) -> dict[str, Any]:
        """The request's body; the number makes every answer different."""
        messages = [{"role": "user", "content": f"{self.question} {self.name} {number}"}]
        if self.filler:
            messages.insert(0, {"role": "user", "content": repeat_text(_PAGES, self.filler)})
        return {"model": self.model, "messages": messages, "stream": self.stream, **self.more}


ATTACKS = (
    Attack("question", "bad", filler=500_000),
    Attack("line", "line 23000", RELEASED),
    Attack("unbroken", "unbroken 23000", RELEASED),
    Attack("fallbacks", "good", stream=False, more={"fallbacks": ["other"] * 50_000}),
    Attack("deep", "deep 190000", stream=False),
    Attack("deep_stream", "deep 190000", RELEASED),
    Attack("disguised", "disguised 20000", stream=False),
    Attack("disguised_stream", "disguised 100000", RELEASED),
    Attack("huge", f"long {_HUGE}", stream=False),
    Attack("huge_first", f"long {_HUGE}", reads="first"),
    Attack("huge_slow", f"insulting {_HUGE}", reads="slow"),
    Attack("huge_leaves", f"insulting {_HUGE}", RELEASED, reads="leaves"),
)


@dataclass(slots=True)
class ClientResults:
    """What the clients of one kind got."""

    first: list[float] = field(default_factory=list)
    """Seconds to the first event of each stream, or to a whole answer."""
    statuses: Counter[str] = field(default_factory=Counter)

    def summarise(self) -> dict[str, Any]:
        """The results as figures."""
        figures: dict[str, Any] = {"statuses": dict(self.statuses)}
        if self.first:
            figures |= {
                "first_p50": round(statistics.median(self.first), 3),
                "first_longest": round(max(self.first), 3),
            }
        return figures


class Crowd:
    """Clients of one gateway."""

    def __init__(self, address: str, key: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self.http = httpx.AsyncClient(
            base_url=address, headers=headers, timeout=_TIMEOUT_S, trust_env=False, limits=limits
        )
        self.results: dict[str, ClientResults] = {}
        self._numbers = itertools.count()

    async def ask(self, attack: Attack) -> None:
        """Send one request and record its result."""
        results = self.results.setdefault(attack.name, ClientResults())
        try:
            if attack.stream:
                status = await self._ask_stream(attack, results)
            else:
                status = await self._ask_whole(attack, results)
        except httpx.HTTPError as error:
            status = type(error).__name__
        results.statuses[status] += 1

    async def _ask_whole(self, attack: Attack, results: ClientResults) -> str:
        began = time.perf_counter()
        got = await self.http.post("/v1/chat/completions", json=attack.body(next(self._numbers)))
        results.first.append(time.perf_counter() - began)
        return f"{got.status_code} {got.headers.get('x-aligner-status', '')}".rstrip()

    async def _ask_stream(self, attack: Attack, results: ClientResults) -> str:
        """Send a streamed request and read it as the attack says; return how it ended."""
        began = time.perf_counter()
        first = None
        end = b""
        body = attack.body(next(self._numbers))
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                return str(response.status_code)
            async for piece in response.aiter_raw():
                end = (end + piece)[-256:]
                if first is None and b"data:" in piece:
                    first = time.perf_counter() - began
                    results.first.append(first)
                if await self._leaves(attack, first, time.perf_counter() - began):
                    return "left"
        return _describe_end(end)

    async def _leaves(self, attack: Attack, first: float | None, seconds: float) -> bool:
        """Whether the client leaves now; a slow client pauses here first."""
        if attack.reads == "slow" and first is not None:
            await asyncio.sleep(_STOPPED_S)
        enough = first is not None and attack.reads == "first"
        return enough or (attack.reads in ("leaves", "slow") and seconds > _LEFT_S)

    async def repeat_attacks(self, attacks: Iterator[Attack], pause_s: float = _PAUSE_S) -> None:
        """Send attacks one after the other until cancelled."""
        for attack in attacks:
            await self.ask(attack)
            await asyncio.sleep(pause_s)

    async def run(self, streams: int, chars: int, seconds: float) -> dict[str, Any]:
        """Run `streams` long streams and every attack at once for `seconds`; then all clients disconnect."""
        long = [Attack("stream", f"{('long', 'insulting')[n % 2]} {chars}") for n in range(streams)]
        work = [self.repeat_attacks(itertools.repeat(attack), 0.0) for attack in long]
        work += [self.repeat_attacks(itertools.repeat(attack)) for attack in ATTACKS]
        await self._run_for(work, seconds)
        return self.summarise()

    async def run_mixed(self, clients: int, seconds: float, attacks: tuple[Attack, ...]) -> dict[str, Any]:
        """Run `clients` clients that draw their attacks at random, for `seconds`."""
        await self._run_for([self.repeat_attacks(_draw_attacks(attacks, n)) for n in range(clients)], seconds)
        return self.summarise()

    async def _run_for(self, work: list[Any], seconds: float) -> None:
        tasks = [asyncio.create_task(one) for one in work]
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        broken = [r for r in results if isinstance(r, Exception)]
        if broken:
            raise broken[0]

    def summarise(self) -> dict[str, Any]:
        """The results of all clients, by kind."""
        return {name: results.summarise() for name, results in sorted(self.results.items())}


def _draw_attacks(attacks: tuple[Attack, ...], seed: int) -> Iterator[Attack]:
    draw = random.Random(seed)
    while True:
        yield draw.choice(attacks)


def _describe_end(end: bytes) -> str:
    """How a stream ended: whole, with the status from its comment if there is one, or broken off."""
    lines = end.decode(errors="replace").splitlines()
    comment = next((line for line in reversed(lines) if line.startswith(": aligner status=")), "")
    whole = any(line.startswith(_DONE.decode()) for line in lines)
    return f"{'whole' if whole else 'broken off'} {comment.removeprefix(': aligner status=')}".rstrip()


async def time_first_event(address: str, key: str) -> float:
    """Seconds to the first event of a held stream of two million characters, without other requests."""
    crowd = Crowd(address, key)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_S):
            await crowd.ask(Attack("alone", f"long {_HUGE}", reads="first"))
    await crowd.http.aclose()
    return next(iter(crowd.results["alone"].first), _FIRST_S)


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    key = os.environ[KEY]
    alone = await time_first_event(options.address, key)
    print(json.dumps({"first_event_alone": round(alone, 3)}), flush=True)
    crowd = Crowd(options.address, key)
    try:
        return await crowd.run(options.streams, options.chars, options.seconds)
    finally:
        await crowd.http.aclose()


def main() -> int:
    """Print two lines of JSON: the time to the first event of a huge stream alone, and all results."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--chars", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(_run(options))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
