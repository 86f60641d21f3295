"""`aligner-proxy health`: are the gateway and its engine alive, ready, degraded? For probes, and for people.

Exit status 0 when the gateway takes requests (also degraded: answers then pass uncorrected or late), 1 when it does
not; with --engine alone the engine is what is asked. Sends no key and starts nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import httpx

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import engine_address

_WAIT_S = 5.0
_COLOUR = {"ready": "green", "loading": "yellow", "degraded": "yellow"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One process as it answered; `status` is ready, degraded, loading, stuck, alive, down or odd."""

    name: str
    address: str
    status: str
    reasons: tuple[str, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether requests may be sent there."""
        return self.status in ("ready", "degraded")


@click.command("health")
@click.option("--gateway", help="Address of the gateway. [default: http://127.0.0.1:PORT]")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(1, 65535), help="The gateway's port.")
@click.option("--engine", help="Address of the engine (unix:/path or http://host:port), asked alone unless --gateway.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(gateway: str | None, port: int, engine: str | None, as_json: bool) -> None:
    """Say whether gateway and engine are alive, ready, degraded."""
    seen = [_engine(_address(engine))]
    if gateway or not engine:
        seen.insert(0, _gateway((gateway or f"http://127.0.0.1:{port}").rstrip("/")))
    overall = _overall(seen)
    if as_json:
        click.echo(json.dumps({"status": overall, "processes": [asdict(one) for one in seen]}, indent=2))
    else:
        for one in seen:
            why = f" ({', '.join(one.reasons)})" if one.reasons else ""
            status = click.style(one.status, fg=_COLOUR.get(one.status, "red"))
            click.echo(f"{one.name} {status}{why} at {one.address}")
    sys.exit(0 if seen[0].serves else 1)


def _overall(seen: list[Seen]) -> str:
    """The first one's word; a gateway that serves without an engine is degraded."""
    first, *others = seen
    if first.status == "ready" and not all(one.status == "ready" for one in others):
        return "degraded"
    return first.status


def _address(engine: str | None) -> str:
    chosen = engine or config.engine_override() or f"unix:{config.engine_socket()}"
    try:
        chosen = engine_address(chosen)
    except ValueError as error:
        raise ConfigError(f"--engine: {error}") from None
    return f"unix:{config.default_socket()}" if chosen == "local" else chosen


def _engine(address: str) -> Seen:
    socket = address.removeprefix("unix:") if address.startswith("unix:") else None
    if socket and not Path(socket).exists():
        return Seen("engine", address, "down")
    with _client(socket) as http:
        try:
            told = http.get(("http://engine" if socket else address.rstrip("/")) + "/health").json()
            status = str(told["status"])
            reasons = tuple(map(str, told.get("reasons", ())))
        except httpx.HTTPError:
            return Seen("engine", address, "down")
        except (ValueError, KeyError, TypeError):
            return Seen("engine", address, "odd", ("no engine of ours",))
        return Seen("engine", address, status, reasons)


def _gateway(address: str) -> Seen:
    with _client() as http:
        try:
            if http.get(f"{address}/health/liveliness").is_success:
                ready = http.get(f"{address}/health/readiness").is_success
                return Seen("gateway", address, "ready" if ready else "alive")
        except httpx.HTTPError:
            return Seen("gateway", address, "down")
        return Seen("gateway", address, "odd", ("no LiteLLM",))


def _client(socket: str | None = None) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=socket), timeout=_WAIT_S, trust_env=False)
