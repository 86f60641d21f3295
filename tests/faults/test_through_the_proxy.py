"""Faults of the engine, the upstream, the client and the policies file, through the real LiteLLM proxy."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import httpx
import pytest

from aligner_proxy.types import OnError
from tests.e2e.clients import MASTER_KEY, Streamed
from tests.faults import faults
from tests.faults.cells import (
    FOR_THE_RECORD,
    NOBODY,
    POLICIES,
    Cell,
    Fault,
    Mode,
    Seen,
    cells,
    check,
    each_pair,
    tried,
)
from tests.faults.conftest import ALONE_MODEL, House, new, seen, until
from tests.faults.faulty_engine import SEATS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SILENCE_S = 1.0


def ask(house: House, cell: Cell, question: str) -> Streamed:
    more = {"timeout": SILENCE_S} if cell.fault.word == "up-hangs" else {}
    return house.ask(cell.model, question, bool(cell.mode.stream), **more)


def alone(house: House, cell: Cell, question: str) -> Streamed:
    """The same from LiteLLM alone."""
    more = {"timeout": SILENCE_S} if cell.fault.word == "up-hangs" else {}
    return house.ask(ALONE_MODEL, question, bool(cell.mode.stream), **more)


@each_pair
@pytest.mark.parametrize("cell", cells((*faults.BY_WORD, *faults.BY_UPSTREAM)), ids=lambda cell: cell.name)
def test_what_a_word_brings_about(house: House, cell: Cell) -> None:
    house.settle()
    question = new(cell.fault.word)
    got = ask(house, cell, question)
    check(cell, seen(cell, got, alone(house, cell, question)))


@contextmanager
def gone(house: House, _: str) -> Iterator[Callable[[], None]]:
    """Nobody listens at its address."""
    away = house.socket.with_suffix(".away")
    house.socket.rename(away)
    yield lambda: None
    away.rename(house.socket)


@contextmanager
def hung(house: House, _: str) -> Iterator[Callable[[], None]]:
    """The kernel still takes connections, and nobody answers on them."""
    assert house.engine.child is not None
    os.kill(house.engine.child.pid, signal.SIGSTOP)
    try:
        yield lambda: None
    finally:
        os.kill(house.engine.child.pid, signal.SIGCONT)


@contextmanager
def no_http(house: House, _: str) -> Iterator[Callable[[], None]]:
    """Somebody who answers every connection with a line of another protocol."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            # Who asked may be gone by then; the next one is to be answered all the same.
            with closing(connection), suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

    with gone(house, _), closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(house.socket))
        listener.listen()
        serving = threading.Thread(target=serve)
        serving.start()
        yield lambda: None
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


TURNED_AWAY = httpx.codes.TOO_MANY_REQUESTS


@contextmanager
def full(house: House, question: str) -> Iterator[Callable[[], None]]:
    """Tenants, one for each place, whose requests are held."""
    held = [new(f"held {question}") for _ in range(SEATS)]
    with ThreadPoolExecutor(SEATS) as pool, house.holding():
        taken = [pool.submit(_take_a_place, house, said, f"tenant-{who}") for who, said in enumerate(held)]
        until(lambda: any(one.done() for one in taken) or all(map(house.asked, held)), "the places were never taken")
        assert not [one.exception() or "it was let go" for one in taken if one.done()]
        yield lambda: until(lambda: house.asked(question, "refused") > 0, "nobody was turned away")


@contextmanager
def full_for_a_moment(house: House, question: str) -> Iterator[Callable[[], None]]:
    def leave() -> None:
        refused()
        let_go()

    with full(house, question) as refused, house.holding() as let_go:
        yield leave


def _take_a_place(house: House, said: str, tenant: str) -> None:
    """Hold a place; as soon as it is free, where a request of the cell before still has it."""
    turns = [{"role": "user", "content": said}]
    body = {"request_id": said, "turns": turns, "answer": "x", "objectives": ["a: b"], "deadline_s": 60}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(house.socket), verify=False), timeout=60) as client:
        while client.post("http://engine/v1/corrections", json={**body, "tenant": tenant}).status_code == TURNED_AWAY:
            time.sleep(0.1)


CAUSES = {
    faults.GONE: gone,
    faults.HUNG: hung,
    faults.NO_HTTP: no_http,
    faults.FULL_STAYS: full,
    faults.FULL_ONCE: full_for_a_moment,
}


@each_pair
@pytest.mark.parametrize("cell", cells(faults.CAUSED), ids=lambda cell: cell.name)
def test_what_somebody_causes(house: House, cell: Cell) -> None:
    house.settle()
    question = new(cell.fault.word)
    with ThreadPoolExecutor(1) as pool, CAUSES[cell.fault](house, question) as meanwhile:
        asked = pool.submit(ask, house, cell, question)
        meanwhile()
        got = asked.result()
    check(cell, seen(cell, got, alone(house, cell, question)))


@pytest.fixture(scope="module")
def killed(house: House) -> dict[Cell, tuple[Streamed, Streamed]]:
    """All cells of an engine that is killed under them: what the client got, and what LiteLLM alone gives."""
    house.settle()
    questions = {cell: new(cell.fault.word) for cell in cells((faults.KILLED,))}
    with ThreadPoolExecutor(len(questions)) as pool, house.holding():
        asked = {cell: pool.submit(ask, house, cell, question) for cell, question in questions.items()}
        until(lambda: all(map(house.asked, questions.values())), "the engine was never asked")
        house.engine.stop(signal.SIGKILL)
        house.start_engine()
    return {cell: (one.result(), alone(house, cell, questions[cell])) for cell, one in asked.items()}


@each_pair
@pytest.mark.parametrize("cell", cells((faults.KILLED,)), ids=lambda cell: cell.name)
def test_the_engine_is_killed_in_mid_request(killed: dict[Cell, tuple[Streamed, Streamed]], cell: Cell) -> None:
    check(cell, seen(cell, *killed[cell]))


@each_pair
@pytest.mark.parametrize("cell", cells((faults.LEAVES,)), ids=lambda cell: cell.name)
def test_the_client_leaves(house: House, cell: Cell) -> None:
    question = new(cell.fault.word)
    where = httpx.URL(house.address)
    body = f'{{"model": "{cell.model}", "stream": {str(bool(cell.mode.stream)).lower()}, '
    body += f'"messages": [{{"role": "user", "content": "{question}"}}]}}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {MASTER_KEY}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with house.holding():
        with socket.create_connection((where.host, where.port or 80)) as client:
            client.sendall((head + body).encode())
            until(lambda: house.asked(question) == 1, "the engine was never asked")
        if cell.mode.stream != "passthrough":
            until(lambda: house.asked(question, "cancelled") == 1, "the engine went on for nobody")
    if cell.mode.stream == "passthrough":
        until(lambda: house.asked(question, "answered") == 1, "the record was never made")
    assert house.asked(question) == 1  # not even `retry` asks again for nobody
    check(cell, Seen(FOR_THE_RECORD if house.asked(question, "answered") else NOBODY))


@pytest.fixture(scope="module", params=[faults.BAD_FILE, faults.NO_FILE], ids=lambda fault: fault.title)
def broken(house: House, request: pytest.FixtureRequest) -> Iterator[Fault]:
    """A policies file that cannot be used, while the gateway runs."""
    good = house.policies.read_text()
    if request.param is faults.BAD_FILE:
        house.policies.write_text(good[: len(good) // 2] + "\n  - {match: [\n")
    else:
        house.policies.unlink()
    until(lambda: house.metric("aligner_policy_refused") == 1, "nobody refused it")
    yield request.param
    house.policies.write_text(good)
    until(lambda: house.metric("aligner_policy_refused") == 0, "nobody took it")


@pytest.mark.parametrize("mode", tried(faults.BAD_FILE), ids=lambda mode: mode.name)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_policies_file_breaks(house: House, broken: Fault, policy: OnError, mode: Mode) -> None:
    cell = Cell(broken, policy, mode)
    question = new(cell.fault.word)
    got = ask(house, cell, question)
    assert got.headers["x-aligner-policy"] == cell.model
    check(cell, seen(cell, got, alone(house, cell, question)))
