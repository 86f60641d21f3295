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
_MAX_SESSIONS = 1000
_MAX_FAILURES_OF_BROWSER = 10
"""Failed log-ins of one browser before it has to wait."""
_MAX_KEYS_OF_ADDRESS = 100
"""Different keys that may fail at one address before unknown browsers there have to wait."""
_FAILURE_LIFETIME_S = 60.0
"""Seconds for which a failure counts."""
_MAX_COUNTED = 10_000
"""For how many browsers, and for how many addresses, failures are counted."""
_MAX_COOKIE_CHARS = 200
"""Longer cookies are cut; none of ours is so long."""

Clock = Callable[[], float]
"""Returns the time in seconds."""


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """The session that a log-in begins."""

    id: str
    digest: str
    """The hash of the key with which somebody logged in."""
    until: float
    """When it expires, by the clock of `ConsoleSessions`."""


class ConsoleSessions:
    """Holder of the open sessions (log-ins), and signer of cookies; if there are too many sessions, the oldest ends."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        """The signing key."""
        self._clock = clock
        self._open_sessions: OrderedDict[str, ConsoleSession] = OrderedDict()
        """The sessions by id, the oldest first."""

    def begin(self, digest: str) -> str:
        """Open a session for the owner of a key, given the key's hash, and return its cookie."""
        session = ConsoleSession(secrets.token_urlsafe(24), digest, self._clock() + LIFETIME_S)
        self._open_sessions[session.id] = session
        while len(self._open_sessions) > _MAX_SESSIONS:
            self._open_sessions.popitem(last=False)
        return self.sign(session.id)

    def find(self, cookie: str | None) -> ConsoleSession | None:
        """Return the session of a cookie; None if the cookie is forged, or the session expired or revoked."""
        session_id = self.verify(cookie)
        session = self._open_sessions.get(session_id) if session_id else None
        if session is not None and session.until <= self._clock():
            self.end(session)
            return None
        return session

    def is_open(self, session: ConsoleSession) -> bool:
        """Whether a session is still valid."""
        return self._open_sessions.get(session.id) is session and self._clock() < session.until

    def end(self, session: ConsoleSession) -> None:
        """Revoke a session, so that its cookie and any copy of it are no longer accepted."""
        self._open_sessions.pop(session.id, None)

    def sign(self, value: str) -> str:
        """Return the value with our signature appended, for a cookie."""
        return f"{value}.{self._compute_signature('cookie', value)}"

    def verify(self, cookie: str | None) -> str | None:
        """Return the value in a cookie that we signed; None if its signature is missing or wrong."""
        value, _, signature = (cookie or "")[:_MAX_COOKIE_CHARS].rpartition(".")
        if value and _equal_in_constant_time(signature, self._compute_signature("cookie", value)):
            return value
        return None

    def form_token(self, owner_id: str) -> str:
        """Return the token for forms of a session or, before log-in, of a browser; `owner_id` is its id."""
        return self._compute_signature("form", owner_id)

    def is_token_of(self, owner_id: str, token: str) -> bool:
        """Whether a form's token belongs to the session or browser with this id."""
        return _equal_in_constant_time(token, self.form_token(owner_id))

    def _compute_signature(self, use: str, value: str) -> str:
        """Return the signature (HMAC-SHA256) of a value for one use, "cookie" or "form"."""
        # the use is signed, too, so that a form's token is not a valid cookie
        return hmac.new(self._secret, f"{use}:{value}".encode(errors="replace"), hashlib.sha256).hexdigest()


def _equal_in_constant_time(first: str, second: str) -> bool:
    """Compare in constant time, so that the time reveals nothing; `first` is untrusted, so it may be no valid text."""
    return hmac.compare_digest(first.encode(errors="replace"), second.encode())


class LoginFailures:
    """Counter of recent failed log-ins, by browser and by network address.

    Behind a proxy everybody has the same address, so mistyped keys lock only one browser. An address is locked if many
    different keys fail there, because then somebody guesses keys; a key that is tried repeatedly counts once.
    A locked address does not affect a browser from which somebody has logged in before.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._times_by_browser: TTLCache[str, deque[float]] = TTLCache(_MAX_COUNTED, _FAILURE_LIFETIME_S, clock)
        """When log-ins failed, by the browser's id."""
        self._keys_by_address: TTLCache[str, dict[str, float]] = TTLCache(_MAX_COUNTED, _FAILURE_LIFETIME_S, clock)
        """For each address, when each key failed last there, by the key's hash; the last failure is last."""

    def must_wait(self, browser_id: str, address: str, *, is_known: bool) -> bool:
        """Whether a browser has to wait before it may log in, because of recent failures there or at its address.

        `is_known`: whether somebody has logged in from it before; then failures at its address do not count.
        """
        oldest_time = self._clock() - _FAILURE_LIFETIME_S
        failure_times = self._times_by_browser.get(browser_id, ())
        if sum(failed_at > oldest_time for failed_at in failure_times) >= _MAX_FAILURES_OF_BROWSER:
            return True
        if is_known:
            return False
        key_times = self._keys_by_address.get(address, {})
        return sum(failed_at > oldest_time for failed_at in key_times.values()) >= _MAX_KEYS_OF_ADDRESS

    def record(self, browser_id: str, address: str, key_hash: str) -> None:
        """Record a failed log-in with the key that has this hash; the same key counts only once for an address."""
        now = self._clock()
        failure_times = self._times_by_browser.get(browser_id) or deque(maxlen=_MAX_FAILURES_OF_BROWSER)
        failure_times.append(now)
        self._times_by_browser[browser_id] = failure_times
        key_times = self._keys_by_address.get(address) or {}
        # removed first, so that the key moves to the end of the dict, as the latest one
        key_times.pop(key_hash, None)
        key_times[key_hash] = now
        if len(key_times) > _MAX_KEYS_OF_ADDRESS:
            oldest_key = next(iter(key_times))
            del key_times[oldest_key]
        self._keys_by_address[address] = key_times
