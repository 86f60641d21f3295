"""Hosts of the test bed: what a run that was killed left is removed, packets are lost and late as told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.fleet import needs
from tests.fleet.bed import ROOT, Server, until
from tests.fleet.network import Host, Network, network, processes_in, remove_stale, run

pytestmark = [
    pytest.mark.skipif(bool(needs.missing()), reason=needs.missing()),
    pytest.mark.slow,
    pytest.mark.timeout(120),
]
PORT = 4000
_LEFT = """
import subprocess, time
from pathlib import Path
from tests.fleet.network import network
with network() as wires:
    host = wires.host("left", 2)
    child = subprocess.Popen(host.command(["sleep", "600"]))
    # only then will it die with this process
    while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\\n":
        time.sleep(0.01)
    print(host.namespace, child.pid, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_run_left_is_removed() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", _LEFT], env=env, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name, pid = other.stdout.readline().split()
        assert name not in remove_stale(), "its run is alive"
        other.send_signal(signal.SIGKILL)
    until(lambda: not processes_in(name), "its processes outlived it")
    assert not Path(f"/proc/{pid}/exe").exists()
    assert name in remove_stale()
    assert name not in run("ip", "netns", "list")


@contextmanager
def pair() -> Iterator[tuple[Network, Host, Host]]:
    """A host that asks and one that listens."""
    with network() as wires:
        yield wires, wires.host("asks", 2), wires.host("listens", 3)


def took(asks: Host, listens: Host) -> float:
    """Seconds that connecting takes; endless where it takes longer than a second."""
    with closing(listens.inside(lambda: socket.create_server((listens.address, PORT)))):
        began = time.monotonic()
        try:
            asks.inside(lambda: socket.create_connection((listens.address, PORT), timeout=1)).close()
        except TimeoutError:
            return float("inf")
        return time.monotonic() - began


def test_packets_are_lost_until_that_is_mended() -> None:
    with pair() as (wires, asks, listens):
        assert took(asks, listens) < 1
        wires.lose(asks, [listens.address])
        assert took(asks, listens) == float("inf")
        wires.mend(asks)
        assert took(asks, listens) < 1
        wires.plug(listens, into=False)
        assert took(asks, listens) == float("inf")


def test_packets_are_late_by_way_of_the_relay(tmp_path: Path) -> None:
    with pair() as (wires, asks, listens):
        relay = wires.host("relay", 4)
        server = Server(relay, [sys.executable, "-m", "tests.fleet.relay", "0.4"], tmp_path / "log")
        server.start()
        until(lambda: "iif eth0" in relay.ip("rule"), server.tail())
        wires.detour(asks, [listens.address], relay)
        assert took(asks, listens) >= 0.4
        wires.detour(asks, [listens.address], None)
        server.kill()
