"""What official clients read from a gateway: every endpoint that they speak, whole and streamed, in every mode."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import httpx
import pytest

from tests.clients.programs import run_go, run_node
from tests.clients.python_clients import run_anthropic, run_openai
from tests.clients.readings import Case, ReadBatch, Reading
from tests.e2e.clients import MASTER_KEY, Gateway, Streamed
from tests.e2e.scripted_answers import RUDE
from tests.e2e.scripted_engine import INSULT
from tests.support.sampling import examples, spread

pytestmark = pytest.mark.timeout(400)  # npm may have to install the clients first

KIND = RUDE.replace(INSULT, "")
USAGE = (9, 21)
MODES = {"quick": (KIND, KIND), "sentence": (KIND, KIND), "live": (KIND, RUDE), "off": (RUDE, RUDE)}
"""By the mode of a model's route (`quick` holds, `live` passes streams through): a whole answer's text, a stream's."""
SOME_MODES = tuple(spread(list(MODES), examples(len(MODES), 2)))
"""`quick` and `live` in the sample; e2e/test_stream_modes.py reads every mode itself."""
SUFFIXES = {"chat": "", "responses": "", "text": "-instruct", "messages": "-claude"}
"""Of the names of models whose upstream speaks the endpoint itself."""
OPENAI = {"chat": "stop", "text": "stop", "responses": "completed"}
ANTHROPIC = {"messages": "end_turn"}
FOREIGN = {("ai", "text stream")}
"""Streams of LiteLLM's own that a client cannot read: the last event of a text has no `text`, which `ai` requires."""


@dataclass(frozen=True)
class Client:
    """A client and how it says of a complete answer why it ended, by endpoint."""

    name: str
    run: Callable[[str, str], AbstractContextManager[ReadBatch]]
    finishes: Mapping[str, str]


CLIENTS = (
    Client("openai-python", run_openai, OPENAI),
    Client("anthropic-python", run_anthropic, ANTHROPIC),
    Client("openai-node", partial(run_node, "openai"), OPENAI),
    Client("anthropic-node", partial(run_node, "anthropic"), ANTHROPIC),
    Client("ai", partial(run_node, "ai"), dict.fromkeys(SUFFIXES, "stop")),
    Client("openai-go", run_go, OPENAI),
)


@dataclass(frozen=True)
class Reader:
    """A client that runs, and what it asked its upstream."""

    client: Client
    read_batch: ReadBatch
    upstream: str

    def cases(self, models: Sequence[str], says: str, ways: Sequence[str] = ("whole", "stream")) -> list[Case]:
        """A case for each endpoint, way and model, with words of its own behind those of the script."""
        return [
            Case(f"{endpoint} {way}", f"{model}{SUFFIXES[endpoint]}", f"{says} {uuid.uuid4().hex}")
            for endpoint in self.client.finishes
            for way in ways
            for model in models
        ]

    def is_foreign(self, case: Case) -> bool:
        """Whether the client cannot read what LiteLLM alone sends."""
        return (self.client.name, case.way) in FOREIGN

    def finish(self, case: Case) -> str:
        """How the client says that the answer is complete."""
        return self.client.finishes[case.way.split()[0]]

    def calls(self, cases: Sequence[Case]) -> list[int]:
        """How often the upstream was asked, for each case."""
        bodies = httpx.get(f"{self.upstream}/seen?n=100000", trust_env=False, verify=False).text
        return [bodies.count(case.prompt) for case in cases]


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda client: client.name)
def reader(request: pytest.FixtureRequest, gateway: Gateway, upstream: str) -> Iterator[Reader]:
    """Each client, connected to the gateway with nothing but its address and a key."""
    client: Client = request.param
    with client.run(gateway.address, MASTER_KEY) as read_batch:
        yield Reader(client, read_batch, upstream)


def unlike(case: Case, reading: Reading, expected: Reading) -> str | None:
    """How a complete answer differs from what was expected; a stream has many events, in whatever pieces."""
    events = 1 if case.way.endswith("whole") else max(reading.events, 2)
    got = replace(reading, usage=tuple(reading.usage or ()))
    return None if got == replace(expected, events=events) else f"{case.way} {case.model}: {got}"


def test_every_endpoint_in_every_mode(reader: Reader) -> None:
    failures: list[str | None] = []
    for mode in SOME_MODES:
        whole, stream = MODES[mode]
        cases = [case for case in reader.cases([mode], "rude") if mode == "off" or not reader.is_foreign(case)]
        readings = [one for way in ("whole", "stream") for one in _read(reader, cases, way)]
        assert reader.calls([case for case, _ in readings]) == [1] * len(cases)
        for case, reading in readings:
            if reader.is_foreign(case):
                assert "TypeValidationError" in (reading.error or ""), f"{case.way} can be read now: {reading}"
                continue
            expected = Reading(whole if case.way.endswith("whole") else stream, reader.finish(case), USAGE)
            failures.append(unlike(case, reading, expected))
    assert list(filter(None, failures)) == []


def _read(reader: Reader, cases: Sequence[Case], way: str) -> list[tuple[Case, Reading]]:
    """The cases of one way at once: as many as the engine has places."""
    batch = [case for case in cases if case.way.endswith(way)]
    return list(zip(batch, reader.read_batch(batch), strict=True))


def test_a_refusal_is_final(reader: Reader) -> None:
    """Clients repeat what fails with a 5xx. LiteLLM tells the failure of a stream of Responses as its last event.

    openai-python and openai-node raise an error of their own if that event is the first, too.
    """
    cases = reader.cases(["refusing"], "rude")
    readings = reader.read_batch(cases)
    failures = [not_refused(case, reading) for case, reading in zip(cases, readings, strict=True)]
    failures += [
        f"{case.way}: status {reading.status}"
        for case, reading in zip(cases, readings, strict=True)
        if reading.status != 422 and case.way != "responses stream"
    ]
    assert list(filter(None, failures)) == []
    assert reader.calls(cases) == [1] * len(cases)


def not_refused(case: Case, reading: Reading) -> str | None:
    """What a client holds that was not told of a refusal, or has text of what was refused."""
    if "response.created" in reading.message:
        return f"{case.way} {case.model}: {reading.message}"
    is_told = reading.error is not None or (case.way == "responses stream" and reading.finish == "failed")
    return None if is_told and not reading.text else f"{case.way} {case.model}: {reading}"


RAW: Mapping[str, Callable[..., Streamed]] = {
    "chat": Gateway.chat_stream,
    "text": Gateway.complete_stream,
    "responses": Gateway.respond_stream,
    "messages": Gateway.message_stream,
}
"""Streams as they are sent."""
_SILENCE_S = 0.9
"""While the upstream is silent: four times as long as the gateway is."""


@pytest.mark.parametrize("mode", ["quick", "hesitant"])
def test_heartbeats_trouble_nobody(reader: Reader, gateway: Gateway, mode: str) -> None:
    """The upstream falls silent in the middle; then the answer goes on, or is refused when some of it was sent."""
    gate = uuid.uuid4().hex
    # With the raw stream no more than the engine has places: one that finds none for 5 s goes out as it came.
    cases = [case for case in reader.cases([mode], f"paused {gate}", ["stream"]) if not reader.is_foreign(case)]
    endpoint = cases[0].way.split()[0]
    model = f"{mode}{SUFFIXES[endpoint]}"
    raw = Case("raw stream", model, f"paused {gate} {uuid.uuid4().hex}")
    with ThreadPoolExecutor(2) as pool:
        pending = pool.submit(reader.read_batch, cases)
        silent = pool.submit(RAW[endpoint], gateway, raw.prompt, model=model)
        until = time.monotonic() + 30
        while set(reader.calls([*cases, raw])) != {1} and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(_SILENCE_S)
        httpx.post(f"{reader.upstream}/release/{gate}", trust_env=False, verify=False)
        readings = pending.result()
    steady = RAW[endpoint](gateway, "rude", model=model)
    assert len(silent.result().raw.splitlines()) > len(steady.raw.splitlines()) + 2, "there were no heartbeats"
    failures = [
        unlike(case, reading, Reading(KIND, reader.finish(case), USAGE))
        if mode == "quick"
        else not_refused(case, reading)
        for case, reading in zip(cases, readings, strict=True)
    ]
    assert list(filter(None, failures)) == []
    assert reader.calls(cases) == [1] * len(cases)
