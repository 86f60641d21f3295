"""`aligner-proxy engine`: the aligner in its own process, so that several gateway workers share one model.

The engine listens before it loads the weights. After SIGTERM it rejects new requests, finishes the running ones within
its grace period, and exits with 0. It exits with 2 if the address is taken or the model is not on this machine, and
with 1 if the weights cannot be loaded.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from aligner_proxy.cli import open_files
from aligner_proxy.cli.options import (
    aligner_options,
    connection_options,
    log_option,
    log_to_stderr,
    parse_named_models,
    refuse_absent_weights,
    silence_libraries,
    take_limits,
    weight_settings,
)
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine import sockets
from aligner_proxy.errors import ConfigError
from aligner_proxy.observability import tracing
from aligner_proxy.policy import config, environment

log = logging.getLogger("aligner_proxy.engine")


@click.command("engine")
@click.option("--socket", "path", type=click.Path(path_type=Path), help="Unix socket to listen on (the default).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on instead; 0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address for --port.")
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Maximum requests queued or running; more get an error.",
)
@click.option(
    "--grace",
    type=click.IntRange(min=0),
    default=25,
    show_default=True,
    help="Seconds to let running requests finish after SIGTERM.",
)
@click.option(
    "--judge",
    "judges",
    multiple=True,
    metavar="NAME=MODEL",
    callback=lambda _ctx, _param, values: parse_named_models(values),
    help="A token classifier to load beside the aligner, for `judge: {tokens: NAME}`; may be given again.",
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="A policies file to read the aligner from.")
@log_option
@connection_options
@aligner_options
def command(
    path: Path | None,
    port: int | None,
    host: str,
    queue: int,
    grace: int,
    file: Path | None,
    log_format: str | None,
    **options: Any,
) -> None:
    """Serve only the aligner, on a unix socket or a port.

    For example: aligner-proxy engine --config gateway/policies.yaml --port 4010
    """
    if path is not None and port is not None:
        raise ConfigError("give --socket or --port, not both")
    log_to_stderr(log_format)
    limits = take_limits(options)
    open_files.allow_connections(limits.connections)
    _start_tracing()
    # This handler serves until the server installs its own, so that a stop during imports is a clean exit, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _open_listener(path, port, host) as (listener, address):
        still_loading = _serve(listener, address, queue, grace, limits, file, options)
    if still_loading:
        # A normal exit would wait for the loading thread. The next start repeats a preparation that was interrupted.
        logging.shutdown()
        os._exit(0)


def _start_tracing() -> None:
    """Export spans if the environment asks for it; if no exporter is installed, log a warning and go on."""
    if environment.is_traced():
        try:
            tracing.export("aligner-proxy-engine")
        except ConfigError as error:
            log.warning("%s", error)


@contextlib.contextmanager
def _open_listener(path: Path | None, port: int | None, host: str) -> Iterator[tuple[socket.socket, str]]:
    """Open the port or, without one, the unix socket (the usual one without `path`); yield listener and address."""
    if port is not None:
        with sockets.listen_on_port(host, port) as listener:
            yield listener, f"http://{host}:{listener.getsockname()[1]}"
    else:
        socket_path = path or config.default_socket()
        with sockets.listen_on_unix_socket(socket_path) as listener:
            yield listener, f"unix:{socket_path.absolute()}"


def _serve(
    listener: socket.socket,
    address: str,
    queue: int,
    grace: int,
    limits: ConnectionLimits,
    file: Path | None,
    options: dict[str, Any],
) -> bool:
    """Load the aligner and serve it until SIGTERM; returns whether the aligner was still loading then.

    `queue` is the maximum number of requests and `grace` the seconds for them after SIGTERM; `options` are those of
    the aligner, and `file` is the policies file.
    """
    config.check_home()
    home = config.home_folder()
    refuse_absent_weights(options, file)
    silence_libraries()
    from aligner_proxy.engine.admission import LocalAdmission
    from aligner_proxy.engine.decoding.aligner import Aligner
    from aligner_proxy.engine.loader import open_aligner
    from aligner_proxy.engine.local import LocalEngine
    from aligner_proxy.engine.server.app import serve

    weights = weight_settings(options, file)

    def load() -> Aligner:
        aligner = open_aligner(weights, home, lambda step: log.info("%s", step))
        # Looking for garbage in the model, which stays, would halt all corrections for up to 0.5 s.
        gc.collect()
        gc.freeze()
        return aligner

    engine = LocalEngine(load)
    log.info("listening on %s, loading %s", address, weights.model)
    serve(LocalAdmission(engine, slots=queue), listener, grace_s=grace, limits=limits)
    return engine.loading
