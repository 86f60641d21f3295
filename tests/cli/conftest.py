"""What tests of several commands need."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.engine import sockets
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.server.app import create_app
from tests.support.serving import serve_in_thread


def fill_disk(patch: pytest.MonkeyPatch) -> None:
    """Let the writing of a new file fail for lack of room, as a full disk does."""
    open_file = Path.open

    def open_or_fail(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if "x" in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return open_file(path, mode, *more, **named)

    patch.setattr(Path, "open", open_or_fail)


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
