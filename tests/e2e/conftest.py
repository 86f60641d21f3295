"""Real processes over real sockets: scripted upstreams, the scripted engine, LiteLLM with the guardrail and without.

A test file names the models and routes that it needs in `DEPLOYMENT`. Files that name the same share the proxies, which
start when the first of them asks. Each process is started once per session and worker of pytest-xdist, also for the
folders that import these fixtures.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import KEYS, Gateway
from tests.e2e.deployment import Deployment, ProxyPool
from tests.e2e.processes import IMPORTABLE, EngineProcess, Process, free_port, once, scripted_engine
from tests.e2e.recorded import RECORDED
from tests.e2e.shared import SHARED
from tests.e2e.systems import SINGLE


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where configs, logs and sockets of this session lie."""
    return once(request.config, "folder", lambda _: tmp_path_factory.mktemp("e2e"))


@pytest.fixture(scope="session")
def upstream(request: pytest.FixtureRequest, folder: Path) -> str:
    """Base address of the scripted upstreams."""

    def start(stack: contextlib.ExitStack) -> str:
        port = free_port()
        process = Process([sys.executable, "-m", "tests.e2e.upstreams", str(port)], folder / "upstream.log", IMPORTABLE)
        stack.callback(process.stop)
        process.start()
        process.wait_for(f"http://127.0.0.1:{port}/seen")
        return f"http://127.0.0.1:{port}"

    return once(request.config, "upstream", start)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, folder: Path) -> EngineProcess:
    """The scripted engine on a unix socket."""

    def start(stack: contextlib.ExitStack) -> EngineProcess:
        started = scripted_engine(folder, "engine")
        stack.callback(started.process.stop)
        started.start()
        return started

    return once(request.config, "engine", start)


@pytest.fixture(scope="session")
def single_purpose(folder: Path) -> Iterator[EngineProcess]:
    """A scripted engine that says that it serves an Aligner (PKU)."""
    started = scripted_engine(folder, SINGLE, "aligner")
    started.start()
    yield started
    started.process.stop()


@pytest.fixture(scope="session")
def proxies(request: pytest.FixtureRequest, folder: Path, upstream: str, engine: EngineProcess) -> ProxyPool:
    """All proxies of this session."""

    def start(stack: contextlib.ExitStack) -> ProxyPool:
        pool = ProxyPool(folder, upstream, engine)
        stack.callback(pool.close)
        return pool

    return once(request.config, "proxies", start)


@pytest.fixture(scope="module")
def deployment(request: pytest.FixtureRequest, proxies: ProxyPool) -> Iterator[Deployment]:
    """What the test file declares; its proxies end with it, unless other files share them."""
    declared: Deployment = request.module.DEPLOYMENT
    yield declared
    if declared not in (SHARED, RECORDED):
        proxies.stop(declared)


@pytest.fixture(scope="module")
def gateway(proxies: ProxyPool, deployment: Deployment) -> Iterator[Gateway]:
    """The guarded proxy, with the master key."""
    proxy = proxies.get(deployment, guarded=True)
    with contextlib.closing(Gateway(proxy.address, log=proxy.log)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def plain(proxies: ProxyPool, deployment: Deployment) -> Iterator[Gateway]:
    """LiteLLM alone, with the same models."""
    proxy = proxies.get(deployment, guarded=False)
    with contextlib.closing(Gateway(proxy.address, log=proxy.log)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def tenants(proxies: ProxyPool, deployment: Deployment) -> Iterator[dict[str, Gateway]]:
    """The guarded proxy with the keys of the keys file, by alias."""
    proxy = proxies.get(deployment, guarded=True)
    gateways = {alias: Gateway(proxy.address, key, proxy.log) for alias, key in KEYS.items()}
    yield gateways
    for gateway in gateways.values():
        gateway.close()
