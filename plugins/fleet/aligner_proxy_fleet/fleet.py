"""Fleet: the gateway processes that share one Redis, and the check that all of them use the same files.

Each process publishes its state: hashes of policies, keys and taught heads, and its release. A metric and
`aligner-proxy doctor` report differences. Files are never changed, because they belong to the operator. Taught heads
belong to the gateway and are replicated to every host (`shared_heads.py`).

States are compared every few seconds, and at once after an announcement of another process. No request waits for a
comparison.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterator
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
from aligner_proxy_fleet.heartbeats import Heartbeats, heartbeat_arguments, make_member_id, parse_heartbeats
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
    """The state of one gateway process: its host, process id and release, and hashes of policies, keys and heads."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str = Field(max_length=255)
    pid: int
    release: str = Field(max_length=64)
    policies: str = Field(max_length=64)
    keys: str = Field(max_length=64)
    heads: str = Field(max_length=64)


def policies_hash(file: PolicyFile) -> str:
    """The hash of a policies file and of the files that it names; it does not depend on the file's path and layout."""
    content = [file.model_dump(mode="json"), file.file_texts]
    return _hash_text(json.dumps(content, sort_keys=True, default=str))


def read_member_state(policies: Policies) -> MemberState:
    """Return the state of this process; hashes all of its policies, keys and heads, so call it in a thread."""
    current = policies.current
    heads = sorted(
        (scope, name, aligner, head_hash)
        for scope, objectives in current.heads.index.scopes.items()
        for name, objective in objectives.items()
        for aligner, head_hash in objective.current.items()
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
    """Publishes this process's state, and reads the states of other gateway processes that share one Redis."""

    server: RedisServer
    entries: EntryCodec
    member: str = field(default_factory=make_member_id)
    """Random id of this process."""

    async def exchange(self, own_state: MemberState | None) -> list[MemberState]:
        """Publish the state of this process, and return the states of the others; with None, publish nothing.

        Raises `RedisAway` and `RedisRefused`.
        """
        name = f"{self.entries.prefix}gateways"
        entry = b""
        if own_state is not None:
            entry = self.entries.pack(f"{name}:{self.member}", own_state.model_dump_json().encode()) or b""
        reply = await self.server.write(
            lambda redis: redis.eval(*heartbeat_arguments(name, self.member, entry, GONE_AFTER_S))
        )
        return list(self._decode_states(name, parse_heartbeats(reply)))

    def _decode_states(self, name: str, heartbeats: Heartbeats) -> Iterator[MemberState]:
        """Decode the states in the heartbeats under `name`; invalid entries are counted in a metric and skipped."""
        for member, entry in heartbeats.items():
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
        key = config.encryption_key(file, "cache")
        entries = EntryCodec(key)
        self._policies = policies
        self._heartbeat = FleetHeartbeat(server, entries)
        self._announcements = Announcements(server, entries.prefix)
        self._heads = SharedHeads(server, entries) if key else None
        """None without an encryption key, because then no heads are shared."""
        self._published_state: MemberState | None = None
        """The state that was published last; None if it has to be published again."""
        self._has_difference: dict[str, bool] = {}
        """For each of `COMPARED`: whether it differed at the last comparison."""
        self._heads_fault = ""
        """Why heads could not be exchanged the last time; "" if they could."""
        self._announced = asyncio.Event()
        """Set by an announcement: states have to be compared now."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the background tasks; raises `RuntimeError` if no event loop runs."""
        loop = asyncio.get_running_loop()
        listening = self._announcements.listen(self._announced.set)
        self._tasks = [loop.create_task(self._synchronise_repeatedly()), loop.create_task(listening)]

    async def aclose(self) -> None:
        """End the background tasks, and let another process of this host exchange heads."""
        await end_tasks(*self._tasks)
        if self._heads is not None:
            self._heads.close()

    async def _synchronise_repeatedly(self) -> None:
        """Call `synchronise` when this process's state changes, on an announcement, and every `POLL_S` seconds."""
        loop = asyncio.get_running_loop()
        synchronised_at = -POLL_S
        hashed_policies: object = None
        hashed_keys: object = None
        while True:
            policies = self._policies.current
            keys = self._policies.keys
            # a change replaces these objects, so their identity shows whether the state has to be computed again
            if policies is not hashed_policies or keys is not hashed_keys:
                own_state = await asyncio.to_thread(read_member_state, self._policies)
                hashed_policies = policies
                hashed_keys = keys
            is_due = loop.time() - synchronised_at >= POLL_S
            if own_state != self._published_state or self._announced.is_set() or is_due:
                self._announced.clear()
                synchronised_at = loop.time()
                await self.synchronise(own_state)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._announced.wait()

    async def synchronise(self, own_state: MemberState) -> None:
        """Exchange heads, publish the state of this process, and compare it with the others."""
        try:
            has_new_heads = await self._exchange_heads()
            others = await self._heartbeat.exchange(own_state)
            if has_new_heads or own_state != self._published_state:
                await self._announcements.announce()
            self._published_state = own_state
            self._compare(own_state, others)
        except (RedisAway, RedisRefused):
            self._published_state = None  # so that it is published again when the server is back

    async def _exchange_heads(self) -> bool:
        """Exchange heads and return whether any were sent; the failure of a store is logged once."""
        if self._heads is None:
            return False
        fault = ""
        try:
            return await self._heads.exchange(self._policies.current.file)
        except (ConfigError, OSError) as error:
            fault = str(error) if isinstance(error, AlignerProxyError) else type(error).__name__
            if fault != self._heads_fault:
                log.warning("taught heads are not shared with other hosts: %s", fault)
            return False
        finally:
            self._heads_fault = fault

    def _compare(self, own_state: MemberState, others: list[MemberState]) -> None:
        """Update the metrics of the fleet, and log each difference when it begins."""
        FLEET_GATEWAYS.set(1 + len(others))
        for name in COMPARED:
            own_value = getattr(own_state, name)
            other = next((state for state in others if getattr(state, name) != own_value), None)
            FLEET_DIFFERS.labels(name).set(other is not None)
            if other is not None and not self._has_difference.get(name):
                log.warning(
                    "%s: host %s differs from this host; `aligner-proxy doctor` shows all hosts", name, other.host
                )
            self._has_difference[name] = other is not None
