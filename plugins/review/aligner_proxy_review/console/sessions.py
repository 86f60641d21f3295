"""Sessions of the console: signed cookies that expire and can be revoked, and tokens against forged forms.

The signing key is generated at the start and kept only in memory, so a restart ends every session.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TTLCache

LIFETIME_S = 8 * 3600.0
"""Seconds until a session expires."""
_MAX_SESSIONS = 1000
"""How many sessions may be open at a time."""
_MAX_FAILURES_OF_BROWSER = 10
"""Failed log-ins of one browser before it has to wait."""
_MAX_KEYS_OF_ADDRESS = 100
"""Different keys that may fail at one address before unknown browsers there have to wait."""
_FAILURE_COUNTS_S = 60.0
"""Seconds for which a failure counts."""
_MAX_COUNTED = 10_000
"""For how many browsers, and for how many addresses, failures are counted."""
_LONGEST_COOKIE = 200
"""Longer cookies are cut; none of ours is so long."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """One log-in: its id, the hash of the key used, and when it expires."""

    id: str
    digest: str
    until: float
    """By the clock of `ConsoleSessions`."""


class ConsoleSessions:
    """The open sessions; the oldest is dropped when there are too many."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        """The signing key."""
        self._clock = clock
        self._open: OrderedDict[str, ConsoleSession] = OrderedDict()
        """By id, the oldest first."""

    def begin(self, digest: str) -> str:
        """Open a session for the owner of a key, given the key's hash, and return its cookie."""
        session = ConsoleSession(secrets.token_urlsafe(24), digest, self._clock() + LIFETIME_S)
        self._open[session.id] = session
        while len(self._open) > _MAX_SESSIONS:
            # the oldest one
            self._open.popitem(last=False)
        return self.sign(session.id)

    def find(self, cookie: str | None) -> ConsoleSession | None:
        """Return the session of a cookie; None if it is forged, expired or revoked."""
        name = self.verify(cookie)
        session = self._open.get(name) if name else None
        if session is not None and session.until <= self._clock():
            self.end(session)
            return None
        return session

    def is_open(self, session: ConsoleSession) -> bool:
        """Whether a session is still valid."""
        return self._open.get(session.id) is session and self._clock() < session.until

    def end(self, session: ConsoleSession) -> None:
        """Revoke a session, so that its cookie and any copy of it are no longer accepted."""
        self._open.pop(session.id, None)

    def sign(self, value: str) -> str:
        """The value with our signature appended."""
        return f"{value}.{self._compute_signature('cookie', value)}"

    def verify(self, cookie: str | None) -> str | None:
        """Return the value in a cookie that we signed; None if its signature is missing or wrong."""
        value, _, mac = (cookie or "")[:_LONGEST_COOKIE].rpartition(".")
        return value if value and _equal_in_constant_time(mac, self._compute_signature("cookie", value)) else None

    def form_token(self, name: str) -> str:
        """The token for forms of a session, or before log-in of a browser."""
        return self._compute_signature("form", name)

    def owns_token(self, token: str, name: str) -> bool:
        """Whether a form's token belongs to this session or browser."""
        return _equal_in_constant_time(token, self.form_token(name))

    def _compute_signature(self, use: str, value: str) -> str:
        """The signature (HMAC-SHA256) of a value for one use, "cookie" or "form"."""
        # the use is signed too, so that a form's token is no valid cookie
        return hmac.new(self._secret, f"{use}:{value}".encode(errors="replace"), hashlib.sha256).hexdigest()


def _equal_in_constant_time(first: str, second: str) -> bool:
    """Compare in constant time; `first` is untrusted."""
    return hmac.compare_digest(first.encode(errors="replace"), second.encode())


class LoginFailures:
    """Recent failed log-ins, by browser and by address.

    Behind a proxy everybody has the same address, so mistyped keys lock only the browser, not its colleagues. An
    address is locked when many different keys fail there, because that is guessing; a key tried repeatedly counts once.
    A locked address does not affect a browser that has logged in before.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._of_browsers: TTLCache[str, deque[float]] = TTLCache(_MAX_COUNTED, _FAILURE_COUNTS_S, clock)
        """By browser: when log-ins failed."""
        self._of_addresses: TTLCache[str, dict[str, float]] = TTLCache(_MAX_COUNTED, _FAILURE_COUNTS_S, clock)
        """By address: the hashes of the keys that failed, each with its last time, the latest last."""

    def too_many(self, browser: str, address: str, *, is_known: bool) -> bool:
        """Whether this browser has to wait; `is_known`: somebody has logged in from it before."""
        oldest = self._clock() - _FAILURE_COUNTS_S
        if sum(at > oldest for at in self._of_browsers.get(browser, ())) >= _MAX_FAILURES_OF_BROWSER:
            return True
        keys = self._of_addresses.get(address, {})
        return not is_known and sum(at > oldest for at in keys.values()) >= _MAX_KEYS_OF_ADDRESS

    def record(self, browser: str, address: str, key: str) -> None:
        """Record a failed log-in; `key` is the hash of the key that was tried."""
        now = self._clock()
        times = self._of_browsers.get(browser) or deque(maxlen=_MAX_FAILURES_OF_BROWSER)
        times.append(now)
        self._of_browsers[browser] = times
        keys = self._of_addresses.get(address) or {}
        # so that the key moves to the end, as the latest one
        keys.pop(key, None)
        keys[key] = now
        if len(keys) > _MAX_KEYS_OF_ADDRESS:
            del keys[next(iter(keys))]  # the one whose last try is the oldest
        self._of_addresses[address] = keys
