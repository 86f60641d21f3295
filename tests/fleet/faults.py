"""Which faults befall the fleet? What causes and mends each, how it is seen that it was felt, what it may cost.

A cause is a block: its beginning is the fault, its end the mending. Clients ask from before the beginning on. Where
corrections may fail, `kinds` says by which classes of failure, and clients get what the policy says.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from aligner_proxy.types import FailureClass
from tests.fleet import load, settings
from tests.fleet.bed import DISK_MB, ENGINES, GATEWAYS, REDIS, Fleet

Cause = Callable[[Fleet], AbstractContextManager[None]]
Felt = Callable[[Fleet], float]
"""A number that grows where a fault was felt."""
DOWN = FailureClass.ENGINE_DOWN
TIMEOUT = FailureClass.TIMEOUT
UNRECORDED = "audit_unavailable"
STOPPED_S = 10.0
BOTH_STOPPED_S = 9.0
"""Long enough for the balancer to find both gone, and not for a deadline."""
AHEAD = "1 hour"
FIRST = GATEWAYS[0]
SECOND = GATEWAYS[1]


@dataclass(frozen=True)
class Fault:
    """What goes wrong."""

    title: str
    cause: Cause
    felt: Felt
    kinds: tuple[FailureClass, ...] = ()
    """By which a correction may fail meanwhile; none: every answer is corrected."""
    unrecorded: bool = False
    """Answers may be refused, whatever the policy, because they cannot be recorded."""
    asked_again: bool = False
    """A client's connection may break, so that it asks again; else nobody has to."""
    audit: str = settings.SHARED
    """Under which configuration of the gateways."""
    embedded: bool = False
    """With engines that run the embedded aligner; they do less by the second than scripted ones."""

    def may_give(self, policy: str, mode: str) -> list[str]:
        """What a client may get while it lasts, the best first."""
        # Where the record is required, nothing is delivered before it, and so nothing as it comes.
        as_it_comes = mode == "passthrough" and self.audit != settings.REQUIRED
        best = load.ORIGINAL if as_it_comes else load.CORRECTED
        refused = load.INSIDE if mode == "sentence" else load.ERROR
        if self.unrecorded:
            return [best, load.ERROR]
        if not self.kinds or mode == "passthrough":
            return [best]
        return [best, refused if policy == "block" else load.ORIGINAL]

    def told(self, policy: str, mode: str) -> str:
        """The same in the page's words."""
        best, *others = self.may_give(policy, mode)
        why = "not recorded" if self.unrecorded else " or ".join(kind.value for kind in self.kinds)
        return "".join([best, *(f", or {other} ({why})" for other in others)])


# How it is seen.


def left_out(fleet: Fleet) -> float:
    """How often the balancer found a gateway gone."""
    return fleet.downs()


def engine_avoided(fleet: Fleet) -> float:
    """How often a gateway left an engine alone, or all of them."""
    return fleet.logged(" unhealthy (") + fleet.metrics("aligner_breaker_opened_total")


def redis_failed(fleet: Fleet) -> float:
    """Calls of Redis that failed."""
    return fleet.metrics("aligner_redis_failures_total")


def audit_late(fleet: Fleet) -> float:
    """How often the audit store could not be written."""
    return fleet.logged("audit: ")


def packets_lost(fleet: Fleet) -> float:
    """Packets that had to be sent again."""
    return fleet.retransmitted(FIRST) + fleet.retransmitted(SECOND)


def asked(fleet: Fleet) -> float:
    """Corrections by engines."""
    return float(sum(len(fleet.corrected_by(name)) for name in ENGINES))


# What happens to hosts.


@contextlib.contextmanager
def waiting(fleet: Fleet) -> Iterator[None]:
    """Block at whose beginning requests are on their way, because corrections take two seconds."""
    for name in ENGINES:
        fleet.set_slow(name, 2)
    time.sleep(2)
    try:
        yield
    finally:
        for name in ENGINES:
            fleet.set_slow(name, 0)


@contextlib.contextmanager
def gateway_killed(fleet: Fleet) -> Iterator[None]:
    """All processes of a gateway end at once, while requests wait there for their corrections."""
    with waiting(fleet):
        fleet.servers[FIRST].kill()
    yield
    fleet.start_gateway(FIRST)
    fleet.wait_for_gateway(FIRST)


@contextlib.contextmanager
def gateway_gone(fleet: Fleet) -> Iterator[None]:
    """Its host is without power: nobody says that connections have ended."""
    with waiting(fleet):
        fleet.wires.plug(fleet.hosts[SECOND], into=False)
        fleet.servers[SECOND].kill()
    yield
    fleet.wires.plug(fleet.hosts[SECOND], into=True)
    fleet.start_gateway(SECOND)
    fleet.wait_for_gateway(SECOND)


@contextlib.contextmanager
def gateway_hung(fleet: Fleet) -> Iterator[None]:
    """A gateway is stopped and goes on later, as a virtual machine that is moved."""
    fleet.freeze(FIRST, frozen=True)
    time.sleep(STOPPED_S)
    fleet.freeze(FIRST, frozen=False)
    yield


@contextlib.contextmanager
def gateways_hung(fleet: Fleet) -> Iterator[None]:
    """All are stopped for a shorter time, as by a machine that is overloaded."""
    for name in GATEWAYS:
        fleet.freeze(name, frozen=True)
    time.sleep(BOTH_STOPPED_S)
    for name in GATEWAYS:
        fleet.freeze(name, frozen=False)
    yield


@contextlib.contextmanager
def engine_killed(fleet: Fleet) -> Iterator[None]:
    """One of two engines."""
    fleet.servers["engine-1"].kill()
    yield
    engine_back(fleet, "engine-1")


def engine_back(fleet: Fleet, name: str) -> None:
    """Start an engine again, and wait for it."""
    fleet.start_engine(name)
    fleet.wait_for(name, f"http://{fleet.address(name)}:{settings.ENGINE_PORT}/ready")


@contextlib.contextmanager
def engine_gone(fleet: Fleet) -> Iterator[None]:
    """The host of one of two engines is without power."""
    fleet.wires.plug(fleet.hosts["engine-2"], into=False)
    fleet.servers["engine-2"].kill()
    yield
    fleet.wires.plug(fleet.hosts["engine-2"], into=True)
    engine_back(fleet, "engine-2")


@contextlib.contextmanager
def engines_killed(fleet: Fleet) -> Iterator[None]:
    """Both."""
    for name in ENGINES:
        fleet.servers[name].kill()
    yield
    for name in ENGINES:
        engine_back(fleet, name)


@contextlib.contextmanager
def engine_slow(fleet: Fleet) -> Iterator[None]:
    """One of two takes 1.5 s for each correction."""
    fleet.set_slow("engine-1", 1.5)
    yield
    fleet.set_slow("engine-1", 0)


def _slow_corrections(fleet: Fleet) -> float:
    return float(len(fleet.corrected_by("engine-1")))


@contextlib.contextmanager
def database_killed(fleet: Fleet) -> Iterator[None]:
    """It ends at once, and comes back with what it has."""
    fleet.servers["database"].kill()
    yield
    fleet.start_database()


@contextlib.contextmanager
def redis_emptied(fleet: Fleet) -> Iterator[None]:
    """It ends at once, and is back at once with nothing."""
    fleet.servers[fleet.primary].kill()
    time.sleep(1)
    fleet.start_redis(fleet.primary)
    yield


@contextlib.contextmanager
def redis_gone(fleet: Fleet) -> Iterator[None]:
    """Its host is without power, and nobody takes its place."""
    name = fleet.primary
    fleet.wires.plug(fleet.hosts[name], into=False)
    yield
    fleet.wires.plug(fleet.hosts[name], into=True)


@contextlib.contextmanager
def redis_failed_over(fleet: Fleet) -> Iterator[None]:
    """Its host is without power, and the replica takes its place."""
    name = fleet.primary
    fleet.wires.plug(fleet.hosts[name], into=False)
    fleet.servers[name].kill()
    time.sleep(1)
    fleet.fail_over()
    yield
    fleet.wires.plug(fleet.hosts[name], into=True)
    fleet.start_redis(name)


@contextlib.contextmanager
def redis_not_promoted(fleet: Fleet) -> Iterator[None]:
    """The replica has its address before it takes writes."""
    fleet.fail_over(promote=False)
    yield
    fleet.redis(fleet.primary, "REPLICAOF", "NO", "ONE")
    fleet.redis(fleet.replica, "REPLICAOF", REDIS, str(settings.REDIS_PORT))


# What happens on the way.


def cut_off(gateways: Sequence[str], names: Sequence[str], percent: int = 100) -> Cause:
    """Packets between gateways and hosts are lost."""

    @contextlib.contextmanager
    def cause(fleet: Fleet) -> Iterator[None]:
        others = [REDIS if name == "redis" else fleet.address(name) for name in names]
        for gateway in gateways:
            fleet.wires.lose(fleet.hosts[gateway], others, percent)
        yield
        for gateway in gateways:
            fleet.wires.mend(fleet.hosts[gateway])

    return cause


def far_away(names: Sequence[str], seconds: float) -> Cause:
    """What the first gateway says to hosts arrives later."""

    @contextlib.contextmanager
    def cause(fleet: Fleet) -> Iterator[None]:
        with fleet.late(FIRST, [REDIS if name == "redis" else fleet.address(name) for name in names], seconds):
            yield

    return cause


def held_back(fleet: Fleet) -> float:
    """Packets that went by way of the relay; it counts anew for each fault."""
    return fleet.relayed()


# Disks and new versions.


@contextlib.contextmanager
def cache_full(fleet: Fleet) -> Iterator[None]:
    """The disk of a gateway is full, and Redis is away, in whose place it would serve."""
    with full_disk(fleet), redis_gone(fleet):
        yield


@contextlib.contextmanager
def full_disk(fleet: Fleet) -> Iterator[None]:
    """Nothing more fits on the disk of a gateway."""
    filler = fleet.servers[FIRST].inner(fleet.folder / f"{FIRST}-home" / "filler")
    with contextlib.suppress(OSError), filler.open("wb") as file:
        for _ in range(DISK_MB + 1):
            file.write(bytes(2**20))
            file.flush()
    yield
    filler.unlink()


def cache_failed(fleet: Fleet) -> float:
    """Failures of the cache on disk."""
    return fleet.metric("aligner_cache_store_failures_total", FIRST) + redis_failed(fleet)


@contextlib.contextmanager
def gateways_rolled(fleet: Fleet) -> Iterator[None]:
    """One gateway after the other ends and starts anew."""
    roll_gateways(fleet)
    yield


def roll_gateways(fleet: Fleet) -> None:
    """Replace both, so that one of them serves at any time."""
    for name in GATEWAYS:
        replace_gateway(fleet, name)


def replace_gateway(fleet: Fleet, name: str) -> None:
    """Let it end its work, and start another one in its place."""
    fleet.servers[name].stop()
    fleet.start_gateway(name)
    fleet.wait_for_gateway(name)


@contextlib.contextmanager
def clock_ahead(fleet: Fleet) -> Iterator[None]:
    """A gateway starts where it is an hour later, and later again where it is right."""
    fleet.clocks[FIRST] = AHEAD
    try:
        replace_gateway(fleet, FIRST)
        yield
    finally:
        del fleet.clocks[FIRST]
        replace_gateway(fleet, FIRST)


def clocks_apart(fleet: Fleet) -> float:
    """By how many minutes the clocks of both gateways differ."""
    one, other = (fleet.time_of(name) for name in GATEWAYS)
    return float(round(abs(one - other) / 60))


def rolled_to(aligner: str) -> Cause:
    """One engine after the other gets another aligner; for a while there are two."""

    @contextlib.contextmanager
    def cause(fleet: Fleet) -> Iterator[None]:
        for name in ENGINES:
            fleet.servers[name].stop()
            fleet.aligners[name] = aligner
            engine_back(fleet, name)
            time.sleep(4)  # both aligners for longer than gateways believe a description
        yield

    return cause


@contextlib.contextmanager
def all_rolled(fleet: Fleet) -> Iterator[None]:
    """Engines get another aligner, and then gateways are replaced."""
    with rolled_to("first")(fleet), gateways_rolled(fleet):
        yield


def starts(fleet: Fleet) -> float:
    """How many servers were started."""
    return float(fleet.started)


ALL = (
    Fault("engine: one of two is killed", engine_killed, engine_avoided),
    Fault("engine: the host of one of two is without power", engine_gone, engine_avoided, (DOWN, TIMEOUT)),
    Fault("engine: both are killed", engines_killed, engine_avoided, (DOWN, TIMEOUT)),
    Fault(
        "engine: one of two is killed, with the embedded aligner",
        engine_killed,
        engine_avoided,
        (DOWN, TIMEOUT),
        embedded=True,
    ),
    Fault("engine: one of two is slow", engine_slow, _slow_corrections),
    Fault(
        "network: a gateway is cut off from one of two engines",
        cut_off([FIRST], ["engine-1"]),
        engine_avoided,
        (DOWN, TIMEOUT),
    ),
    Fault(
        "network: a gateway is cut off from all engines",
        cut_off([FIRST], ENGINES),
        engine_avoided,
        (DOWN, TIMEOUT),
    ),
    Fault("network: a gateway is cut off from Redis", cut_off([FIRST], ["redis"]), redis_failed),
    Fault("network: a gateway is cut off from PostgreSQL", cut_off([FIRST], ["database"]), audit_late),
    Fault(
        "network: one packet in twenty to and from engines is lost",
        cut_off(GATEWAYS, ENGINES, 5),
        packets_lost,
        (DOWN, TIMEOUT),
    ),
    Fault("network: one packet in twenty to and from Redis is lost", cut_off(GATEWAYS, ["redis"], 5), packets_lost),
    Fault(
        "network: one packet in twenty between balancer and gateways is lost",
        cut_off(GATEWAYS, ["balancer"], 5),
        packets_lost,
    ),
    Fault("network: engines are 0.1 s away", far_away(ENGINES, 0.1), held_back),
    Fault("network: Redis is 0.1 s away", far_away(["redis"], 0.1), held_back),
    Fault("network: PostgreSQL is 0.5 s away", far_away(["database"], 0.5), held_back),
    Fault("redis: killed and started again, empty", redis_emptied, redis_failed),
    Fault("redis: its host is without power", redis_gone, redis_failed),
    Fault("redis: the replica takes its place", redis_failed_over, redis_failed),
    Fault("redis: a replica that takes no writes has its place", redis_not_promoted, redis_failed),
    Fault("database: killed and started again", database_killed, audit_late),
    Fault("disk: full where a gateway keeps corrections, and Redis is away", cache_full, cache_failed),
    Fault("gateway: killed", gateway_killed, left_out, asked_again=True),
    Fault("gateway: its host is without power", gateway_gone, left_out, asked_again=True),
    Fault("clock: a gateway's is an hour ahead", clock_ahead, clocks_apart),
    Fault("gateway: stopped for some seconds", gateway_hung, left_out, asked_again=True),
    Fault("gateway: both are stopped for some seconds", gateways_hung, left_out, (DOWN, TIMEOUT)),
    Fault("upgrade: the aligner, one engine after the other", rolled_to("second"), starts),
    Fault("upgrade: engines with another aligner, then gateways", all_rolled, starts),
    Fault("upgrade: one gateway after the other", gateways_rolled, starts),
    Fault(
        "audit required: a gateway is cut off from PostgreSQL",
        cut_off([FIRST], ["database"]),
        audit_late,
        unrecorded=True,
        audit=settings.REQUIRED,
    ),
    Fault(
        "audit required: PostgreSQL is killed and started again",
        database_killed,
        audit_late,
        unrecorded=True,
        audit=settings.REQUIRED,
    ),
    Fault("audit in a file: the disk of a gateway is full", full_disk, audit_late, audit=settings.FILED),
)
