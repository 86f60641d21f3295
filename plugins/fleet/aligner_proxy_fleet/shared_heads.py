"""Replication of taught heads between hosts through Redis: teaching, rolling back and forgetting reach every host.

Each host stores its heads in its own store, as without Redis, and the commands that change the store do not know about
replication. A place is a combination of objective (scope, name, text) and aligner; the versions of its head are its
history. Redis has a record for each place: its history, with a revision number. Each host remembers the revision and
the digest of the history that it had last. If its history has changed since then, it sends it as the next revision; it
fetches a newer revision from Redis. If both have changed, the change that reached Redis first wins, and the log reports
it. If Redis loses its data, the hosts send their histories again.

Records and heads are encrypted like entries of the cache and bound to their place, so that no tenant's head is used for
another tenant. A head is accepted only if its bytes match the hash in the record, and if it is for the place's text and
aligner. Without a key nothing is shared, because anyone who can write to Redis could turn an objective off.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from aligner_proxy.engine.taught_head import MAX_HEAD_BYTES, TaughtHead
from aligner_proxy.errors import MalformedHead
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching import subjects
from aligner_proxy.teaching.rows import write_atomically
from aligner_proxy.teaching.store import HeadHistory, HeadPlace, HeadStore, Version
from aligner_proxy_fleet.entries import ALTERED, EntryCodec
from aligner_proxy_fleet.errors import RefusedEntry
from aligner_proxy_fleet.metrics import HEADS_SHARED, REDIS_REFUSED
from aligner_proxy_fleet.server import RedisServer

if TYPE_CHECKING:
    from redis.asyncio import Redis

LIVES_S = 86_400.0
"""Lifetime in seconds of records and heads in Redis; hosts send them again when they have expired."""
_MAX_ENTRY_BYTES = MAX_HEAD_BYTES + 4096
"""Most bytes that are read of an entry: a head, and room for what the encryption adds."""
_REVISIONS_FILE = "shared.json"
"""File in the store with the last known revisions."""
_LOCK_FILE = "shared.lock"
"""Lock file in the store; the process that holds its lock exchanges heads for the host."""
log = logging.getLogger("aligner_proxy.fleet")


class Record(BaseModel):
    """The record in Redis for one place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: int = Field(ge=1, lt=2**53)
    taught: HeadHistory
    """The versions of the head, and which of them is active."""


class KnownRevision(BaseModel):
    """The last revision that this host had of a place, and the digest of its history."""

    model_config = ConfigDict(frozen=True)

    revision: int = 0
    """0 before the first exchange."""
    digest: str = ""


_REVISIONS = TypeAdapter(dict[str, KnownRevision])
"""The last known revisions, by the digest of their place."""
_EMPTY_HISTORY = HeadHistory()
"""The history of a place where nothing was ever taught."""


class _NotUnderstood(Exception):
    """A record is intact, but this version does not understand it, so it is left unchanged."""


@dataclass(slots=True)
class SharedHeads:
    """Replication of the heads of one policies file; on each host only one process replicates."""

    server: RedisServer
    entries: EntryCodec
    _lock_file: int | None = field(default=None, init=False)
    """Descriptor of the locked file; None while another process of this host has the lock."""

    async def exchange(self, file: PolicyFile) -> bool:
        """Synchronise this host's heads with Redis; returns whether heads were sent, which other hosts then fetch.

        Raises `RedisAway`, `RedisRefused`, and `ConfigError` if the store cannot be read or written.
        """
        store = HeadStore.for_file(file)
        places = _list_places(file)
        if not places or not await asyncio.to_thread(self._try_to_lock, store):
            return False
        index = await asyncio.to_thread(store.index)
        revisions = await asyncio.to_thread(_read_revisions, store)
        has_sent = False
        new_revisions = {}
        try:
            for place in places:
                own_history = index.objective(place.scope, place.name).history(place.aligner_name, place.text)
                last_known = revisions.get(place.digest, KnownRevision())
                head_exchange = _HeadExchange(self.server, self.entries, store, place, own_history, last_known)
                new_revisions[place.digest] = await head_exchange.run()
                has_sent = has_sent or head_exchange.has_sent
        finally:
            # also after a failure, so that a history that was fetched before it does not count as a local change
            all_revisions = revisions | new_revisions
            if all_revisions != revisions:
                await asyncio.to_thread(_write_revisions, store, all_revisions)
        return has_sent

    def close(self) -> None:
        """Release the lock, so that another process of this host can exchange heads."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _try_to_lock(self, store: HeadStore) -> bool:
        """Lock the store if no process of this host has locked it; return whether this process has the lock now."""
        if self._lock_file is None:
            # errors are ignored: a store that cannot be written cannot store fetched heads, so its host takes no part
            with contextlib.suppress(OSError):
                store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock_file = os.open(store.folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(lock_file)
                else:
                    self._lock_file = lock_file
        return self._lock_file is not None


@dataclass(slots=True)
class _HeadExchange:
    """The exchange of the taught heads of one place (an objective and an aligner) between this host and Redis. Redis
    has a record for each place: the history of its heads, and a revision, which counts the changes."""

    server: RedisServer
    entries: EntryCodec
    store: HeadStore
    place: HeadPlace
    own_history: HeadHistory
    """The history that this host's store has now."""
    last_known: KnownRevision
    """The revision that this host had after its last exchange."""
    has_sent: bool = False
    """Whether this exchange sent heads to Redis."""

    async def run(self) -> KnownRevision:
        """Send this host's heads to Redis or fetch newer heads from it; returns the revision that this host has now."""
        try:
            record = await self._read_record()
        except _NotUnderstood:
            return self.last_known
        # a host without any head (new, or its store was lost) has changed nothing: it only fetches
        has_local_change = self.own_history != _EMPTY_HISTORY and self.own_history.digest != self.last_known.digest
        revision = record.revision if record else 0
        if record is not None and record.taught == self.own_history and revision >= self.last_known.revision:
            return await self._restore_lost_heads(record)
        # a lower revision than the last known one means that Redis has lost data
        has_lost_data = revision < self.last_known.revision
        if record is None or has_lost_data or (revision == self.last_known.revision and has_local_change):
            if self.own_history == _EMPTY_HISTORY:
                return self.last_known
            # A local change gets the next revision; heads that Redis has lost keep theirs. Revisions begin at 1.
            revision = self.last_known.revision + 1 if has_local_change else max(1, self.last_known.revision)
            return await self._send(Record(revision=revision, taught=self.own_history))
        return await self._fetch(record, replaces_local_change=has_local_change)

    def _entry_name(self, head_hash: str = "") -> str:
        """The name in Redis of the head with this hash, or without a hash, of the place's record."""
        kind = f"head:{head_hash}" if head_hash else "taught"
        return f"{self.entries.prefix}{kind}:{self.place.digest}"

    async def _read_record(self) -> Record | None:
        """Read the record in Redis; None if there is no valid one. Raises `_NotUnderstood`."""
        content = await self._read_entry(self._entry_name())
        if content is None:
            return None
        try:
            record = Record.model_validate_json(content)
            record.taught.check_place(self.place)
            return record
        except ValueError:
            log.warning("taught heads: another gateway's record cannot be read; use the same version everywhere")
            raise _NotUnderstood from None

    async def _read_entry(self, name: str) -> bytes | None:
        """The verified content of the entry `name`; None if there is no valid one. An invalid entry is deleted."""

        entry: Any = await self.server.ask(lambda redis: redis.getrange(name, 0, _MAX_ENTRY_BYTES))
        if not entry:
            return None
        try:
            return self.entries.unpack(name, entry)
        except RefusedEntry as error:
            await self._drop_invalid_entry(name, error.reason)
            return None

    async def _drop_invalid_entry(self, name: str, reason: str) -> None:
        """Count, log and delete an invalid entry."""
        REDIS_REFUSED.labels(reason).inc()
        log.warning("taught heads: an entry of place %s is %s and was dropped", self.place.digest[:12], reason)
        await self.server.write(lambda redis: redis.unlink(name))

    async def _send(self, record: Record) -> KnownRevision:
        """Send this host's heads to Redis, then the record that names them; returns this host's revision."""
        entries = await asyncio.to_thread(self._pack_entries, record)
        if entries is None:
            return self.last_known  # a head is missing here, and other hosts must not get a record without its heads

        async def write_entries(redis: Redis) -> None:
            pipeline = redis.pipeline(transaction=False)
            for name, entry in entries.items():
                pipeline.set(name, entry, px=int(LIVES_S * 1000))
            await pipeline.execute()

        await self.server.write(write_entries)
        self.has_sent = True
        HEADS_SHARED.labels("sent").inc()
        return KnownRevision(revision=record.revision, digest=record.taught.digest)

    def _pack_entries(self, record: Record) -> Mapping[str, bytes] | None:
        """The entries of a record and its heads by name, the record last; None if one is missing or too large."""
        contents = {self._entry_name(version.head): self.store.head(version.head) for version in record.taught.versions}
        contents[self._entry_name()] = record.model_dump_json().encode()
        entries: dict[str, bytes] = {}
        for name, content in contents.items():
            entry = self.entries.pack(name, content) if content else None
            if not entry:
                return None
            entries[name] = entry
        return entries

    async def _restore_lost_heads(self, record: Record) -> KnownRevision:
        """Send this host's heads again if Redis has lost any that the record names; returns the record's revision.

        The history is the same here and in Redis, so this host has all of its heads.
        """
        names = [self._entry_name(version.head) for version in record.taught.versions]
        if names and await self.server.ask(lambda redis: redis.exists(*names)) < len(names):
            await self._send(record)
        return KnownRevision(revision=record.revision, digest=record.taught.digest)

    async def _fetch(self, record: Record, *, replaces_local_change: bool) -> KnownRevision:
        """Fetch the record's heads and activate them here, all or none; returns the revision that this host has now.

        `replaces_local_change` says whether this host's heads were changed, too; the change is then lost.
        """
        heads: dict[str, bytes] = {}  # that are missing here, by hash
        for version in record.taught.versions:
            if await asyncio.to_thread(self.store.head, version.head) is not None:
                continue
            name = self._entry_name(version.head)
            head = await self._read_entry(name)
            if head is None:
                return self.last_known  # a host that has this head will send it again
            if not self._matches_version(version, head):
                await self._drop_invalid_entry(name, ALTERED)
                return self.last_known
            heads[version.head] = head
        if not await asyncio.to_thread(self.store.replace_history, self.place, self.own_history, record.taught, heads):
            return self.last_known  # the store was changed meanwhile; the next exchange compares again
        if replaces_local_change:
            log.warning(
                "taught heads: %s was changed on this host and on another one at the same time; the other host's heads "
                "are active, run `aligner-proxy teach` to change them again",
                self.place.name,
            )
        HEADS_SHARED.labels("replaced" if replaces_local_change else "fetched").inc()
        log.info("taught heads: %s now has the heads of another host, revision %d", self.place.name, record.revision)
        return KnownRevision(revision=record.revision, digest=record.taught.digest)

    def _matches_version(self, version: Version, data: bytes) -> bool:
        """Whether these bytes are the head of a version: with its hash and aligner, and for the place's text."""
        try:
            head = TaughtHead.from_bytes(data)
        except MalformedHead:
            return False
        return (head.content_hash, head.objective, head.aligner) == (version.head, self.place.text, version.aligner)


def _list_places(file: PolicyFile) -> list[HeadPlace]:
    """The places of a policies file: each objective with examples, with each aligner."""
    return [
        HeadPlace(subject.scope, subject.name, subject.text, aligner_name)
        for subject in subjects.list_subjects(file)
        for aligner_name in subjects.used_aligners(file)
    ]


def _read_revisions(store: HeadStore) -> dict[str, KnownRevision]:
    """This host's last known revisions, by the digest of their place; empty if the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return _REVISIONS.validate_json((store.folder / _REVISIONS_FILE).read_bytes())
    return {}


def _write_revisions(store: HeadStore, revisions: Mapping[str, KnownRevision]) -> None:
    """Store the last known revisions; a failure is ignored, and the next exchange compares again."""
    with contextlib.suppress(OSError):
        content = json.dumps({digest: revision.model_dump() for digest, revision in revisions.items()}, indent=1)
        write_atomically(store.folder / _REVISIONS_FILE, content.encode())
