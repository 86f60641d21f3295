"""Answers as they happen: each once, to whom it is for, through the page's own stream."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import yaml

from aligner_proxy.errors import AuditError
from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.console import live_feed, pages
from aligner_proxy_review.console.answer_queries import ListFilters, answer_handle
from aligner_proxy_review.console.live_feed import MISSED, Batch, LiveFeed
from tests.plugins.review.console.conftest import KEYS, MASTER, REVIEWER, Site, an_entry, digest


class Clock:
    """A store and a time that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.entries: list[Entry] = []
        self.error: Exception | None = None
        self.looks = 0

    def last_row(self) -> int:
        self.looks += 1
        if self.error:
            raise self.error
        return len(self.entries)

    def entries_after(self, after: int, limit: int) -> tuple[int, Sequence[Entry]]:
        return self.last_row(), self.entries[after:][-limit:]

    def entries_since(self, at: float, limit: int) -> Sequence[Entry]:
        return [entry for entry in self.entries if entry.at >= at][-limit:]

    def follower(self) -> LiveFeed:
        return LiveFeed(self, 0.0, lambda: self.now)


def waiting(queue: asyncio.Queue[Batch | None]) -> list[Entry | None]:
    found: list[Entry | None] = []
    for _ in range(queue.qsize()):
        batch = queue.get_nowait()
        found += [None] if batch is None else batch.entries
    return found


async def test_each_answer_comes_once_to_each_page() -> None:
    clock = Clock()
    follower = clock.follower()
    with follower.open_page() as one, follower.open_page() as other:
        await follower.poll()
        for n in range(3):
            clock.entries.append(an_entry(n, at=clock.now))
            await follower.poll()
            clock.now += 1
        assert waiting(one) == waiting(other) == clock.entries
        await follower.poll()
        assert waiting(one) == []


async def test_answers_between_two_looks_come_at_once() -> None:
    clock = Clock()
    follower = clock.follower()
    with follower.open_page() as page:
        await follower.poll()
        clock.entries = [an_entry(n, at=clock.now) for n in range(5)]
        await follower.poll()
        assert page.qsize() == 1
        assert waiting(page) == clock.entries


async def test_an_entry_that_was_written_late_still_comes() -> None:
    clock = Clock()
    follower = clock.follower()
    with follower.open_page() as page:
        await follower.poll()
        clock.entries = [an_entry(1, at=1000.0)]
        await follower.poll()
        clock.entries = [*clock.entries, an_entry(2, at=500.0)]
        await follower.poll()
        assert waiting(page) == clock.entries


async def test_nothing_is_lost_between_what_was_before_and_what_comes() -> None:
    clock = Clock()
    follower = clock.follower()
    clock.entries = [an_entry(1, at=clock.now)]
    with follower.open_page() as page:
        before = await follower.recent_entries()
        clock.entries = [*clock.entries, an_entry(2, at=clock.now)]
        await follower.poll()
        assert [*before, *waiting(page)] == clock.entries


async def test_after_newest_answers_were_erased_others_still_come() -> None:
    clock = Clock()
    follower = clock.follower()
    clock.entries = [an_entry(n, at=clock.now) for n in range(5)]
    with follower.open_page() as page:
        await follower.poll()
        clock.entries = clock.entries[:2]
        await follower.poll()
        clock.entries = [*clock.entries, an_entry(9, at=clock.now)]
        await follower.poll()
        assert waiting(page) == [an_entry(9, at=clock.now)]


async def test_who_follows_after_a_pause_gets_nothing_old_by_the_queue() -> None:
    clock = Clock()
    follower = clock.follower()
    with follower.open_page():
        await follower.poll()
    clock.entries = [an_entry(1, at=clock.now)]
    with follower.open_page() as page:
        await follower.poll()
        assert waiting(page) == []
        clock.entries = [*clock.entries, an_entry(2, at=clock.now)]
        await follower.poll()
        assert waiting(page) == [an_entry(2, at=clock.now)]


async def test_a_page_is_told_of_more_than_one_batch_holds() -> None:
    clock = Clock()
    follower = clock.follower()
    with follower.open_page() as page:
        await follower.poll()
        clock.entries = [an_entry(n, at=1000.0) for n in range(live_feed._MAX_BATCH_ENTRIES + 1)]
        await follower.poll()
        assert waiting(page) == [MISSED, *clock.entries[1:]]


async def test_a_slow_page_is_told_that_some_are_missing() -> None:
    clock = Clock()
    follower = clock.follower()
    with follower.open_page() as page:
        await follower.poll()
        for n in range(live_feed._MAX_QUEUED_BATCHES + 1):
            clock.entries = [*clock.entries, an_entry(n, at=1000.0)]
            await follower.poll()
        assert waiting(page) == [MISSED, clock.entries[-1]]


async def test_a_slow_page_is_told_once_of_a_batch_that_holds_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "_MAX_BATCH_ENTRIES", 2)
    clock = Clock()
    follower = clock.follower()
    with follower.open_page() as page:
        await follower.poll()
        for n in range(live_feed._MAX_QUEUED_BATCHES):
            clock.entries.append(an_entry(n, at=clock.now))
            await follower.poll()
        clock.entries += [an_entry(n, at=clock.now) for n in (100, 101)]
        await follower.poll()
        assert waiting(page) == [MISSED, *clock.entries[-2:]]


@pytest.mark.parametrize("error", [AuditError("x"), sqlite3.OperationalError("locked"), OSError()])
async def test_a_store_that_fails_is_tried_again_and_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    follower = clock.follower()
    with follower.open_page() as page:
        await follower.poll()
        clock.error = error
        await follower.poll()
        await follower.poll()
        assert len(caplog.records) == 1
        clock.error = None
        clock.entries = [an_entry()]
        await follower.poll()
        assert len(waiting(page)) == 1


async def test_nobody_looks_while_no_page_is_open() -> None:
    clock = Clock()
    follower = clock.follower()
    running = asyncio.ensure_future(follower.run())
    try:
        await asyncio.sleep(0)
        assert clock.looks == 0
        with follower.open_page():
            while not clock.looks:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        before = clock.looks
        await asyncio.sleep(0.05)
        assert clock.looks == before
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Stream:
    """The events that one viewer's page gets."""

    def __init__(self, site: Site, key: str, query: str = "") -> None:
        sessions = site.console.sessions
        session = sessions.find(sessions.begin(digest(key)))
        assert session is not None
        self.session = session
        viewer = site.console.services.find_viewer(session)
        assert viewer is not None
        request: Any = type("R", (), {"query_params": dict(part.split("=") for part in query.split("&") if part)})()
        visit = pages.Visit(request, site.console.services, session, viewer)
        self.events: AsyncIterator[str] = pages._iter_events(visit, site.console.services.feed)

    async def next(self) -> str:
        """The next event that says something."""
        while True:
            event = await anext(self.events)
            if event.startswith("event:"):
                return event


@pytest.fixture
def now(site: Site) -> float:
    site.add(an_entry(0, at=1.0))
    site.console.services.feed._clock = lambda: 1000.0
    return 1000.0


@pytest.mark.parametrize(
    ("key", "query", "numbers"),
    [
        (MASTER, "", [1, 2, 3]),
        (REVIEWER, "", [1, 3]),
        (MASTER, "tenant=team:globex", [2]),
        (REVIEWER, "status=failed", []),
    ],
)
async def test_events_are_for_whom_the_page_is(
    site: Site, now: float, key: str, query: str, numbers: list[int]
) -> None:
    entries = {n: an_entry(n, at=now + n, team="globex" if n == 2 else "acme") for n in (1, 2, 3)}
    stream = Stream(site, key, query)
    assert await anext(stream.events) == "retry: 2000\n: following\n\n"
    site.add(entries[1])
    got = await collected(stream, site, entries)
    ids = [next(n for n, entry in entries.items() if f'id="a-{answer_handle(entry)}"' in event) for event in got]
    assert ids == numbers
    assert all(event.startswith("event: answer\ndata: ") and event.endswith("\n\n") for event in got)
    assert all(line.startswith(("event: ", "data: ")) for event in got for line in event.rstrip("\n").split("\n"))


async def collected(stream: Stream, site: Site, entries: dict[int, Entry]) -> list[str]:
    """What a page gets that was opened with the first entry, while the others happen; then its session ends."""
    first = await anext(stream.events)
    site.add(entries[2], entries[3])
    follower = site.console.services.feed
    await follower.poll()
    (queue,) = follower._page_queues
    assert queue.qsize() == 1
    got = await anext(stream.events)
    site.console.sessions.end(stream.session)
    rest = [event async for event in stream.events]
    assert rest == ["event: over\ndata: \n\n"]
    return [before for part in (first, got) for before in re.findall(r"(?:[^\n]+\n)+\n", part)]


async def test_a_withdrawn_key_ends_what_it_follows(site: Site, now: float) -> None:
    stream = Stream(site, REVIEWER)
    await anext(stream.events)
    site.keys.write_text(yaml.safe_dump(KEYS[1:]))
    assert await stream.next() == "event: over\ndata: \n\n"
    assert [event async for event in stream.events] == []
    assert site.console.services.feed.page_count == 0


async def test_a_page_that_leaves_is_forgotten(site: Site, now: float) -> None:
    stream = Stream(site, MASTER)
    await anext(stream.events)
    assert site.console.services.feed.page_count == 1
    await stream.events.aclose()  # type: ignore[attr-defined]
    assert site.console.services.feed.page_count == 0


async def test_pages_that_show_the_same_share_one_text() -> None:
    made = []
    batch = Batch([an_entry(1)])

    def shown(entries: Sequence[Entry]) -> str:
        made.append(entries)
        return "shown"

    kind = (None, ListFilters())
    assert [batch.render(kind, shown) for _ in range(50)] == ["shown"] * 50
    assert made == [batch.entries]
    assert batch.render((frozenset({"team:acme"}), ListFilters()), shown) == "shown"
    assert len(made) == 2
