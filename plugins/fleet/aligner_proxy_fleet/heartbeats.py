"""Heartbeats in the shared Redis: each process (a member) writes a few bytes, and reads what other members wrote.

Under one name there is a value for each member. Values expire by the server's time, so host clocks do not matter, and a
dead process soon disappears. One script reads and writes, so that both together are atomic.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

Heartbeats = Mapping[str, bytes]
"""The values of all other members, by member id."""
_MAX_MEMBERS = 10_000
"""Maximum members under a name. If there are more, the name is deleted: no fleet is so large, and reading so many would
block the server."""

# KEYS: the name. ARGV: member, its value (empty: the member leaves), milliseconds for which values are valid.
_SCRIPT = f"""
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local count = redis.pcall('HLEN', KEYS[1])
if type(count) ~= 'number' or count > {_MAX_MEMBERS} then redis.call('DEL', KEYS[1]) end
local said = redis.call('HGETALL', KEYS[1])
local others = {{}}
for i = 1, #said, 2 do
    local at, value = string.match(said[i + 1], '^(%d+):(.*)$')
    local age = at and now - tonumber(at)
    if not age or age < 0 or age > tonumber(ARGV[3]) then
        redis.call('HDEL', KEYS[1], said[i])
    elseif said[i] ~= ARGV[1] then
        others[#others + 1] = said[i]
        others[#others + 1] = value
    end
end
if ARGV[2] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now) .. ':' .. ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return others
"""


def make_member_id() -> str:
    """A random id for this process, of 16 hexadecimal digits."""
    return secrets.token_hex(8)


def heartbeat_arguments(name: str, member: str, value: bytes, valid_s: float) -> tuple[Any, ...]:
    """The arguments of EVAL that write a member's value (b"": remove it) for `valid_s` seconds and read the others."""
    return _SCRIPT, 1, name, member, value, max(1, int(valid_s * 1000))


def parse_heartbeats(answer: list[bytes]) -> Heartbeats:
    """Parse the reply to `heartbeat_arguments`, in which member ids and values alternate."""
    return {member.decode(errors="replace"): value for member, value in zip(answer[::2], answer[1::2], strict=True)}
