"""The test bed: a fleet in network namespaces of this machine, and what its hosts can be asked and told.

Clients reach two gateways (`aligner-proxy serve` with LiteLLM) through HAProxy; they share two engines, a Redis with a
replica, and a PostgreSQL; behind them is a scripted upstream. Redis answers at an address of its own, which the replica
takes over. Engines are scripted, or the embedded aligner on the CPU. Each gateway keeps its files on a small disk.
"""

from __future__ import annotations

import contextlib
import csv
import email.utils
import io
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.e2e.clients import MASTER_KEY
from tests.fleet import load, needs, settings
from tests.fleet.load import Answered
from tests.fleet.network import Host, Network, folder, network, processes_in, run
from tests.support import postgres_server

ROOT = Path(__file__).parents[2]
START_S = 180.0 if load.ALONE else 600.0
SOON_S = 60.0 if load.ALONE else 300.0
DISK_MB = 12
"""The disk of a gateway."""
REDIS = "10.77.0.10"
"""Where Redis answers, whichever host does."""
GATEWAYS = ("gateway-1", "gateway-2")
ENGINES = ("engine-1", "engine-2")
_NUMBERS = {
    "client": 2,
    "balancer": 3,
    "gateway-1": 21,
    "gateway-2": 22,
    "engine-1": 31,
    "engine-2": 32,
    "redis-1": 11,
    "redis-2": 12,
    "database": 15,
    "upstream": 40,
    "relay": 50,
}


def until(true: Callable[[], Any], what: str, within_s: float = SOON_S) -> None:
    """Wait for something that happens on other hosts."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@dataclass
class Server:
    """A process on a host, its output in a file."""

    host: Host
    command: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    disk: Path | None = None
    """A small disk of its own at this path, which ends with the process."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        command = self.host.command(self.command, user=self.user)
        if self.disk is not None:
            mounted = f'mount -t tmpfs -o size={DISK_MB}m,mode=700 aligner {self.disk} && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mounted, "sh", *command]
        # Other tests of the machine are not made late by it.
        command = command if load.ALONE else ["nice", "-n", "10", *command]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": needs.path(), **self.env}
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                command, stdout=sink, stderr=sink, env=env, start_new_session=True, cwd=self.log.parent
            )

    def inner(self, path: Path) -> Path:
        """A path as the process sees it, its own disk included."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{path}")

    def send(self, number: int) -> None:
        """Send a signal to it alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, within_s: float = 90.0) -> None:
        """End it, and wait."""
        if self.process is None:
            return
        self.process.send_signal(number)
        self.process.wait(within_s)
        self.process = None

    def kill(self) -> None:
        """SIGKILL for everything on its host."""
        for pid in processes_in(self.host.namespace):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(20)
            self.process = None

    def tail(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


class Fleet:
    """All hosts, running."""

    def __init__(self, wires: Network, place: Path) -> None:
        self.wires = wires
        self.folder = place
        self.hosts = {name: wires.host(name, number) for name, number in _NUMBERS.items()}
        self.audit = settings.SHARED
        self.primary = "redis-1"
        self.replica = "redis-2"
        self.aligners = dict.fromkeys(ENGINES, "first")
        self.embedded = False
        """Whether engines run the embedded aligner in their place."""
        self.clocks: dict[str, str] = {}
        """What time it is for a gateway that is started, in words of `date`, where it is not what it is."""
        self.servers: dict[str, Server] = {}
        self.started = 0
        """How many servers were started so far."""
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._clients: subprocess.Popen[bytes] | None = None
        self.hosts[self.primary].ip("address", "add", f"{REDIS}/24", "dev", "eth0")

    def address(self, name: str) -> str:
        """A host's address."""
        return self.hosts[name].address

    # What starts.

    def start(self) -> None:
        """Start everything; returns when clients are served."""
        self._write_files()
        for name in ("redis-1", "redis-2"):
            self.start_redis(name)
        self.start_database(new=True)
        self._start("upstream", self._python("tests.fleet.upstream", self.address("upstream"), settings.UPSTREAM_PORT))
        for name in ENGINES:
            self.start_engine(name)
        for name in ENGINES:
            self.wait_for(name, f"http://{self.address(name)}:{settings.ENGINE_PORT}/ready")
        for name in GATEWAYS:
            self.start_gateway(name)
        self._start_balancer()
        self._start_clients()
        for name in GATEWAYS:
            self.wait_for_gateway(name)

    def _write_files(self) -> None:
        upstream = self.address("upstream")
        (self.folder / "litellm.yaml").write_text(settings.litellm(upstream))
        (self.folder / "keys.yaml").write_text(settings.keys())
        self.write_policies()

    def write_policies(self) -> None:
        """The policies file that gateways read when they start."""
        engines = [self.address(name) for name in ENGINES]
        (self.folder / "policies.yaml").write_text(settings.policies(engines, self.audit))

    def _python(self, module: str, *words: object) -> list[str]:
        return [sys.executable, "-m", module, *map(str, words)]

    def _start(self, name: str, command: Sequence[str], **more: Any) -> Server:
        made = Server(self.hosts[name], command, self.folder / f"{name}.log", **more)
        made.start()
        self.servers[name] = made
        self.started += 1
        return made

    def start_redis(self, name: str) -> None:
        """An empty Redis; one that is not the primary follows it."""
        follow = [] if name == self.primary else ["--replicaof", REDIS, str(settings.REDIS_PORT)]
        options = ["--protected-mode", "no", "--save", "", "--maxmemory", "64mb", "--repl-diskless-sync-delay", "0"]
        place = self.folder / name
        place.mkdir(exist_ok=True)
        self._start(name, ["redis-server", *options, "--dir", str(place), *follow])
        until(lambda: self.redis(name, "PING"), f"{name}: {self.servers[name].tail()}")

    def start_database(self, *, new: bool = False) -> None:
        """PostgreSQL, with what it has unless it is new."""
        assert postgres_server.PROGRAM is not None
        place = self.folder / "database"
        if new:
            place.mkdir()
            shutil.chown(place, "postgres")
            made = [str(Path(postgres_server.PROGRAM).with_name("initdb")), "-D", str(place / "data"), "-U", "aligner"]
            subprocess.run(
                [*made, "-A", "trust", "--no-sync"], user="postgres", check=True, stdout=subprocess.DEVNULL, cwd=place
            )
            (place / "data" / "pg_hba.conf").write_text("host all all 10.77.0.0/24 trust\nlocal all all trust\n")
        options = ["-D", str(place / "data"), "-k", str(place), "-c", f"listen_addresses={self.address('database')}"]
        self._start("database", [postgres_server.PROGRAM, *options, "-c", "fsync=off"], user="postgres")
        until(lambda: self._database_answers(), self.servers["database"].tail())

    def start_engine(self, name: str) -> None:
        """An engine with the aligner that `aligners` names, or the embedded one; it may not be ready yet."""
        if self.embedded:
            words = ["engine", "--host", self.address(name), "--port", settings.ENGINE_PORT]
            self._start(name, self._python("aligner_proxy", *words), env={"OMP_NUM_THREADS": "1"})
            return
        where = (self.address(name), settings.ENGINE_PORT)
        files = (self.folder / f"{name}.slow", self.folder / f"{name}.calls")
        self._start(name, self._python("tests.fleet.engine", *where, self.aligners[name], *files))

    def start_gateway(self, name: str) -> None:
        """A gateway, with the files as they are now; it may not be ready yet."""
        home = self.folder / f"{name}-home"
        home.mkdir(exist_ok=True)
        own = self.folder / name
        own.mkdir(exist_ok=True)
        for file in ("litellm.yaml", "policies.yaml", "keys.yaml"):
            shutil.copy(self.folder / file, own / file)
        env = settings.environment(own, home, REDIS, self.address("database"))
        words = ["serve", "--config", own / "litellm.yaml", "--host", self.address(name)]
        words += ["--port", settings.GATEWAY_PORT, "--grace", 20]
        # It changes the time of day alone, and not what processes wait by.
        displaced = ["datefudge", self.clocks[name]] if name in self.clocks else []
        self._start(name, [*displaced, *self._python("aligner_proxy", *words)], env=env, disk=home)

    def _start_balancer(self) -> None:
        file = self.folder / "haproxy.cfg"
        gateways = {name: self.address(name) for name in GATEWAYS}
        file.write_text(settings.haproxy(gateways, self.folder / "haproxy.sock"))
        self._start("balancer", ["haproxy", "-W", "-db", "-f", str(file)])

    def _start_clients(self) -> None:
        words = self._python("tests.fleet.load", f"http://{self.address('balancer')}:{settings.GATEWAY_PORT}")
        command = self.hosts["client"].command(words)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": needs.path()}
        with (self.folder / "client.log").open("ab") as errors:
            self._clients = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env, start_new_session=True
            )

        self._lines = queue.Queue()  # what other clients said before is nobody's answer

        def read(lines: Any, into: queue.Queue[dict[str, Any]]) -> None:
            for line in lines:
                into.put(json.loads(line))

        threading.Thread(target=read, args=(self._clients.stdout, self._lines), daemon=True).start()

    def wait_for(self, name: str, url: str, within_s: float = START_S) -> None:
        """Until a server answers 200 on its own host."""
        server = self.servers[name]

        def answers() -> bool:
            assert server.process is not None
            assert server.process.poll() is None, f"{name} ended: {server.tail()}"
            try:
                return self.get(name, url).status_code == httpx.codes.OK
            except httpx.HTTPError:
                return False

        until(answers, f"{name} is not ready: {server.tail()}", within_s)

    def wait_for_gateway(self, name: str, within_s: float = START_S) -> None:
        """Until a gateway is ready, and the balancer sends requests to it."""
        # What the balancer says may still be of a gateway before, of whose end it has not heard yet.
        self.wait_for(name, f"http://{self.address(name)}:{settings.GATEWAY_PORT}/health/readiness", within_s)
        server = self.servers[name]
        until(
            lambda: (server.process is None or server.process.poll() is None) and self.balanced(name),
            f"the balancer never used {name}: {server.tail()}",
            within_s,
        )

    # What is asked.

    def get(self, name: str, url: str) -> httpx.Response:
        """A page, as somebody on this host gets it."""
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        return self.hosts[name].inside(lambda: httpx.get(url, timeout=10, trust_env=False, headers=headers))

    def metric(self, name: str, gateway: str) -> float:
        """The sum of a metric's samples whose line begins with `name`."""
        url = f"http://{self.address(gateway)}:{settings.GATEWAY_PORT}/metrics/"
        try:
            text = self.get(gateway, url).text
        except httpx.HTTPError:
            return 0.0
        return sum(map(float, re.findall(rf"^{re.escape(name)}\S* (\S+)$", text, re.MULTILINE)))

    def metrics(self, name: str) -> float:
        """The same over all gateways."""
        return sum(self.metric(name, gateway) for gateway in GATEWAYS)

    def time_of(self, gateway: str) -> float:
        """What time it is for a gateway, in seconds since 1970."""
        told = self.get(gateway, f"http://{self.address(gateway)}:{settings.GATEWAY_PORT}/health/liveliness")
        return email.utils.parsedate_to_datetime(told.headers["date"]).timestamp()

    def balanced(self, gateway: str) -> bool:
        """Whether the balancer sends requests to a gateway."""
        return self._balancer().get(gateway, {}).get("status", "").startswith("UP")

    def downs(self) -> float:
        """How often the balancer found a gateway gone."""
        return float(sum(int(row["chkdown"] or 0) for row in self._balancer().values()))

    def _balancer(self) -> dict[str, dict[str, str]]:
        """What the balancer knows of each gateway."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as console:
            console.connect(str(self.folder / "haproxy.sock"))
            console.sendall(b"show stat\n")
            answer = b"".join(iter(lambda: console.recv(65536), b"")).decode().removeprefix("# ")
            rows = csv.DictReader(io.StringIO(answer))
            return {row["svname"]: row for row in rows if row["pxname"] == "gateways" and row["svname"] in GATEWAYS}
        return {}

    def logged(self, text: str) -> float:
        """How often a text stands in what the gateways logged."""
        logs = [self.servers[name].log for name in GATEWAYS]
        return float(sum(log.read_text(errors="replace").count(text) for log in logs))

    def retransmitted(self, name: str) -> float:
        """TCP segments that a host had to send again."""
        lines = self.hosts[name].inside(lambda: Path("/proc/thread-self/net/snmp").read_text().splitlines())
        head, values = [line.split() for line in lines if line.startswith("Tcp:")]
        return float(values[head.index("RetransSegs")])

    def relayed(self) -> float:
        """Packets that the relay held back."""
        if "late" not in self.hosts["relay"].ip("link"):
            return 0.0
        told = json.loads(run("ip", "-n", self.hosts["relay"].namespace, "-j", "-s", "link", "show", "late"))
        return float(told[0]["stats64"]["rx"]["packets"])

    def redis(self, name: str, *words: str) -> Any:
        """A Redis' answer to one command; None where there is none."""
        import redis

        def ask() -> Any:
            with redis.Redis(host=self.address(name), port=settings.REDIS_PORT, socket_timeout=5) as client:
                return client.execute_command(*words)

        try:
            return self.hosts[name].inside(ask)
        except redis.RedisError:
            return None

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What the audit database answers."""
        url = f"postgresql://aligner@{self.address('database')}:{settings.DATABASE_PORT}/postgres"

        def ask() -> list[tuple[Any, ...]]:
            with psycopg.connect(url, connect_timeout=3, autocommit=True) as client:
                return client.execute(statement.encode()).fetchall()

        return self.hosts["database"].inside(ask)

    def _database_answers(self) -> bool:
        try:
            return bool(self.rows("SELECT 1"))
        except psycopg.Error:
            return False

    def corrected_by(self, name: str) -> list[str]:
        """The words of the questions that an engine corrected."""
        calls = self.folder / f"{name}.calls"
        return calls.read_text().split() if calls.exists() else []

    # What is done.

    @contextlib.contextmanager
    def load(self, phase: str, rate: float) -> Iterator[list[Answered]]:
        """A load while the block runs; when it has ended, the list holds what became of each request."""
        answers: list[Answered] = []
        self._order(begin=phase, rate=rate)
        try:
            yield answers
        finally:
            self._order(end=True)
            while "ended" not in (line := self._lines.get(timeout=load.GIVE_UP_S * 4)):
                answers.append(Answered(**line))

    def _order(self, **order: Any) -> None:
        assert self._clients is not None
        assert self._clients.stdin is not None
        self._clients.stdin.write(json.dumps(order).encode() + b"\n")
        self._clients.stdin.flush()

    def freeze(self, name: str, *, frozen: bool) -> None:
        """Stop all processes of a host, or let them go on."""
        for pid in processes_in(self.hosts[name].namespace):
            os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def set_slow(self, engine: str, seconds: float) -> None:
        """How long each of an engine's corrections takes."""
        (self.folder / f"{engine}.slow").write_text(str(seconds))

    @contextlib.contextmanager
    def late(self, gateway: str, to: Sequence[str], seconds: float) -> Iterator[None]:
        """Each packet of a gateway to these addresses arrives so much later."""
        relay = self._start("relay", self._python("tests.fleet.relay", seconds))
        until(lambda: "late" in self.hosts["relay"].ip("link"), relay.tail())
        until(lambda: "iif eth0" in self.hosts["relay"].ip("rule"), relay.tail())
        self.wires.detour(self.hosts[gateway], to, self.hosts["relay"])
        try:
            yield
        finally:
            self.wires.detour(self.hosts[gateway], to, None)
            relay.kill()
            self.hosts["relay"].ip("rule", "delete", "iif", "eth0")

    def fail_over(self, *, promote: bool = True) -> None:
        """Give Redis' address to the replica, which becomes the primary; whoever had it is not asked."""
        old = self.hosts[self.primary]
        new = self.hosts[self.replica]
        if promote:
            self.redis(self.replica, "REPLICAOF", "NO", "ONE")
        with contextlib.suppress(RuntimeError):
            old.ip("address", "delete", f"{REDIS}/24", "dev", "eth0")
        new.ip("address", "add", f"{REDIS}/24", "dev", "eth0")
        # Who takes an address over says so to the whole network, which then asks anew where it is.
        for host in self.hosts.values():
            host.ip("neighbour", "flush", "to", REDIS)
        self.primary = new.name
        self.replica = old.name

    def close(self) -> None:
        """End everything."""
        for server in self.servers.values():
            server.kill()
        if self._clients is not None:
            with self._clients as clients:
                clients.kill()


@contextlib.contextmanager
def fleet() -> Iterator[Fleet]:
    """A fleet that runs, and nothing of it afterwards."""
    with network() as wires, folder() as place:
        made = Fleet(wires, place)
        try:
            made.start()
            yield made
        finally:
            made.close()
