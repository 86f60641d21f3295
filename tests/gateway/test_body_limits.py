"""Bodies over the bound of their sender: refused before the application begins, and never held."""

from __future__ import annotations

import asyncio
import hashlib
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette

from aligner_proxy.gateway import auth, body_limits, client_keys, litellm_internals
from aligner_proxy.gateway.asgi_layers import add_layer
from aligner_proxy.gateway.body_limits import BodyLimitMiddleware
from aligner_proxy.policy.keys_file import MIB

MASTER = "sk-master-very-long-and-random"


class Application:
    """An application that reads its body, as LiteLLM does before it asks who sent it."""

    def __init__(self) -> None:
        self.bodies: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size = 0
        more = True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.bodies.append(size)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Connection:
    """A client that sends chunks, and how many of their bytes were taken, and when the answer began."""

    def __init__(self, *chunks: int, leaves: bool = False, silent: bool = False) -> None:
        self.chunks = list(chunks)
        self.leaves = leaves or silent
        self.silent = silent
        self.sent: list[Any] = []
        self.received = 0
        self.answered_at: int | None = None

    async def receive(self) -> Any:
        if not self.chunks and self.silent:
            await asyncio.Event().wait()
        if not self.chunks:
            return {"type": "http.disconnect"}
        body = b"x" * self.chunks.pop(0)
        self.received += len(body)
        return {"type": "http.request", "body": body, "more_body": bool(self.chunks) or self.leaves}

    async def send(self, message: Any) -> None:
        if self.answered_at is None:
            self.answered_at = self.received
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None


def scope(*headers: tuple[str, str], query: str = "") -> dict[str, Any]:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    return {"type": "http", "headers": encoded, "query_string": query.encode()}


async def served(connection: Connection, most: int | None, *headers: tuple[str, str]) -> Application:
    application = Application()
    await BodyLimitMiddleware(application, lambda _: most)(scope(*headers), connection.receive, connection.send)
    return application


async def test_a_body_within_the_bound_arrives_whole() -> None:
    connection = Connection(4, 6)
    assert (await served(connection, 10)).bodies == [10]
    assert connection.status == 200


async def test_a_declared_body_is_refused_before_it_is_read() -> None:
    connection = Connection(11)
    assert (await served(connection, 10, ("content-length", "11"))).bodies == []
    assert (connection.status, connection.answered_at) == (413, 0)
    assert (b"connection", b"close") in connection.sent[0]["headers"]
    assert [message.get("more_body", False) for message in connection.sent[1:]] == [True, False]


@pytest.mark.parametrize("headers", [(), (("content-length", "3"),), (("content-length", "-5"),)])
async def test_a_body_that_hides_its_length_is_read_up_to_the_bound(headers: Any) -> None:
    connection = Connection(*[4] * 1000)
    assert (await served(connection, 10, *headers)).bodies == []
    assert (connection.status, connection.answered_at) == (413, 12)


async def test_what_is_taken_behind_a_refusal_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "_LINGER_BYTES", 100)
    connection = Connection(*[4] * 1000)
    await served(connection, 10)
    assert connection.received == 12 + 100


async def test_a_client_that_sends_no_more_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "_LINGER_S", 0.01)
    connection = Connection(11, silent=True)
    await served(connection, 10)
    assert connection.sent[-1] == {"type": "http.response.body", "body": b""}


async def test_a_client_that_leaves_meanwhile_is_not_served() -> None:
    connection = Connection(4, leaves=True)
    assert (await served(connection, 10)).bodies == []
    assert connection.status is None


async def test_without_a_bound_nothing_is_read_ahead() -> None:
    connection = Connection(4, 6)
    assert (await served(connection, None, ("content-length", "99"))).bodies == [10]


# whose bound


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """LiteLLM with our authentication, and a file of two keys."""
    entries = [
        {"sha256": hashlib.sha256(b"k1").hexdigest(), "alias": "usual"},
        {"sha256": hashlib.sha256(b"k2").hexdigest(), "alias": "small", "max_body_mb": 2},
    ]
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump(entries))
    monkeypatch.setenv("ALIGNER_PROXY_KEYS", str(path))
    client_keys.policies_path.cache_clear()
    server = types.SimpleNamespace(
        master_key=MASTER, user_config_file_path=None, user_custom_auth=auth.user_api_key_auth, general_settings={}
    )
    monkeypatch.setattr(litellm_internals, "proxy_module", lambda: server)
    return server


@pytest.mark.parametrize(
    ("headers", "query", "bound"),
    [
        ([("authorization", "Bearer k1")], "", 32 * MIB),
        ([("x-api-key", "k2")], "", 2 * MIB),
        ([("x-named-by-a-setting", "bearer k2")], "", 2 * MIB),
        ([("authorization", "Bearer k1"), ("api-key", "k2")], "", 2 * MIB),
        ([], "key=k1", 32 * MIB),
        ([("authorization", f"Bearer {MASTER}")], "", None),
        ([("authorization", "Bearer unknown")], "", MIB),
        ([], "", MIB),
    ],
)
def test_the_bound_is_the_senders(headers: list[tuple[str, str]], query: str, bound: int | None) -> None:
    assert body_limits.find_sender_limit(scope(*headers, query=query)) == bound


def test_where_litellm_knows_the_keys_there_is_no_bound(server: types.SimpleNamespace) -> None:
    server.general_settings = {"custom_auth_settings": {"mode": "auto"}}
    assert body_limits.find_sender_limit(scope()) is None
    server.general_settings = {}
    server.user_custom_auth = None
    assert body_limits.find_sender_limit(scope()) is None


def test_without_readable_keys_everybody_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("- 1\n")
    monkeypatch.setenv("ALIGNER_PROXY_KEYS", str(broken))
    assert body_limits.find_sender_limit(scope(("authorization", "Bearer k1"))) == MIB


def test_an_application_is_wrapped_once_before_it_runs_and_while_it_runs() -> None:
    app = Starlette()
    for _ in range(2):
        add_layer(app, BodyLimitMiddleware, find_limit=lambda _: None)
    assert [middleware.cls for middleware in app.user_middleware] == [BodyLimitMiddleware]
    app = Starlette()
    app.middleware_stack = app.build_middleware_stack()
    for _ in range(2):
        add_layer(app, BodyLimitMiddleware, find_limit=lambda _: None)
    assert isinstance(app.middleware_stack, BodyLimitMiddleware)
    assert not isinstance(app.middleware_stack.app, BodyLimitMiddleware)
