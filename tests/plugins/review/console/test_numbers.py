"""Numbers on pages are those of the audit store and of the metrics: 500 mixed answers through the real hooks."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineFault
from aligner_proxy.gateway.guardrail import AlignerGuardrail, Blocked
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.api import Entry
from aligner_proxy.types import Correction, SegmentScore, Status
from aligner_proxy_review.console.answer_queries import route_name
from aligner_proxy_review.evidence import compute_evidence
from aligner_proxy_review.reviews import Reviews
from tests.gateway.test_guardrail import answer, build, data, user
from tests.plugins.review.console.conftest import MASTER, REVIEWER, Browser, Site
from tests.support.background import wait_for_shadows
from tests.support.scripted import SCRIPTED, ScriptedEngine

ANSWERS = 500
GERMAN = "Der Kessel ist auf dem Herd und der Tee wird nicht kalt. Das ist auch gut."
TEXTS = (
    "It is so. You fool.",
    "It is so.",
    "It is so, number {n}. You fool.",
    "It is so, number {n}.",
    "Broken, number {n}.",
    "I'm sorry, but I can't help with that.",
    GERMAN,
)
"""Two that repeat and so come from the cache; an error of the engine; a refusal; another language."""
MODELS = ("gpt", "watched", "strict", "off")
TEAMS = ("acme", "globex", None)
ROUTES = [
    {"match": {"model": "watched"}, "name": "watched", "objectives": ["kind"], "mode": "shadow"},
    {"match": {"model": "strict"}, "name": "strict", "objectives": ["kind"], "on_error": "block"},
    {"match": {"model": "off"}, "name": "off", "mode": "off"},
    {"match": {"model": "*"}, "name": "all", "objectives": ["kind"]},
]
POLICIES = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": ROUTES,
    "tenants": [{"match": {"team": "acme"}, "name": "acme", "allow": ["*"]}],
    "keys": "keys.yaml",
}
COLUMNS = (Status.CORRECTED, Status.UNCHANGED, Status.SHADOW, Status.NOT_JUDGED, Status.FAILED)


def corrected(request: AlignRequest) -> Correction | Exception:
    if request.answer.startswith("Broken"):
        return EngineFault("scripted")
    parts = request.answer.split(" You")
    rude = len(parts) > 1
    scores = (SegmentScore(parts[0], -3.0, False), *((SegmentScore("You fool.", 2.0, True, 0),) if rude else ()))
    return Correction(parts[0], scores)


def outcomes() -> Counter[tuple[str, str]]:
    """What the metrics say so far: choices by route and status."""
    found: Counter[tuple[str, str]] = Counter()
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "aligner_outcomes_total":
                found[sample.labels["policy"].partition("+")[0], sample.labels["status"]] += int(sample.value)
    return found


def hits() -> int:
    return int(REGISTRY.get_sample_value("aligner_cache_total", {"result": "hit"}) or 0)


@dataclass
class Traffic:
    """A console over what 500 answers left behind, and what they added to the metrics."""

    site: Site
    counted: Counter[tuple[str, str]]
    """By route and status."""
    hits: int

    def entries(self) -> list[Entry]:
        with closing(AuditStore(self.site.audit)) as store:
            return list(store.entries())

    def browser(self, key: str) -> Browser:
        """Somebody who has logged in."""
        made = Browser(self.site)
        made.log_in(key)
        return made


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    """The traffic, once for all tests of this file."""
    folder = tmp_path_factory.mktemp("numbers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
        site = Site(folder)
        guard = build(folder, patch, POLICIES | {"audit": {"enabled": True, "file": str(site.audit)}})
        before = outcomes()
        hits_before = hits()
        asyncio.run(driven(guard, folder))
        yield Traffic(site, outcomes() - before, hits() - hits_before)


async def driven(guard: AlignerGuardrail, folder: Path) -> None:
    """All answers, until every entry is written."""
    engine = ScriptedEngine(corrected, about=replace(SCRIPTED, languages=("en",)))
    cache = CorrectionCache(folder / "corrections", 3600.0, 10)
    guard.pipeline = Pipeline(engine, cache, extensions=guard.pipeline.extensions)
    for number in range(ANSWERS):
        await asked(guard, number)
    await wait_for_shadows(guard._shadows)
    await guard._audit_writers.aclose()
    await cache.aclose()


async def asked(guard: AlignerGuardrail, number: int) -> None:
    """One request and its answer; every text meets every model and every team."""
    text = TEXTS[number % len(TEXTS)].format(n=number)
    who = user(team_id=TEAMS[number % len(TEAMS)])
    request = data(MODELS[number % len(MODELS)]) | {"litellm_call_id": f"call-{number}"}
    await guard.async_pre_call_hook(who, None, request, "acompletion")
    try:
        await guard.async_post_call_success_hook(request, who, answer(text))
    except Blocked:
        assert text.startswith("Broken")


def cells(text: str) -> dict[tuple[str, str], list[str]]:
    """The rows of the table of rates, by tenant and route."""
    found = {}
    for row in re.findall(r"<tr>\s*<th scope=\"row\">(.*?)</tr>", text, re.DOTALL):
        parts = re.findall(r">\s*([^<>\s][^<>]*?)\s*<", f">{row}<")
        found[unescape(parts[0]), unescape(parts[1])] = parts[2:]
    return found


def numbers(row: list[str]) -> list[int]:
    """Looked at, the five statuses, what shadow would have corrected, cache hits."""
    shadow, would = re.findall(r"\d+", row[3].replace(",", ""))
    plain = [int(cell.replace(",", "")) for cell in (*row[:3], *row[4:7])]
    return [*plain[:3], int(shadow), *plain[3:5], int(would), plain[5]]


def of_the_store(entries: Iterable[Entry]) -> list[int]:
    """The same, of entries."""
    entries = list(entries)
    statuses = Counter(entry.status for entry in entries)
    would = sum(entry.reason == "would_correct" for entry in entries)
    hit = sum(entry.cache_hit is True for entry in entries)
    return [len(entries), *(statuses[status] for status in COLUMNS), would, hit]


def test_rates_are_the_stores_and_the_metrics(traffic: Traffic) -> None:
    entries = traffic.entries()
    shown = cells(traffic.browser(MASTER).get("/rates?period=1h").text)
    whole = shown.pop(("all", "all"))
    groups = {(entry.tenant, route_name(entry)) for entry in entries}
    assert set(shown) == groups
    assert len(groups) == 9
    for tenant, name in groups:
        own = [entry for entry in entries if (entry.tenant, route_name(entry)) == (tenant, name)]
        row = shown[tenant, name]
        assert numbers(row) == of_the_store(own), (tenant, name)
        times = sorted(entry.ms for entry in own)
        assert row[7] == f"{times[(len(times) + 1) // 2 - 1]:,.0f} ms"
    assert numbers(whole) == of_the_store(entries)
    assert numbers(whole)[7] == traffic.hits > 50
    for name in ("all", "watched", "strict"):
        rows = [numbers(row) for (_, of), row in shown.items() if of == name]
        for column, status in enumerate(COLUMNS, 1):
            counted = sum(row[column] for row in rows)
            assert counted == traffic.counted[name, status.value], (name, status)
    looked_at = sum(count for (_, status), count in traffic.counted.items() if status != Status.SKIPPED)
    assert numbers(whole)[0] == looked_at
    assert traffic.counted.total() == ANSWERS
    assert min(numbers(whole)) > 0


def tiles(text: str) -> dict[str, tuple[str, str]]:
    """The tiles of the overview: what each is about, its figure, and the note below."""
    rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd><dd class=\"quiet\">(.*?)</dd>", text)
    return {label: (value, note) for label, value, note in rows}


def test_the_overview_is_the_stores(traffic: Traffic) -> None:
    entries = traffic.entries()
    looked_at, corrected, _, _, not_judged, failed, would, _ = of_the_store(entries)
    shown = tiles(traffic.browser(MASTER).get("/overview?period=1h").text)
    value, note = shown["Corrected"]
    assert value == f"{100 * (corrected + would) / looked_at:.1f} %"
    assert note.startswith(f"{corrected + would} of {looked_at} examined answers, {would} of them only recorded")
    value, note = shown["Failed or not judged"]
    assert value == f"{100 * (failed + not_judged) / looked_at:.1f} %"
    assert note.startswith(f"{failed} failed, {not_judged} in another language")
    times = sorted(entry.ms for entry in entries)
    assert shown["Added latency"][0] == f"{times[(len(times) + 1) // 2 - 1]:,.0f} ms"
    own = [entry for entry in entries if entry.tenant == "team:acme"]
    assert (
        f"of {len(own)} examined answers"
        in tiles(traffic.browser(REVIEWER).get("/overview?period=1h").text)["Corrected"][1]
    )


def test_lists_and_figures_are_the_stores(traffic: Traffic) -> None:
    entries = traffic.entries()
    browser = traffic.browser(MASTER)
    for field, told in (("tenant", lambda e: e.tenant), ("route", route_name), ("status", lambda e: e.status)):
        for value, count in Counter(told(entry) for entry in entries).items():
            page = browser.get("/live", params={field: value}).text
            assert page.count("<article") == min(count, 50), (field, value)
            if count < 50:
                assert f"{count} of the newest {len(entries)} answers" in page
    judged = [entry for entry in entries if entry.changed is not None]
    waiting = [entry for entry in judged if entry.content is not None]
    for act in ("right", "right", "wrong", "harm", "missed", "right"):
        name = re.search(r'name="answer" value="([^"]+)"', browser.get("/review").text)
        assert name is not None
        browser.send("/review", act=act, answer=name[1])
    text = browser.get("/review/figures").text
    with closing(AuditStore(traffic.site.audit)) as store:
        found = compute_evidence(entries, Reviews(store).all())
    assert f"{len(judged)} judged answers" in text
    assert f"of which {len(waiting) - 6} wait" in text
    for share in (found.right, found.wrong):
        assert f"{share.count} of {share.total}" in text
    share = found.wrong
    wrong = tiles(browser.get("/overview?period=1h").text)["Wrong edits"]
    assert wrong == (
        f"{100 * share.interval[0]:.1f} %",
        f"{share.count} of {share.total} reviewed edits; 95 % interval "
        f"{100 * share.interval[1]:.1f} to {100 * share.interval[2]:.1f} %",
    )
    assert found.verdicts == {"right": 3, "wrong": 1, "harm": 1, "missed": 1}
    assert "right 3, wrong 1, harm 1, missed 1" in text


def test_a_reviewers_numbers_are_those_of_their_teams(traffic: Traffic) -> None:
    own = [entry for entry in traffic.entries() if entry.tenant == "team:acme"]
    browser = traffic.browser(REVIEWER)
    shown = cells(browser.get("/rates?period=1h").text)
    assert numbers(shown["all", "all"]) == of_the_store(own)
    assert {tenant for tenant, _ in shown} == {"team:acme", "all"}
    judged = sum(entry.changed is not None for entry in own)
    assert f"{judged} judged answers" in browser.get("/review/figures").text
