"""Checks of `aligner-proxy doctor` for the Redis of a policies file, and for the gateways that share it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from aligner_proxy.plugins.findings import DoctorFinding, Severity
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.errors import RedisAway, RedisRefused
from aligner_proxy_fleet.fleet import COMPARED, FleetHeartbeat, MemberState, policies_hash
from aligner_proxy_fleet.server import RedisServer

_FLEET_FIXES = {
    "policies": "copy the same policies file and references to every host; gateways reload them automatically",
    "keys": "copy the same keys file to every host; gateways reload it automatically",
    "heads": "wait some seconds; hosts share heads only if cache.key_env is set and their policies are the same",
    "release": "install the same aligner-proxy everywhere; during a rolling upgrade this is normal",
}


def examine_redis(server: RedisServer, key: bytes | None, file: PolicyFile) -> Iterator[DoctorFinding]:
    """Check whether the Redis answers, whether its gateways agree, and what it does when its memory is full.

    `key` is the encryption key of its entries, None for no encryption.
    """
    url_variable = server.name
    try:
        server_info, gateway_states = asyncio.run(_read_redis_info(server, EntryCodec(key)))
    except (RedisAway, RedisRefused) as error:
        fix = "start it, or fix the URL; until it answers, each gateway works alone"
        yield DoctorFinding("redis", Severity.NOTE, f"the Redis in {url_variable} does not answer ({error})", fix)
        return
    encryption = "entries are encrypted" if key else "entries are not encrypted (cache.key_env)"
    version = server_info.get("redis_version", "?")
    used_memory = server_info.get("used_memory_human", "?")
    text = f"{version} in {url_variable}, {used_memory} used, {encryption}"
    yield DoctorFinding("redis", Severity.OK, text)
    # None if the Redis refuses writes
    if gateway_states is not None:
        yield from _check_fleet(gateway_states, file)
    if server_info.get("maxmemory_policy") == "noeviction":
        fix = "set maxmemory, and maxmemory-policy allkeys-lru"
        yield DoctorFinding("redis", Severity.NOTE, "it refuses writes when its memory is full (noeviction)", fix)


async def _read_redis_info(server: RedisServer, entries: EntryCodec) -> tuple[dict[str, Any], list[MemberState] | None]:
    """Read the server's INFO and the states of the gateways (None if it refuses writes); raises `RedisAway`.

    Closes the server's connections.
    """
    try:
        server_info: dict[str, Any] = await server.ask(lambda client: client.info())
        with contextlib.suppress(RedisRefused):
            # with None, this process does not appear as a gateway among the others
            return server_info, await FleetHeartbeat(server, entries).exchange(None)
        return server_info, None
    finally:
        await server.aclose()


def _check_fleet(gateway_states: Sequence[MemberState], file: PolicyFile) -> Iterator[DoctorFinding]:
    """Check whether the gateways that share a Redis use the same files and release, and this policies file."""
    if not gateway_states:
        yield DoctorFinding("fleet", Severity.NOTE, "no gateway has reported to the shared Redis lately", "start one")
        return
    text = f"{len(gateway_states)} gateway processes on {len({state.host for state in gateway_states})} hosts"
    hosts_by_value: dict[str, dict[str, set[str]]] = {name: {} for name in COMPARED}
    for name, hosts in hosts_by_value.items():
        for state in gateway_states:
            hosts.setdefault(str(getattr(state, name)), set()).add(state.host)
    if all(len(hosts) == 1 for hosts in hosts_by_value.values()):
        yield DoctorFinding("fleet", Severity.OK, f"{text}, all with the same {', '.join(COMPARED)}")
    for name, hosts in hosts_by_value.items():
        if len(hosts) > 1:
            differences = "; ".join(f"{value} on {', '.join(sorted(hosts[value]))}" for value in sorted(hosts))
            yield DoctorFinding("fleet", Severity.NOTE, f"{text}: {name} differ: {differences}", _FLEET_FIXES[name])
    own_hash = policies_hash(file)
    if own_hash not in hosts_by_value["policies"]:
        fix = "copy the same file to every host, or give doctor the one that they use"
        yield DoctorFinding("fleet", Severity.NOTE, f"no gateway uses this policies file ({own_hash})", fix)
