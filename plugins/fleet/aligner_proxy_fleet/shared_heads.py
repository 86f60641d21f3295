"""Replication of taught heads between hosts through Redis: teaching, rolling back and forgetting reach every host.

Each host stores its heads in its own store, as without Redis, and the commands that change the store do not know about
replication. Redis has a record with a revision for every combination of objective (scope, name, text) and aligner. Each
host remembers the last revision that it had, and a digest of it. A local change since then is sent as the next
revision; a newer revision in Redis is fetched. If both changed, the change that reached Redis first wins, and the log
reports it. If Redis loses its data, the hosts send theirs again.

Records and heads are encrypted like entries of the cache and bound to their objective and aligner, so that no tenant's
head is used for another. A head is accepted only if its bytes match the hash in the record, and it is for that text and
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
_LARGEST = MAX_HEAD_BYTES + 4096
"""Most bytes that are read of an entry: a head, and room for what the encryption adds."""
_KNOWN = "shared.json"
"""File in the store with the last known revisions."""
_LOCK = "shared.lock"
"""Lock file in the store; the process that holds its lock exchanges heads for the host."""
log = logging.getLogger("aligner_proxy.fleet")


class Record(BaseModel):
    """The record in Redis for one objective and aligner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: int = Field(ge=1, lt=2**53)
    taught: HeadHistory
    """The versions of the head, and which of them is active."""


class KnownRevision(BaseModel):
    """The last revision that this host had (0: none yet), and the digest of its history."""

    model_config = ConfigDict(frozen=True)

    revision: int = 0
    digest: str = ""


_ALL_KNOWN = TypeAdapter(dict[str, KnownRevision])
"""Revisions by the digest of their place."""
_NOTHING = HeadHistory()
"""The history where nothing was ever taught."""


class _NotUnderstood(Exception):
    """A valid record has a format that only another version understands, so it is left unchanged."""


@dataclass(slots=True)
class SharedHeads:
    """Replication of the heads of one policies file; on each host only one process does it."""

    server: RedisServer
    entries: EntryCodec
    _lock_file: int | None = field(default=None, init=False)
    """Descriptor of the locked file; None while another process of this host has the lock."""

    async def exchange(self, file: PolicyFile) -> bool:
        """Synchronise this host's heads with Redis; returns whether something was sent that other hosts may need.

        Raises `RedisAway`, `RedisRefused`, and `ConfigError` if the store cannot be read or written.
        """
        store = HeadStore.for_file(file)
        places = _list_places(file)
        if not places or not await asyncio.to_thread(self._try_to_lead, store):
            return False
        index = await asyncio.to_thread(store.index)
        revisions = await asyncio.to_thread(_read_revisions, store)
        anything_sent = False
        new_revisions = {}
        try:
            for place in places:
                own_history = index.objective(place.scope, place.name).history(place.aligner_name, place.text)
                last_known = revisions.get(place.digest, KnownRevision())
                head_exchange = _HeadExchange(self.server, self.entries, store, place, own_history, last_known)
                new_revisions[place.digest] = await head_exchange.run()
                anything_sent = anything_sent or head_exchange.has_sent
        finally:
            # Also after a failure midway, so that what was exchanged is not taken for a local change.
            if any(revisions.get(name) != revision for name, revision in new_revisions.items()):
                await asyncio.to_thread(_write_revisions, store, revisions | new_revisions)
        return anything_sent

    def close(self) -> None:
        """Release the lock, so that another process of this host can exchange heads."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _try_to_lead(self, store: HeadStore) -> bool:
        """Lock the store if no process of this host has; return whether this process exchanges heads for its host."""
        if self._lock_file is None:
            # A store that cannot be written could not take over heads, so such a host takes no part.
            with contextlib.suppress(OSError):
                store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(store.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(lock)
                else:
                    self._lock_file = lock
        return self._lock_file is not None


@dataclass(slots=True)
class _HeadExchange:
    """The exchange of the heads for one objective and aligner (`place`)."""

    server: RedisServer
    entries: EntryCodec
    store: HeadStore
    place: HeadPlace
    own_history: HeadHistory
    """What this host's store has now."""
    last_known: KnownRevision
    """What this host had after its last exchange."""
    has_sent: bool = False
    """Whether this exchange sent something to Redis."""

    async def run(self) -> KnownRevision:
        """Send or fetch, depending on the revisions; returns the revision that this host has now."""
        try:
            record = await self._read_record()
        except _NotUnderstood:
            return self.last_known
        # A host without any head (new, or its store was lost) changed nothing: it only fetches.
        changed = self.own_history != _NOTHING and self.own_history.digest != self.last_known.digest
        revision = record.revision if record else 0
        if record is not None and record.taught == self.own_history and revision >= self.last_known.revision:
            return await self._restore_lost_heads(record)
        # A lower revision than the last known one means that Redis lost data.
        if record is None or revision < self.last_known.revision or (revision == self.last_known.revision and changed):
            if self.own_history == _NOTHING:
                return self.last_known
            # A local change gets the next revision; data that Redis lost keep theirs. Revisions begin at 1.
            revision = max(1, self.last_known.revision + changed)
            return await self._send(Record(revision=revision, taught=self.own_history))
        return await self._fetch(record, replaces=changed)

    def _entry_name(self, head: str = "") -> str:
        """The name in Redis of the record for this objective and aligner, or of one of its heads."""
        kind = f"head:{head}" if head else "taught"
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
        """Read and verify the entry under a name; an invalid one is counted, logged and deleted, and gives None."""

        async def read_range(redis: Redis) -> Any:
            return await redis.getrange(name, 0, _LARGEST)

        entry = await self.server.ask(read_range)
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
        values = await asyncio.to_thread(self._pack_entries, record)
        if values is None:
            return self.last_known  # a head is missing here, and others must not get a record without its heads

        async def write_entries(redis: Redis) -> None:
            pipeline = redis.pipeline(transaction=False)
            for name, entry in values.items():
                pipeline.set(name, entry, px=int(LIVES_S * 1000))
            await pipeline.execute()

        await self.server.write(write_entries)
        self.has_sent = True
        HEADS_SHARED.labels("sent").inc()
        return KnownRevision(revision=record.revision, digest=record.taught.digest)

    def _pack_entries(self, record: Record) -> Mapping[str, bytes] | None:
        """The entries by name, the record last; None if a head is missing here or any cannot be packed."""
        contents = {self._entry_name(version.head): self.store.head(version.head) for version in record.taught.versions}
        contents[self._entry_name()] = record.model_dump_json().encode()
        packed = {name: content and self.entries.pack(name, content) for name, content in contents.items()}
        return {name: entry for name, entry in packed.items() if entry} if all(packed.values()) else None

    async def _restore_lost_heads(self, record: Record) -> KnownRevision:
        """Send this host's heads again if Redis has lost any that the record names; returns the record's revision.

        The record is the same here and in Redis, so this host has all of its heads.
        """
        names = [self._entry_name(version.head) for version in record.taught.versions]
        if names and await self.server.ask(lambda redis: redis.exists(*names)) < len(names):
            await self._send(record)
        return KnownRevision(revision=record.revision, digest=record.taught.digest)

    async def _fetch(self, record: Record, *, replaces: bool) -> KnownRevision:
        """Fetch the record's heads and activate them here, all or none; returns the revision that this host has now.

        `replaces`: this host's heads were changed, too, and that change is lost.
        """
        heads: dict[str, bytes] = {}
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
        if replaces:
            log.warning(
                "taught heads: %s was changed on this host and on another one at the same time; the other host's heads "
                "are active, run `aligner-proxy teach` to change them again",
                self.place.name,
            )
        HEADS_SHARED.labels("replaced" if replaces else "fetched").inc()
        log.info("taught heads: %s now has the heads of another host, revision %d", self.place.name, record.revision)
        return KnownRevision(revision=record.revision, digest=record.taught.digest)

    def _matches_version(self, version: Version, data: bytes) -> bool:
        """Whether these bytes are the head that a record names, for this text and the version's aligner."""
        try:
            head = TaughtHead.from_bytes(data)
        except MalformedHead:
            return False
        return (head.content_hash, head.objective, head.aligner) == (version.head, self.place.text, version.aligner)


def _list_places(file: PolicyFile) -> list[HeadPlace]:
    """All combinations of an objective with examples and an aligner in this file."""
    return [
        HeadPlace(subject.scope, subject.name, subject.text, aligner_name)
        for subject in subjects.list_subjects(file)
        for aligner_name in subjects.used_aligners(file)
    ]


def _read_revisions(store: HeadStore) -> dict[str, KnownRevision]:
    """This host's last known revisions, by the digest of their place; empty if the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return _ALL_KNOWN.validate_json((store.folder / _KNOWN).read_bytes())
    return {}


def _write_revisions(store: HeadStore, revisions: Mapping[str, KnownRevision]) -> None:
    """Store the last known revisions; a failure is ignored, and the next exchange compares again."""
    with contextlib.suppress(OSError):
        data = json.dumps({name: revision.model_dump() for name, revision in revisions.items()}, indent=1)
        write_atomically(store.folder / _KNOWN, data.encode())
