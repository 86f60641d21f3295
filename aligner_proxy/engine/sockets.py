"""Sockets to listen on, opened before anything slow starts, so that a taken address is reported clearly and at once.

Only the owner may use a unix socket. A socket file left behind by a killed process is replaced. A socket file on which
another process still answers is not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from aligner_proxy.errors import ConfigError


@contextlib.contextmanager
def listen_on_unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a socket file of mode 0600, and remove the file afterwards. Raises `ConfigError` if it is in use."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear_stale_file(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(listener):
        # so that the file is private from the moment it exists; a chmod afterwards would be too late
        old_umask = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise ConfigError(f"cannot listen on {path}: {error.strerror or error}; choose another --socket") from None
        finally:
            os.umask(old_umask)
        listener.listen()
        own_inode = path.stat().st_ino
        try:
            yield listener
        finally:
            # meanwhile another process may have put its own socket file there
            if path.exists() and path.stat().st_ino == own_inode:
                path.unlink()


def _clear_stale_file(path: Path) -> None:
    """Remove a stale socket file or a dangling link at `path`; raises `ConfigError` if the path is in use."""
    if not path.exists():
        if path.is_symlink():
            path.unlink()
        return
    if not path.is_socket():
        raise ConfigError(f"{path} exists and is no socket; choose another --socket")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            # no process listens: a killed one left the file behind
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot use {path}: {error}; choose another --socket") from None
        else:
            raise ConfigError(f"{path} is in use by a running engine; stop it or choose another --socket")


@contextlib.contextmanager
def listen_on_port(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on host:port. Raises `ConfigError` if it is taken."""
    with contextlib.closing(bind_socket(host, port)) as listener:
        listener.listen()
        yield listener


def bind_socket(host: str, port: int) -> socket.socket:
    """Bind a socket to host:port without listening yet; the caller closes it. Raises `ConfigError` if it is taken."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # `min` takes the first IPv4 address if there is one, because False is less than True
        family, *_, address = min(addresses, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.socket(family, socket.SOCK_STREAM)
        # after a restart, connections of the old process may still block the port for a while
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        is_host_wrong = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        if is_host_wrong:
            fix = "give --host an address of this machine"
        else:
            fix = "stop the other process or choose another --port"
        raise ConfigError(f"port {port} on {host} cannot be used: {error.strerror}; {fix}") from None
    return listener


def publish(socket_file: Path, link: Path) -> None:
    """Atomically point the symlink `link` to a socket file in the same folder, so that clients of it connect there."""
    new_link = link.with_name(f".{link.name}.{os.getpid()}")
    new_link.unlink(missing_ok=True)
    new_link.symlink_to(socket_file.name)
    new_link.replace(link)


def withdraw(socket_file: Path, link: Path) -> None:
    """Remove the symlink `link` if it points to this socket file."""
    if link.is_symlink() and link.readlink() == Path(socket_file.name):
        link.unlink()
