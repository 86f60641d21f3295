"""Clients as people use them, each against the real gateway: streamed or whole, with tools and without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.conformance.clients import CLIENTS, sse_events
from tests.conformance.document import Seen
from tests.conformance.features import TEXT
from tests.e2e.clients import KEYS, Gateway
from tests.e2e.scripted_answers import RUDE
from tests.e2e.scripted_engine import INSULT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    # Of the clients themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

CASES = [
    (client, endpoint, stream, tools)
    for client, endpoint in CLIENTS
    for stream in (False, True)
    for tools in (False, True)
    if not (tools and endpoint == TEXT)
]


@pytest.fixture(autouse=True)
def _nothing_in_between() -> Iterator[None]:
    """No proxy of this machine, and no telemetry of a client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        patch.setenv("LANGSMITH_TRACING", "false")
        yield


@pytest.mark.covering("client endpoint", "client stream", "client tools", "endpoint stream tools")
@pytest.mark.parametrize(("client", "endpoint", "stream", "tools"), CASES)
def test_client(gateway: Gateway, seen: Seen, client: str, endpoint: str, stream: bool, tools: bool) -> None:
    read, package = CLIENTS[client, endpoint]
    if package:
        pytest.importorskip(package)
    elif client == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    text, call = read(gateway.address, KEYS["other"], stream, tools)
    assert (text, call) == (RUDE.replace(INSULT, ""), ("look_up", {"place": "Paris"}) if tools else None)
    what = "text corrected, call intact" if tools else "text corrected"
    seen.clients[client, f"`{endpoint}`", "stream" if stream else "whole", "called" if tools else "none"] = what


def test_the_plain_reader_knows_the_specification() -> None:
    told = ": ping\n\nevent: x\ndata: a\ndata:b\r\n\nid: 1\n\ndata: c\n\ndata: cut"
    assert list(sse_events(told.splitlines(keepends=True))) == ["a\nb", "c"]
