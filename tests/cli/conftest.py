"""What tests of several commands need."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from aligner_proxy.engine import sockets
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.server.app import create_app


@contextlib.contextmanager
def _served(engine: Engine, socket: Path) -> Iterator[str]:
    with sockets.unix(socket) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(engine), log_config=None, lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        yield f"unix:{socket}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve_engine(tmp_path: Path) -> Iterator[Callable[[Engine], str]]:
    """Serves an engine on a socket until the test ends, and says its address."""
    with contextlib.ExitStack() as stack:
        yield lambda engine: stack.enter_context(_served(engine, tmp_path / "e.sock"))
