"""`aligner-proxy health`: state of the gateway and its engine (ready, degraded, ...), for probes and for people.

Exit status 0 if the gateway accepts requests, else 1. A degraded gateway accepts requests, but answers may go out
uncorrected or late. With --engine alone, the exit status is that of the engine. Sends no key and starts nothing.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import httpx

from aligner_proxy.cli.terminal import echo, echo_json
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import engine_address
from aligner_proxy.web_address import is_web_address

_TIMEOUT_S = 5.0
"""Seconds to wait for an answer."""
_COLOUR_BY_STATUS = {"ready": "green", "loading": "yellow", "degraded": "yellow"}


@dataclass(frozen=True, slots=True)
class ProcessHealth:
    """Health of one process; `status` is ready, degraded, loading, stuck, alive, down or odd.

    Alive: it answers, but is not ready. Down: it does not answer. Odd: something else answers at this address.
    """

    name: str
    address: str
    status: str
    reasons: tuple[str, ...] = ()
    """Why it is not ready."""

    @property
    def serves(self) -> bool:
        """Whether the process accepts requests."""
        return self.status in ("ready", "degraded")


@click.command("health")
@click.option("--gateway", help="Address of the gateway; by default http://127.0.0.1:PORT.")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(1, 65535), help="The gateway's port.")
@click.option(
    "--engine", help="Address of the engine (unix:/path or http://host:port); without --gateway, check only the engine."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(gateway: str | None, port: int, engine: str | None, as_json: bool) -> None:
    """Show whether gateway and engine are alive, ready or degraded.

    For example: aligner-proxy health --port 4000
    """
    if gateway is not None and not is_web_address(gateway):
        raise ConfigError("--gateway must be an address such as http://127.0.0.1:4000")
    processes = [_check_engine(_resolve_engine_address(engine))]
    if gateway or not engine:
        processes.insert(0, _check_gateway((gateway or f"http://127.0.0.1:{port}").rstrip("/")))
    overall = _overall_status(processes)
    if as_json:
        echo_json({"status": overall, "processes": [asdict(process) for process in processes]}, indent=2)
    else:
        for process in processes:
            reasons = f" ({', '.join(process.reasons)})" if process.reasons else ""
            status = (process.status, _COLOUR_BY_STATUS.get(process.status, "red"))
            echo(f"{process.name} ", status, f"{reasons} at {process.address}")
    sys.exit(0 if processes[0].serves else 1)


def _overall_status(processes: list[ProcessHealth]) -> str:
    """The status of the first process; a ready gateway whose engine is not ready counts as degraded."""
    first, *others = processes
    if first.status == "ready" and not all(process.status == "ready" for process in others):
        return "degraded"
    return first.status


def _resolve_engine_address(engine: str | None) -> str:
    """The engine's address: from --engine, else from the environment, else its usual socket; raises `ConfigError`."""
    address = engine or config.engine_override() or f"unix:{config.engine_socket()}"
    try:
        address = engine_address(address)
    except ValueError as error:
        raise ConfigError(f"--engine: {error}") from None
    return f"unix:{config.default_socket()}" if address == "local" else address


def _check_engine(address: str) -> ProcessHealth:
    """Ask the engine for its health; "down" if it does not answer, "odd" if it is not an engine."""
    socket_path = address.removeprefix("unix:") if address.startswith("unix:") else None
    if socket_path and not Path(socket_path).exists():
        return ProcessHealth("engine", address, "down")
    base_url = "http://engine" if socket_path else address.rstrip("/")
    with _make_client(socket_path) as client:
        try:
            report = client.get(f"{base_url}/health").json()
            status = str(report["status"])
            reasons = tuple(map(str, report.get("reasons", ())))
        except httpx.HTTPError:
            return ProcessHealth("engine", address, "down")
        except (ValueError, KeyError, TypeError):
            return ProcessHealth("engine", address, "odd", ("not an aligner-proxy engine",))
        return ProcessHealth("engine", address, status, reasons)


def _check_gateway(address: str) -> ProcessHealth:
    """Ask the gateway for its health; "down" if it does not answer, "odd" if it is not LiteLLM."""
    with _make_client() as client:
        try:
            if client.get(f"{address}/health/liveliness").is_success:
                readiness = client.get(f"{address}/health/readiness")
                if readiness.is_success:
                    return ProcessHealth("gateway", address, "ready")
                return ProcessHealth("gateway", address, "alive", _read_reasons(readiness))
        except httpx.HTTPError:
            return ProcessHealth("gateway", address, "down")
        return ProcessHealth("gateway", address, "odd", ("not LiteLLM",))


def _read_reasons(readiness: httpx.Response) -> tuple[str, ...]:
    """Why a gateway is not ready, if its engine is the reason; else empty."""
    try:
        return (str(readiness.json()["aligner"]),)
    except (ValueError, KeyError, TypeError):
        return ()


def _make_client(socket: str | None = None) -> httpx.Client:
    """Make an HTTP client, over the unix socket if one is given; it ignores proxies of the environment."""
    transport = httpx.HTTPTransport(verify=socket is None, uds=socket)  # a unix socket has no TLS
    return httpx.Client(transport=transport, timeout=_TIMEOUT_S, trust_env=False)
