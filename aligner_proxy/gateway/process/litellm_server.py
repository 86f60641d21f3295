"""Runs LiteLLM's proxy on inherited sockets, with limits on its connections.

`python -m ...process.litellm_server SETTINGS ARGUMENTS...`: SETTINGS is a JSON object with the descriptors of the
listening sockets and the `ConnectionLimits`; ARGUMENTS are LiteLLM's own. The sockets outlive the process, so that a
successor accepts new connections while this one finishes. The process imports LiteLLM, and then waits for a line on
its standard input, so that `serve` can start it while the engine still loads. On Linux, workers end with the process
that started them, even if that process is killed, because nobody would replace or stop them otherwise.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from aligner_proxy import connections
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.gateway.process.die_with_parent import tether
from aligner_proxy.observability import logs
from aligner_proxy.policy import environment


def encode_settings(listeners: Sequence[socket.socket], limits: ConnectionLimits) -> str:
    """The SETTINGS argument of this module."""
    return json.dumps({"sockets": [listener.fileno() for listener in listeners], "limits": asdict(limits)})


class _TetheredConfig(uvicorn.Config):
    """uvicorn settings that tether each worker to the process that started it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._starter = os.getpid()
        """Id of the process that starts the workers."""
        super().__init__(*arguments, **keywords)

    def configure_logging(self) -> None:
        """Configure logging, and tether a worker to its parent here, since uvicorn calls this first in each worker."""
        if os.getpid() != self._starter:
            tether(self._starter)
        super().configure_logging()
        _unify_logs()


def serve(
    listeners: list[socket.socket], limits: ConnectionLimits, app: str, *, workers: int, **arguments: Any
) -> None:
    """Serve the application `app` on these sockets, with these limits; LiteLLM calls this in place of `uvicorn.run`.

    Exits with uvicorn's status if the application cannot be started.
    """
    server_config = _TetheredConfig(app, workers=workers, **{**arguments, **connections.uvicorn_settings(limits)})
    if server_config.workers > 1:
        Multiprocess(server_config, listeners).run()
        return
    server = uvicorn.Server(server_config)
    server.run(listeners)
    if not server.started:  # as in `uvicorn.run`
        sys.exit(STARTUP_FAILURE)


def _unify_logs() -> None:
    """If `--log json` is set, let uvicorn and LiteLLM log JSON lines like ours, and turn LiteLLM's prints into them."""
    if environment.log_format() == "json":
        logs.unify_json_lines()
        if not isinstance(sys.stdout, logs.PrintedLines):
            sys.stdout = logs.PrintedLines("litellm")


def main(arguments: list[str]) -> None:
    """Run LiteLLM's command line with `uvicorn.run` replaced by `serve`.

    `arguments` are a JSON object (`sockets`: file descriptors, `limits`: of connections), then LiteLLM's arguments.
    Between imports and start, this waits for a line on standard input.
    """
    settings = json.loads(arguments[0])
    listeners = [socket.socket(fileno=descriptor) for descriptor in settings["sockets"]]
    uvicorn.run = partial(serve, listeners, ConnectionLimits(**settings["limits"]))
    sys.argv = ["litellm", *arguments[1:]]
    _unify_logs()
    from litellm import run_server  # takes seconds, and this module is imported by every worker

    # Not our guardrail: its metrics must be made after LiteLLM has cleared PROMETHEUS_MULTIPROC_DIR.
    importlib.import_module("litellm.proxy.proxy_server")
    if sys.stdin.readline():  # otherwise `serve` has ended
        run_server()


if __name__ == "__main__":
    main(sys.argv[1:])
