"""Open files that a server may have: raised at the start as far as the system allows, compared with its connections.

A process without a free descriptor takes no connection and reaches no upstream, and says so only in the middle of the
night. So a limit that is too low is said at the start, with what to change.
"""

from __future__ import annotations

import logging
import resource

from aligner_proxy.errors import ConfigError

RESERVE = 256
"""Descriptors of a process beside its connections: libraries, logs, stores, sockets."""
OF_REQUEST = 3
"""Descriptors of a request in the gateway: its client, its upstream, the engine."""
_ENOUGH = 1 << 16
log = logging.getLogger(__name__)


def allow_connections(connections: int, each: int = 1) -> None:
    """Let this process and its children have descriptors for these connections, `each` so many.

    Raises `ConfigError` where not even the connections fit, and logs a warning where they fit without what they need.
    """
    limit = _raise_limit(max(_ENOUGH, connections * each + RESERVE))
    fix = "raise the hard limit (LimitNOFILE= of systemd, --ulimit nofile= of docker, ulimit -Hn)"
    if limit < connections + RESERVE:
        fits = max(1, (limit - RESERVE) // each)
        raise ConfigError(
            f"--connections {connections} needs {connections + RESERVE} open files and this process may have {limit}, "
            f"its hard limit; {fix}, or give --connections {fits}"
        )
    if limit < connections * each + RESERVE:
        log.warning(
            "open files: this process may have %d, its hard limit, and --connections %d needs up to %d; %s, or "
            "give --connections %d",
            limit,
            connections,
            connections * each + RESERVE,
            fix,
            (limit - RESERVE) // each,
        )


def fit_connections(connections: int) -> int:
    """So many connections, or those for which this process may have descriptors."""
    limit = _raise_limit(max(_ENOUGH, connections + RESERVE))
    fits = max(1, min(connections, limit - RESERVE))
    if fits < connections:
        log.warning("this process may have %d open files, so it takes %d connections, not %d", limit, fits, connections)
    return fits


def _raise_limit(target: int) -> int:
    """The limit of open files, after it was raised towards `wanted` as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = target if hard == resource.RLIM_INFINITY else min(target, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return target if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ValueError, OSError):
        return soft
    log.info("open files: limit raised from %d to %d", soft, most)
    return most
