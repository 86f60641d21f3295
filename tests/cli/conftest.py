"""What tests of several commands need."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aligner_proxy.engine import sockets
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.server.app import create_app
from tests.support.serving import serve_in_thread


@contextlib.contextmanager
def _serve_on(engine: Engine, socket: Path) -> Iterator[str]:
    with sockets.listen_on_unix_socket(socket) as listener, serve_in_thread(create_app(engine), listener):
        yield f"unix:{socket}"


@pytest.fixture
def serve_engine(tmp_path: Path) -> Iterator[Callable[[Engine], str]]:
    """Serves an engine on a socket until the test ends, and says its address."""
    with contextlib.ExitStack() as stack:
        yield lambda engine: stack.enter_context(_serve_on(engine, tmp_path / "e.sock"))


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """A command run in this process may handle SIGTERM, and forked workers of later tests would not end by it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
