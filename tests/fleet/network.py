"""Network of the test bed: one namespace a host, one bridge between them, and what can go wrong on the way.

Everything lies in namespaces: the machine's own network has no address, link or rule of the bed. Their names carry the
id of the run, which is that of the process that made them and when it started. So what a run left behind that was
killed is found, and ended, by the next one; processes in such a namespace can only be that run's.

Packets are lost by nftables. They are late by way of a relay (relay.py), a host through which they are routed, because
not every kernel has netem.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.fleet import needs

_NAMED = Path("/run/netns")
_PREFIX = "aligner-fleet"
_NAME = re.compile(rf"{_PREFIX}-(\d+)-(\d+)(?:-.+)?")
_SWITCH = "switch"
_NET = "10.77.0"
_TABLE = "bed"
_NEWNET = 0x40000000
_T = TypeVar("_T")


def run(*words: str, given: str | None = None) -> str:
    """What a command prints; raises with what it complained about."""
    done = subprocess.run(
        words, input=given, capture_output=True, text=True, check=False, env={**os.environ, "PATH": needs.path()}
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def started_at(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return None


def run_id() -> str:
    """The id of this process's run."""
    return f"{_PREFIX}-{os.getpid()}-{started_at(os.getpid())}"


def _stale(name: str) -> bool:
    """Whether a name is of a run whose process has ended."""
    found = _NAME.fullmatch(name)
    return bool(found) and started_at(int(found[1])) != int(found[2])


def remove_stale() -> list[str]:
    """End what runs left behind whose process is gone: processes in their namespaces, these, and their folders."""
    names = [one.name for one in _NAMED.iterdir() if _stale(one.name)] if _NAMED.exists() else []
    for name in names:
        end_namespace(name)
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}-*"):
        if _stale(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
    return names


def end_namespace(name: str) -> None:
    """Kill whoever lives in a namespace of a run, and remove it."""
    until = time.monotonic() + 10
    while (pids := processes_in(name)) and time.monotonic() < until:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    run("ip", "netns", "delete", name)


def processes_in(name: str) -> list[int]:
    """The processes whose network a namespace is."""
    return [int(pid) for pid in run("ip", "netns", "pids", name).split()]


@dataclass
class Host:
    """One host: its namespace and its address."""

    name: str
    namespace: str
    address: str

    @property
    def place(self) -> Path:
        """The file by which its namespace is entered."""
        return _NAMED / self.namespace

    def ip(self, *words: str) -> str:
        """A command of `ip` on this host."""
        return run("ip", "-n", self.namespace, *words)

    def nft(self, rules: str) -> None:
        """Rules of nftables on this host."""
        run("nsenter", f"--net={self.place}", "nft", "-f", "-", given=rules)

    def inside(self, work: Callable[[], _T]) -> _T:
        """What `work` gives, done on this host: by a thread of its own, of which alone the network changes."""
        done: list[_T] = []
        failed: list[BaseException] = []

        def enter() -> None:
            try:
                self.enter()
                done.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again where it was asked
                failed.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]

    def enter(self) -> None:
        """Let the thread that calls be on this host from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        with self.place.open() as file:
            if libc.setns(file.fileno(), _NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.namespace}")

    def command(self, words: Sequence[str], *, user: str | None = None) -> list[str]:
        """A command line on this host, which ends with the process that starts it."""
        other = [f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        return ["nsenter", f"--net={self.place}", "setpriv", "--pdeathsig", "KILL", *other, "--", *words]


@dataclass
class Network:
    """The hosts of one run, and the wires between them."""

    hosts: dict[str, Host] = field(default_factory=dict)
    number: int = field(default_factory=itertools.count().__next__)
    """Several may be there at once in one process."""
    _late: dict[tuple[str, str], None] = field(default_factory=dict)

    def host(self, name: str, number: int) -> Host:
        """A new host on the bridge."""
        if not self.hosts:
            self._namespace(_SWITCH)
            run("ip", "-n", self._named(_SWITCH), "link", "add", "bridge", "type", "bridge")
            run("ip", "-n", self._named(_SWITCH), "link", "set", "bridge", "up")
        made = Host(name, self._namespace(name), f"{_NET}.{number}")
        self.hosts[name] = made
        made.ip("link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", self._named(_SWITCH))
        run("ip", "-n", self._named(_SWITCH), "link", "set", "dev", name, "master", "bridge", "up")
        made.ip("address", "add", f"{made.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            made.ip("link", "set", link, "up")
        self.mend(made)
        return made

    def plug(self, host: Host, *, into: bool) -> None:
        """Put a host's plug into the bridge, or pull it: then its packets vanish, and nobody hears that it is gone."""
        run("ip", "-n", self._named(_SWITCH), "link", "set", "dev", host.name, "up" if into else "down")

    def lose(self, host: Host, others: Sequence[str], percent: int = 100) -> None:
        """Lose so many in a hundred packets between a host and these addresses, in both directions; all: cut off."""
        some = f"numgen random mod 100 < {percent} " if percent < 100 else ""
        there = ", ".join(others)
        host.nft(
            f"add rule ip {_TABLE} coming ip saddr {{ {there} }} {some}drop\n"
            f"add rule ip {_TABLE} going ip daddr {{ {there} }} {some}drop\n"
        )

    def mend(self, host: Host) -> None:
        """Lose nothing more at a host."""
        host.nft(
            f"table ip {_TABLE} {{\n"
            " chain coming {\n  type filter hook input priority 0;\n }\n"
            " chain going {\n  type filter hook output priority 0;\n }\n"
            f"}}\nflush table ip {_TABLE}\n"
        )

    def detour(self, host: Host, to: Sequence[str], relay: Host | None) -> None:
        """Send what a host says to these addresses by way of a relay; None: directly again."""
        for address in to:
            if relay is not None:
                host.ip("route", "replace", f"{address}/32", "via", relay.address)
            else:
                with contextlib.suppress(RuntimeError):  # it was never sent another way
                    host.ip("route", "delete", f"{address}/32")

    def close(self) -> None:
        """End all processes on all hosts, and the hosts."""
        for name in (*self.hosts, _SWITCH):
            if (_NAMED / self._named(name)).exists():
                end_namespace(self._named(name))
        self.hosts.clear()

    def _named(self, name: str) -> str:
        return f"{run_id()}-{self.number}-{name}"

    def _namespace(self, name: str) -> str:
        run("ip", "netns", "add", self._named(name))
        return self._named(name)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network without hosts; what stale runs left is removed first."""
    remove_stale()
    made = Network()
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that carries the run's id, into which other users may look."""
    made = Path(tempfile.gettempdir()) / run_id()
    made.mkdir(mode=0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
