"""`aligner-proxy console`: serves the console for the operator and for reviewers in a browser.

The console is a separate process from the gateway and reads the files that the gateway's configuration names. It runs
only if this command starts it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvicorn

from aligner_proxy import connections, extras
from aligner_proxy.cli import open_files
from aligner_proxy.cli.options import log_option, log_to_stderr
from aligner_proxy.cli.terminal import echo
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine import sockets
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import litellm_config
from aligner_proxy.policy.yaml_file import read_yaml
from aligner_proxy.web_address import is_web_address
from aligner_proxy_review.console import forms

if TYPE_CHECKING:
    from aligner_proxy_review.console.application import Console

_GRACE_S = 3
"""Seconds that open requests get at shutdown."""
_LIMITS = ConnectionLimits(connections=500, drain_s=1.0, body_bytes=forms.MAX_BYTES)
"""Limits like those of the gateway, but for fewer people, and with less time for idle connections at shutdown."""
_NICENESS = 5
"""Lower priority than the gateway, so that its requests go first if both want the same core."""


@click.command("console")
@click.option("--config", "file", required=True, type=click.Path(path_type=Path), help="LiteLLM YAML of the gateway.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=4001, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option(
    "--gateway",
    default="http://127.0.0.1:4000",
    show_default=True,
    help="Address of the gateway that the playground calls.",
)
@click.option(
    "--engine",
    help="The engine for teaching and replays: unix:/path or http(s)://host:port; by default the gateway's.",
)
@click.option(
    "--behind-https", is_flag=True, help="Send cookies only over HTTPS, because a proxy serves the console by HTTPS."
)
@log_option
def command(
    file: Path, host: str, port: int, gateway: str, engine: str | None, behind_https: bool, log_format: str | None
) -> None:
    """Show corrections in a browser, as they happen; log in with the master key or a reviewer's key.

    For example: aligner-proxy console --config gateway/litellm.yaml
    """
    log_to_stderr(log_format)
    extras.require_extra(extras.REVIEW, "the console")
    from aligner_proxy_review.console.application import Console
    from aligner_proxy_review.console.playground import GatewayClient

    path = file.resolve()
    litellm_config.check_master_key(path)
    data, source = read_yaml(path)
    master = litellm_config.master_key(data)
    if not master:
        raise ConfigError(
            f"{source.name}: no master key, with which the operator logs in; set general_settings.master_key"
        )
    if not is_web_address(gateway):
        raise ConfigError("--gateway must be an address such as http://127.0.0.1:4000")
    console = Console(path, master, GatewayClient(gateway, master), secure=behind_https, engine=engine)
    limits = replace(_LIMITS, connections=open_files.fit_connections(_LIMITS.connections))
    os.nice(_NICENESS)
    with contextlib.closing(sockets.bind_socket(host, port)) as listener:
        # an IPv6 address needs brackets in a URL
        url_host = f"[{host}]" if ":" in host else host
        echo(f"console: http://{url_host}:{port}", err=True)
        make_server(console, limits).run(sockets=[listener])


def make_server(console: Console, limits: ConnectionLimits = _LIMITS) -> uvicorn.Server:
    """Make the HTTP server of a console, with the same connection timeouts as the gateway's server."""
    settings = uvicorn.Config(
        console.application(),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
        **connections.uvicorn_settings(limits),
    )
    return uvicorn.Server(settings)
