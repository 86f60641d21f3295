"""What a fleet promises beyond answers: aligners never mix, nothing recorded is lost, two gateways remember as one."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fleet import faults, load, settings, texts, trial
from tests.fleet.bed import ENGINES, GATEWAYS, Fleet, until
from tests.fleet.engine import identity

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]
_NUMBERS = itertools.count()
CHOICES = 20
CLIENTS = 10
"""Clients that each ask once a second for so many choices: 200 entries a second."""


def ask(bed: Fleet, gateway: str, word: str, **body: object) -> httpx.Response:
    """One question to one gateway, past the balancer."""
    tenant = word.partition("-")[0]
    messages = [{"role": "user", "content": texts.asked(word)}]
    return httpx.post(
        f"http://{bed.address(gateway)}:{settings.GATEWAY_PORT}/v1/chat/completions",
        json={"model": load.model("block", "whole"), "messages": messages, **body},
        headers={"authorization": f"Bearer {load.key(tenant)}"},
        timeout=load.GIVE_UP_S,
        trust_env=False,
    )


def test_corrections_of_two_aligners_never_mix(bed: Fleet) -> None:
    """Each entry of the audit store has the text of the aligner that it names, and the last one is in force at once."""
    trial.arrange(bed, faults.ALL[0])
    trial.settle(bed)
    bed.rows("DELETE FROM aligner_audit.entries RETURNING 1")
    other = "second" if bed.aligners[ENGINES[0]] == "first" else "first"
    with bed.load("two aligners", trial.RATE) as answers, faults.rolled_to(other)(bed):
        pass
    assert not [one for one in answers if not trial.best(one)]
    assert {one.aligner for one in answers if one.aligner} == set(texts.WRITTEN)
    named = {identity(name): name for name in texts.WRITTEN}
    said: dict[str, set[str]] = {name: set() for name in texts.WRITTEN}
    for aligner, content in bed.rows("SELECT aligner, content FROM aligner_audit.entries WHERE changed = 1"):
        said[named[aligner]].add("second" if texts.WRITTEN["second"].strip() in bytes(content).decode() else "first")
    assert said == {"first": {"first"}, "second": {"second"}}
    with bed.load("one aligner", trial.RATE) as answers:
        time.sleep(5)
    assert {one.aligner for one in answers if one.aligner} == {other}, "what the other one corrected was remembered"


@pytest.mark.parametrize("dies", GATEWAYS)
def test_nothing_that_was_delivered_is_missing_in_the_record(bed: Fleet, dies: str) -> None:
    """200 entries a second by two gateways, one of which is killed."""
    trial.arrange(bed, next(fault for fault in faults.ALL if fault.audit == settings.REQUIRED))
    trial.settle(bed)
    before = bed.rows("SELECT count(*) FROM aligner_audit.entries")[0][0]
    delivered: list[str] = []
    ended = threading.Event()

    def client(number: int) -> None:
        while not ended.is_set():
            began = time.monotonic()
            gateway = GATEWAYS[next(_NUMBERS) % 2]
            try:
                got = ask(bed, gateway, texts.word("acme", f"rec{next(_NUMBERS)}x{number}"), n=CHOICES)
            except httpx.HTTPError:
                continue
            if got.status_code == httpx.codes.OK:
                delivered.append(got.headers["x-aligner-id"])
            time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [
            pool.submit(bed.hosts["client"].inside, lambda number=number: client(number)) for number in range(CLIENTS)
        ]
        time.sleep(8)
        bed.servers[dies].kill()
        time.sleep(4)
        ended.set()
        for one in asking:
            one.result()
    seconds = time.monotonic() - began
    kept = Counter(name for (name,) in bed.rows("SELECT aligner_id FROM aligner_audit.entries"))
    entries = bed.rows("SELECT count(*) FROM aligner_audit.entries")[0][0] - before
    print(f"{len(delivered)} answers, {entries} entries in {seconds:.0f} s, {entries / seconds:.0f} a second")  # noqa: T201
    assert delivered
    assert {kept[name] for name in delivered} == {CHOICES}
    bed.start_gateway(dies)
    bed.wait_for_gateway(dies)


def test_a_clock_that_is_an_hour_ahead_changes_nothing(bed: Fleet) -> None:
    """Gateways remember for each other as long as ever, and keep the record, though one of them is in the future."""
    trial.arrange(bed, faults.ALL[0])
    trial.settle(bed)
    delivered: set[str] = set()

    def caches(word: str, *gateways: str) -> list[str]:
        got = bed.hosts["client"].inside(lambda: [ask(bed, gateway, word) for gateway in gateways])
        assert {one.headers["x-aligner-status"] for one in got} == {"corrected"}
        delivered.update(one.headers["x-aligner-id"] for one in got)
        return [one.headers["x-aligner-cache"] for one in got]

    ahead, right = GATEWAYS
    assert caches("acme-past", right) == ["miss"]
    with faults.clock_ahead(bed):
        assert faults.clocks_apart(bed) == 60
        assert caches("acme-past", ahead, right) == ["hit", "hit"], "to the one ahead its half hour is over"
        assert caches("acme-right", right, ahead) == ["miss", "hit"]
        assert caches("acme-ahead", ahead, right) == ["miss", "hit"]
    assert caches("acme-ahead", ahead) == ["hit"]
    lives = [bed.redis(bed.primary, "PTTL", name) for name in bed.redis(bed.primary, "KEYS", "*correction:*")]
    assert 0 < max(lives) <= settings.REMEMBERED_S * 1000
    until(lambda: delivered <= {name for (name,) in bed.rows("SELECT aligner_id FROM aligner_audit.entries")}, "lost")


def stream(count: int, name: str) -> list[str]:
    """The words of a stream of questions that come again as questions do."""
    draw = random.Random(7)
    ranks = range(1, count + 1)
    chosen = draw.choices(ranks, weights=[1 / rank for rank in ranks], k=count)
    return [texts.word("cobalt", f"{name}x{rank}") for rank in chosen]


def test_two_gateways_remember_as_one(bed: Fleet) -> None:
    """The share of 2,000 requests for which no engine was asked."""
    trial.arrange(bed, faults.ALL[0])
    trial.settle(bed)
    rates: dict[str, float] = {}
    for name, gateways in {"one": GATEWAYS[:1], "two": GATEWAYS}.items():
        words = stream(2000, name)
        known = faults.asked(bed)

        def work(name: str = name, gateways: tuple[str, ...] = gateways, words: list[str] = words) -> None:
            def one(number: int) -> str:
                got = ask(bed, gateways[number % len(gateways)], words[number])
                return got.headers.get("x-aligner-status", str(got.status_code))

            with ThreadPoolExecutor(8, initializer=bed.hosts["client"].enter) as pool:
                said = Counter(pool.map(one, range(len(words))))
            assert said == {"corrected": len(words)}, (name, said)

        bed.hosts["client"].inside(work)
        rates[name] = 1 - (faults.asked(bed) - known) / len(words)
    print(f"hit rates {rates}")  # noqa: T201
    assert rates["two"] == pytest.approx(rates["one"], abs=0.01)
