"""Limit of open files: raised at startup as far as the system allows, and compared with the connection limit.

A process without free file descriptors accepts no connections and reaches no upstream. Therefore a limit that is too
low is reported at startup, with the fix.
"""

from __future__ import annotations

import logging
import resource

from aligner_proxy.errors import ConfigError

RESERVE = 256
"""Descriptors that a process needs apart from its connections: libraries, logs, stores, sockets."""
FILES_PER_REQUEST = 3
"""Descriptors that a request needs in the gateway: for its client, its upstream and the engine."""
_LEAST_LIMIT = 1 << 16
"""Descriptors that are asked for in any case, even if the connections need fewer."""
log = logging.getLogger(__name__)


def allow_connections(connections: int, files_each: int = 1) -> None:
    """Raise the limit of open files of this process and its children to `files_each` for each of these connections.

    Raises `ConfigError` if the hard limit is too low for even one descriptor per connection, and logs a warning if it
    is too low for `files_each` of them.
    """
    limit = _raise_limit(max(_LEAST_LIMIT, connections * files_each + RESERVE))
    fix = "raise the hard limit (LimitNOFILE= of systemd, --ulimit nofile= of docker, ulimit -Hn)"
    if limit < connections + RESERVE:
        allowed_connections = max(1, (limit - RESERVE) // files_each)
        raise ConfigError(
            f"--connections {connections} needs {connections + RESERVE} open files, but the hard limit of this process "
            f"is {limit}; {fix}, or use --connections {allowed_connections}"
        )
    if limit < connections * files_each + RESERVE:
        log.warning(
            "open files: the hard limit of this process is %d, but --connections %d needs up to %d; %s, or use "
            "--connections %d",
            limit,
            connections,
            connections * files_each + RESERVE,
            fix,
            (limit - RESERVE) // files_each,
        )


def fit_connections(connections: int) -> int:
    """Raise the limit of open files for `connections`, and return how many it allows; log a warning if not all."""
    limit = _raise_limit(max(_LEAST_LIMIT, connections + RESERVE))
    allowed_connections = max(1, min(connections, limit - RESERVE))
    if allowed_connections < connections:
        log.warning(
            "the limit of %d open files allows this process %d connections instead of %d",
            limit,
            allowed_connections,
            connections,
        )
    return allowed_connections


def _raise_limit(target: int) -> int:
    """Raise the limit of open files to `target`, as far as possible; return the new limit (`target` if unlimited)."""
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit == resource.RLIM_INFINITY:
        return target
    new_limit = target if hard_limit == resource.RLIM_INFINITY else min(target, hard_limit)
    if soft_limit >= new_limit:
        return soft_limit
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (new_limit, hard_limit))
    except (ValueError, OSError):
        return soft_limit
    log.info("open files: limit raised from %d to %d", soft_limit, new_limit)
    return new_limit
