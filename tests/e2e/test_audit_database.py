"""Two whole gateways with one PostgreSQL of audit entries: an answer comes with its entry, whichever of them dies."""

from __future__ import annotations

import base64
import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from aligner_proxy.audit.store import Seal
from aligner_proxy.plugins.api import Entry
from aligner_proxy_fleet.database import DatabaseStore
from aligner_proxy_review.reviews import Reviews
from tests.e2e.clients import Gateway
from tests.e2e.deployment import Deployment, Proxy, two_proxies
from tests.e2e.processes import EngineProcess
from tests.support.postgres_server import PostgresProcess, needs_postgres, postgres_process

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), needs_postgres]
KEY = bytes(range(32))
INSULT = "idiot"


class Audited(Deployment):
    """A deployment whose answers need their entry, in a database."""

    def policies(self) -> dict[str, Any]:
        """The policies file."""
        audit = {"enabled": True, "required": True, "database_env": "AUDIT_DATABASE", "key_env": "AUDIT_KEY"}
        return {**super().policies(), "audit": audit}


DEPLOYMENT = Audited().model("gpt")


@dataclass
class House:
    """The gateways, and the database behind both."""

    proxies: list[Proxy]
    gateways: list[Gateway]
    server: PostgresProcess

    @contextlib.contextmanager
    def store(self) -> Iterator[DatabaseStore]:
        """The store, as a reviewer opens it."""
        with contextlib.closing(DatabaseStore(self.server.database, Seal(KEY))) as store:
            yield store

    def entries(self) -> dict[str, Entry]:
        """Every entry by its id; none is there twice."""
        with self.store() as store:
            found = list(store.entries())
        by_id = {entry.aligner_id: entry for entry in found}
        assert len(by_id) == len(found)
        return by_id


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, upstream: str, engine: EngineProcess
) -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        mine = tmp_path_factory.mktemp("audited")
        server = stack.enter_context(postgres_process())
        env = {"AUDIT_DATABASE": server.url, "AUDIT_KEY": base64.b64encode(KEY).decode()}
        started = stack.enter_context(two_proxies(DEPLOYMENT, mine, folder, upstream, engine, env))
        gateways = [stack.enter_context(contextlib.closing(Gateway(made.address, log=made.log))) for made in started]
        yield House(started, gateways, server)


def test_answers_of_both_come_with_their_entries_and_no_text_lies_in_the_clear(house: House) -> None:
    ids = []
    for gateway in house.gateways:
        got = gateway.chat("rude")
        assert INSULT not in got.text
        ids.append(got.headers["x-aligner-id"])
    entries = house.entries()
    for aligner_id in ids:
        content = entries[aligner_id].content
        assert content is not None
        assert INSULT in content.exchange.answer
    with house.store() as store:
        for (content,) in store.fetch_rows("SELECT content FROM entries"):
            assert INSULT.encode() not in bytes(content)
    for made in house.proxies:
        assert "secret-word" not in made.log.read_text()


def test_what_one_answered_can_be_reviewed_through_the_other(house: House) -> None:
    aligner_id = house.gateways[0].chat("rude reviewed").headers["x-aligner-id"]
    got = house.gateways[1].http.post("/v1/feedback", json={"id": aligner_id, "verdict": "right"})
    assert got.is_success, got.text
    with house.store() as store:
        assert [review.aligner_id for review in Reviews(store).all()] == [aligner_id]


def test_while_the_database_is_away_there_is_no_answer_and_afterwards_there_is(house: House) -> None:
    house.server.stop()
    try:
        got = house.gateways[0].chat("rude away")
    finally:
        house.server.start()
    assert got.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "the answer could not be recorded (audit_unwritten)" in got.text
    assert INSULT not in got.text
    until = time.monotonic() + 60
    while (got := house.gateways[0].chat("rude again")).status_code != httpx.codes.OK:
        assert time.monotonic() < until, got.text
    assert got.headers["x-aligner-id"] in house.entries()


def test_a_gateway_that_is_killed_under_load_loses_no_entry_of_an_answer(house: House) -> None:
    """The last test: one gateway is gone behind it."""

    def ask(number: int) -> str | None:
        """The id of an answer that came; None where its gateway was gone."""
        try:
            got = house.gateways[number % 2].chat(f"rude load {number}")
        except httpx.TransportError:
            return None
        return got.headers["x-aligner-id"] if got.is_success else None

    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, number) for number in range(80)]
        while sum(one.done() for one in asked) < 20:
            time.sleep(0.01)
        house.proxies[0].process.stop(signal.SIGKILL)
        answered = {one.result() for one in asked} - {None}
    assert 40 <= len(answered) < 80
    assert answered <= house.entries().keys()
