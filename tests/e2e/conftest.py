"""Real processes over real sockets: scripted upstreams, the scripted engine, LiteLLM with the guardrail and without.

A test file names the models and routes that it needs in `DEPLOYMENT`. Files that name the same share the proxies, which
start when the first of them asks. Each process is started once per session and worker of pytest-xdist.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import KEYS, Gateway
from tests.e2e.deployment import Deployment, ProxyPool
from tests.e2e.processes import IMPORTABLE, EngineProcess, Process, free_port, scripted_engine
from tests.e2e.systems import SINGLE


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where configs, logs and sockets of this session lie."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def upstream(folder: Path) -> Iterator[str]:
    """Base address of the scripted upstreams."""
    port = free_port()
    process = Process([sys.executable, "-m", "tests.e2e.upstreams", str(port)], folder / "upstream.log", IMPORTABLE)
    process.start()
    process.wait_for(f"http://127.0.0.1:{port}/seen")
    yield f"http://127.0.0.1:{port}"
    process.stop()


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[EngineProcess]:
    """The scripted engine on a unix socket."""
    started = scripted_engine(folder, "engine")
    started.start()
    yield started
    started.process.stop()


@pytest.fixture(scope="session")
def single_purpose(folder: Path) -> Iterator[EngineProcess]:
    """A scripted engine that says that it serves an Aligner (PKU)."""
    started = scripted_engine(folder, SINGLE, "aligner")
    started.start()
    yield started
    started.process.stop()


@pytest.fixture(scope="session")
def proxies(folder: Path, upstream: str, engine: EngineProcess) -> Iterator[ProxyPool]:
    """All proxies of this session."""
    pool = ProxyPool(folder, upstream, engine)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """What the test file declares."""
    declared: Deployment = request.module.DEPLOYMENT
    return declared


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
