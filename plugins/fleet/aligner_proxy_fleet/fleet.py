"""Fleet: the gateway processes that share one Redis, and the check that all of them use the same files.

Each process publishes its active state: hashes of policies, keys and taught heads, and its release. A metric and
`aligner-proxy doctor` report differences. Files are never changed, because they belong to the operator. Taught heads
belong to the gateway and are replicated to every host (`shared_heads.py`).

States are compared every few seconds; an announcement makes the other processes compare at once. No request waits for
this.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligner_proxy import __version__
from aligner_proxy.concurrency import end_tasks
from aligner_proxy.errors import AlignerProxyError, ConfigError
from aligner_proxy.gateway.reload import Policies
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy_fleet.announcements import Announcements
from aligner_proxy_fleet.entries import ALTERED, EntryCodec
from aligner_proxy_fleet.errors import RedisAway, RedisRefused, RefusedEntry
from aligner_proxy_fleet.heartbeats import heartbeat_arguments, make_member_id, parse_heartbeats
from aligner_proxy_fleet.metrics import FLEET_DIFFERS, FLEET_GATEWAYS, REDIS_REFUSED
from aligner_proxy_fleet.server import RedisServer
from aligner_proxy_fleet.shared_heads import SharedHeads

LOOK_S = 1.0
"""Seconds between checks of a process's own state for changes."""
POLL_S = 5.0
"""Seconds between comparisons through Redis, without an announcement."""
GONE_AFTER_S = 3 * POLL_S
"""Seconds without a heartbeat after which a process counts as gone."""
COMPARED = ("policies", "keys", "heads", "release")
"""The fields in which hosts may differ."""
_SHOWN = 12
"""Hexadecimal digits of a hash; enough to tell states apart."""
log = logging.getLogger("aligner_proxy.fleet")


class MemberState(BaseModel):
    """The active state of one gateway process.

    `policies`, `keys` and `heads` are hashes, which show only whether two processes use the same ones.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str = Field(max_length=255)
    pid: int
    release: str = Field(max_length=64)
    policies: str = Field(max_length=64)
    keys: str = Field(max_length=64)
    heads: str = Field(max_length=64)


def policies_hash(file: PolicyFile) -> str:
    """Hash of the content of a policies file and of the files that it names, independent of its path and layout."""
    content = [file.model_dump(mode="json"), file.file_texts]
    return _hash_text(json.dumps(content, sort_keys=True, default=str))


def read_member_state(policies: Policies) -> MemberState:
    """Return the state of this process; hashes all of its policies, keys and heads, so call it in a thread."""
    current = policies.current
    heads = sorted(
        (scope, name, aligner, head)
        for scope, names in current.heads.index.scopes.items()
        for name, objective in names.items()
        for aligner, head in objective.current.items()
    )
    return MemberState(
        host=socket.gethostname()[:255],
        pid=os.getpid(),
        release=__version__,
        policies=policies_hash(current.file),
        keys=_hash_text(json.dumps([repr(policies.keys[key]) for key in sorted(policies.keys)])),
        heads=_hash_text(json.dumps(heads)),
    )


def _hash_text(text: str) -> str:
    """The first `_SHOWN` digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:_SHOWN]


@dataclass(slots=True)
class FleetHeartbeat:
    """Heartbeats of the gateway processes that share one Redis."""

    server: RedisServer
    entries: EntryCodec
    member: str = field(default_factory=make_member_id)
    """Random id of this process."""

    async def exchange(self, own_state: MemberState | None) -> list[MemberState]:
        """Publish the state of this process (unless None), and return the states of the others.

        Raises `RedisAway` and `RedisRefused`.
        """
        name = f"{self.entries.prefix}gateways"
        value = b""
        if own_state is not None:
            value = self.entries.pack(f"{name}:{self.member}", own_state.model_dump_json().encode()) or b""
        answer = await self.server.write(
            lambda redis: redis.eval(*heartbeat_arguments(name, self.member, value, GONE_AFTER_S))
        )
        return list(self._verify_states(name, parse_heartbeats(answer).items()))

    def _verify_states(self, name: str, heartbeats: Iterable[tuple[str, bytes]]) -> Iterable[MemberState]:
        """Decode the states in heartbeats; invalid ones are counted and skipped."""
        for member, entry in heartbeats:
            try:
                yield MemberState.model_validate_json(self.entries.unpack(f"{name}:{member}", entry))
            except RefusedEntry as error:
                REDIS_REFUSED.labels(error.reason).inc()
            except ValidationError:
                REDIS_REFUSED.labels(ALTERED).inc()


class Fleet:
    """This process as a member of the fleet: background tasks in the serving event loop, ended by `aclose`."""

    def __init__(self, server: RedisServer, policies: Policies) -> None:
        file = policies.current.file
        key = config.shared_cache_key(file)
        entries = EntryCodec(key)
        self._policies = policies
        self._heartbeat = FleetHeartbeat(server, entries)
        self._announcements = Announcements(server, entries.prefix)
        self._heads = SharedHeads(server, entries) if key else None
        """None without a key for encryption, as then no heads are shared."""
        self._reported_state: MemberState | None = None
        """The state that was published last; None if it has to be published again."""
        self._differing: dict[str, bool] = {}
        """For each of `COMPARED`: whether it differed at the last comparison."""
        self._fault = ""
        """Why heads could not be exchanged the last time; empty if they were."""
        self._woken = asyncio.Event()
        """Set by an announcement: states have to be compared now."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the background tasks; raises `RuntimeError` if no event loop runs."""
        loop = asyncio.get_running_loop()
        listening = self._announcements.listen(self._woken.set)
        self._tasks = [loop.create_task(self._look_repeatedly()), loop.create_task(listening)]

    async def aclose(self) -> None:
        """End the tasks, and let another process of this host exchange heads."""
        await end_tasks(*self._tasks)
        if self._heads is not None:
            self._heads.close()

    async def _look_repeatedly(self) -> None:
        """Call `look` when this process's state changes, on an announcement, and every `POLL_S` seconds."""
        loop = asyncio.get_running_loop()
        polled_at = -POLL_S
        hashed: tuple[object, ...] = ()
        while True:
            active = (self._policies.current, self._policies.keys)
            # A change replaces these objects, so comparing identities is enough, and hashes are computed only then.
            if not hashed or any(part is not hashed_part for part, hashed_part in zip(active, hashed, strict=True)):
                own_state = await asyncio.to_thread(read_member_state, self._policies)
                hashed = active
            if own_state != self._reported_state or self._woken.is_set() or loop.time() - polled_at >= POLL_S:
                self._woken.clear()
                polled_at = loop.time()
                await self.synchronise(own_state)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()

    async def synchronise(self, own_state: MemberState) -> None:
        """Exchange heads, publish the state of this process, and compare it with the others."""
        try:
            has_new_heads = await self._exchange_heads()
            others = await self._heartbeat.exchange(own_state)
            if has_new_heads or own_state != self._reported_state:
                await self._announcements.announce()
            self._reported_state = own_state
            self._compare(own_state, others)
        except (RedisAway, RedisRefused):
            self._reported_state = None  # publish it again when the server is back

    async def _exchange_heads(self) -> bool:
        """Exchange heads and return whether any were sent; a failing store is logged once and retried next time."""
        fault = ""
        try:
            return self._heads is not None and await self._heads.exchange(self._policies.current.file)
        except (ConfigError, OSError) as error:
            fault = str(error) if isinstance(error, AlignerProxyError) else type(error).__name__
            if fault != self._fault:
                log.warning("taught heads are not shared with other hosts: %s", fault)
            return False
        finally:
            self._fault = fault

    def _compare(self, own_state: MemberState, others: list[MemberState]) -> None:
        """Update the metrics of the fleet, and log each difference when it begins."""
        FLEET_GATEWAYS.set(1 + len(others))
        for name in COMPARED:
            other = next((state for state in others if getattr(state, name) != getattr(own_state, name)), None)
            FLEET_DIFFERS.labels(name).set(other is not None)
            if other is not None and not self._differing.get(name):
                log.warning(
                    "%s: host %s differs from this host; `aligner-proxy doctor` shows all hosts", name, other.host
                )
            self._differing[name] = other is not None
