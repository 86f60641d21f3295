"""`python -m bench.console_load`: what the console's open pages cost the gateway, and its speed with 100,000 answers.

With a scripted engine and 20 answers per second (open loop), rounds with 50 open live pages alternate with rounds
without. Adjacent rounds are compared, since a shared machine can be slower for minutes. The console runs in both, as
`serve --console` starts it. Another process with the lowest priority reads the pages, since real browsers run on other
machines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from aligner_proxy.audit.entry import AuditEvent, make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Correction, Exchange, Objective, Outcome, Policy, SegmentScore, Status, Turn
from bench import gateway
from bench.gateway import MeasuringClient
from bench.latency import GUARDRAIL
from bench.load_generator import draw_times, drive
from demo.processes import free_port, run_process, wait_for

PAGES = 50
RATE = 20.0
WAITING = 100_000
_TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')


async def _log_in(address: str, key: str) -> httpx.AsyncClient:
    """Log in as the operator and return the client."""
    limits = httpx.Limits(max_connections=None)
    client = httpx.AsyncClient(base_url=address, timeout=60, trust_env=False, limits=limits)
    match = _TOKEN.search((await client.get("/login")).text)
    assert match is not None
    got = await client.post("/login", data={"token": match[1], "key": key})
    assert got.headers["location"] == "/live"
    return client


class Pages:
    """Open live pages, held by another process."""

    def __init__(self, address: str, client: httpx.AsyncClient) -> None:
        self._command = [sys.executable, "-m", "bench.open_pages", address, str(PAGES)]
        self._cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        self.events = 0
        self._process: asyncio.subprocess.Process | None = None

    async def open(self) -> None:
        """Open all pages."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._cookie}\n".encode())
        first_line = await self._process.stdout.readline()
        assert first_line == b"open\n", first_line
        await asyncio.sleep(2.0)

    async def close(self) -> None:
        """Close the pages and add the events that they read."""
        assert self._process is not None
        output, _ = await self._process.communicate(b"")
        self.events += int(output)
        await asyncio.sleep(1.0)


async def _run_round(client: MeasuringClient, seconds: float, seed: int) -> tuple[float, int]:
    """Run one round; return the median wait in milliseconds and how many answers got a verdict."""
    due = draw_times(RATE, seconds, seed)
    arrivals = await drive(lambda number: client.ask(f"bad number {seed} {number}"), due)
    done = [one for one in arrivals if one.result.done]
    return 1000 * statistics.median(one.waited for one in done), len(done)


async def _run_pairs(running: gateway.RunningGateway, console: str, pairs: int, seconds: float) -> dict[str, Any]:
    """Run pairs of rounds with and without open pages, in alternating order, and compare them."""
    browser = await _log_in(console, running.key)
    client = MeasuringClient(running)
    pages = Pages(console, browser)
    await _run_round(client, 6.0, 0)
    medians: dict[bool, list[float]] = {True: [], False: []}
    answers = {True: 0, False: 0}
    new_entries = {True: 0.0, False: 0.0}
    computed: dict[bool, list[float]] = {True: [], False: []}
    audit = running.folder / "audit.db"
    for number in range(pairs):
        for is_open in (True, False) if number % 2 else (False, True):
            if is_open:
                await pages.open()
            before = _count_entries(audit)
            cpu_s = _console_cpu_s(running.serve.pid)
            p50, done = await _run_round(client, seconds, 1000 + 2 * number + is_open)
            await asyncio.sleep(1.0)
            computed[is_open].append((_console_cpu_s(running.serve.pid) - cpu_s) / (seconds + 1.0))
            new_entries[is_open] += _count_entries(audit) - before
            if is_open:
                await pages.close()
            medians[is_open].append(p50)
            answers[is_open] += done
    await client.http.aclose()
    await browser.aclose()
    ratios = sorted(open_p50 / closed_p50 for open_p50, closed_p50 in zip(medians[True], medians[False], strict=True))
    return {
        "pages": PAGES,
        "answers_a_second": RATE,
        "p50_ms_open": [round(value, 1) for value in medians[True]],
        "p50_ms_closed": [round(value, 1) for value in medians[False]],
        "ratios": [round(value, 3) for value in ratios],
        "ratio_median": round(statistics.median(ratios), 3),
        "console_cpu_percent": [round(100 * statistics.median(computed[key]), 1) for key in (False, True)],
        "answers": [answers[False], answers[True]],
        "entries_an_answer": [round(new_entries[key] / answers[key], 3) for key in (False, True)],
        "events_read": pages.events,
    }


def _console_cpu_s(serve: int) -> float:
    """CPU seconds used so far by the console of this `serve` process."""
    consoles = [one for one in psutil.Process(serve).children(recursive=True) if "console" in one.cmdline()]
    return sum(sum(one.cpu_times()[:2]) for one in consoles)


def _count_entries(audit: Path) -> int:
    """Number of audit entries."""
    if not audit.exists():
        return 0
    with contextlib.closing(AuditStore(audit)) as store:
        return int(store.fetch_rows("SELECT count(*) FROM entries")[0][0])


@contextlib.contextmanager
def _serve_gateway(folder: Path) -> Iterator[tuple[gateway.RunningGateway, str]]:
    """A gateway with a scripted engine and an audit store, and the address of its console."""
    socket = folder / "engine.sock"
    policies = {
        "aligner": {"engine": f"unix:{socket}"},
        "cache": {"enabled": False},
        "routes": [{"match": {"model": "*"}, "objectives": ["harmless"]}],
        "audit": {"enabled": True, "file": "audit.db"},
    }
    port = free_port()
    with run_process(["bench.fakes", "engine", str(socket)], folder / "engine.log", dict(os.environ)):
        options = ["--console", "--console-port", str(port)]
        with gateway.run_gateway(folder, workers=1, policies=policies, options=options) as running:
            wait_for(f"http://127.0.0.1:{port}/login", running.serve, running.log, lambda _: None)
            yield running, f"http://127.0.0.1:{port}"


def time_queue(folder: Path, count: int = WAITING) -> dict[str, Any]:
    """Time the review page of a store with `count` answers five times, and other pages once."""
    audit = folder / "audit.db"
    _fill(audit, count)
    litellm = folder / "litellm.yaml"
    key = "sk-bench-9Qm2Vx7LtB4wZkR8"
    settings = {"guardrails": [GUARDRAIL], "general_settings": {"master_key": key}, "model_list": []}
    litellm.write_text(json.dumps(settings))
    (folder / "policies.yaml").write_text(json.dumps({"routes": [], "audit": {"enabled": True, "file": str(audit)}}))
    port = free_port()
    command = ["aligner_proxy", "console", "--config", str(litellm), "--port", str(port)]
    with run_process(command, folder / "console.log", dict(os.environ)) as child:
        wait_for(f"http://127.0.0.1:{port}/login", child, folder / "console.log", lambda _: None)
        return asyncio.run(_time_pages(f"http://127.0.0.1:{port}", key, count))


async def _time_pages(address: str, key: str, count: int) -> dict[str, Any]:
    """Time the pages of a console that has just started."""
    browser = await _log_in(address, key)
    took: dict[str, list[float]] = {}
    for path in ("/review", "/review", "/review", "/review", "/review", "/review/figures", "/live", "/rates"):
        began = time.perf_counter()
        got = await browser.get(path)
        took.setdefault(path, []).append(round(time.perf_counter() - began, 3))
        assert got.status_code == httpx.codes.OK, got.text[:500]
        assert path != "/review" or "under-review" in got.text
    await browser.aclose()
    return {"waiting": count, "seconds": took}


def _fill(audit: Path, count: int) -> None:
    """Fill a store with `count` judged answers of the last day."""
    now = time.time()
    policy = Policy("all", (Objective("kind", "Kindness: be kind"),), tenant="team:acme")
    store = AuditStore(audit)
    with contextlib.closing(store):
        for number in range(count):
            score = (number * 7919 % 10_000) / 1000 - 7
            scores = (SegmentScore("It is so.", -5.0, False), SegmentScore("So it is.", score, score > 0, 0))
            exchange = Exchange(f"call-{number}", 0, (Turn("user", "Is it so?"),), f"It is so. So it is, {number}.")
            edited = "It is so." if score > 0 else exchange.answer
            status = Status.CORRECTED if score > 0 else Status.UNCHANGED
            correction = Correction(edited or "", scores, aligner="f00d")
            outcome = Outcome(status, None, edited, policy, 0, False, correction, 15.0, edited=edited)
            facts = RequestFacts("gpt", (), "acme", "acme")
            entry = make_entry(AuditEvent(now - number * 0.8, "/v1/chat/completions", facts, exchange, outcome))
            store.add(replace(entry, aligner_id=f"{number * 2654435761 % 2**32:032x}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=12.0, help="of one round")
    parser.add_argument("--waiting", type=int, default=WAITING, help="answers in the queue; 0: no queue")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {}
    if options.waiting:
        with tempfile.TemporaryDirectory() as folder:
            report["queue"] = time_queue(Path(folder), options.waiting)
        print(json.dumps(report), flush=True)
    if not options.pairs:
        return 0
    with tempfile.TemporaryDirectory() as folder, _serve_gateway(Path(folder)) as (running, console):
        report["pages"] = asyncio.run(_run_pairs(running, console, options.pairs, options.seconds))
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
