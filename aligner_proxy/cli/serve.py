"""`aligner-proxy serve`: the engine and the LiteLLM proxy, started after all checks.

Mistakes that LiteLLM would report late or not at all are refused here in one sentence. The user's environment is passed
on unchanged; variables that make LiteLLM work offline are added where they are unset.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from aligner_proxy.audit import writer
from aligner_proxy.cli.options import log_option, log_to_stderr
from aligner_proxy.engine import sockets
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.errors import ConfigError, CorrectionError, EngineFault, EngineMismatch, EngineUnavailable
from aligner_proxy.gateway import build, supervisor
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import Backend, Kind
from aligner_proxy.policy.litellm_config import find_policies, model_groups
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import read

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_MASTER_KEY = "LITELLM_MASTER_KEY"
_PERMIT_WEAK = "dangerously_permit_weak_or_unset_master_key"
_SHORTEST_KEY = 12
_NEW_KEY = f'{_MASTER_KEY}="sk-$(openssl rand -hex 32)"'
# Without the first three, LiteLLM calls the internet at every start, and waits where there is none. The last is the
# number of seconds after which uvicorn replaces a silent worker: the default of 5 is less than LiteLLM's import takes
# on a busy machine, so workers would be restarted forever.
_UNLESS_SET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "true",
    "TIMEOUT_WORKER_HEALTHCHECK": "60",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked configuration: the processes to start. `socket` is None when `serve` starts no engine."""

    litellm_file: Path
    policies: Path
    file: PolicyFile
    engine: Backend
    socket: Path | None
    host: str
    port: int
    workers: int
    log: str | None = None
    """Form of the log lines of all processes; None: text, and LiteLLM's own form."""
    grace: int = 30
    """Seconds for each process to finish its requests after SIGTERM."""


@click.command("serve")
@click.option("--config", "file", required=True, type=click.Path(path_type=Path), help="LiteLLM YAML.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256), help="LiteLLM processes.")
@click.option("--grace", default=30, show_default=True, type=click.IntRange(min=0), help="Seconds to finish in.")
@log_option
def command(file: Path, host: str, port: int, workers: int, grace: int, form: str | None) -> None:
    """Start the aligner engine and the LiteLLM proxy with the guardrail; SIGTERM drains and exits 0."""
    log_to_stderr(form)
    checked = replace(plan(file, host, port, workers), log=form or config.log_form(), grace=grace)
    sys.exit(asyncio.run(_run(checked)))


def plan(file: Path, host: str, port: int, workers: int) -> Plan:
    """Check everything before the start; raises `ConfigError` with the fix."""
    path = file.resolve()
    policies = find_policies(path)
    loaded = registry.load_policies(policies)
    config.known_keys(loaded)
    writer.recorder(loaded)
    registry.configured(loaded)
    check_class_is_ours(path)
    check_master_key(path)
    with sockets.tcp(host, port):
        pass
    engine = config.engine_at(loaded)
    check_engine(path, loaded, engine)
    socket = _free_socket() if engine.local else None
    return Plan(path, policies.absolute(), loaded, engine, socket, host, port, workers)


def check_engine(litellm_file: Path, file: PolicyFile, engine: Backend) -> None:
    """Refuse engine settings that the guardrail would refuse later, and a missing model group."""
    if engine.completes:
        build.completions_template(file, engine)
        config.engine_key(engine)
    data, source = read(litellm_file)
    elsewhere = "include" in data or (data.get("general_settings") or {}).get("store_model_in_db")
    if engine.kind is Kind.GROUP and not elsewhere and engine.group not in model_groups(data):
        raise ConfigError(f"{source.name}: no model group {engine.group!r} in the model_list; aligner.engine names it")


def check_class_is_ours(litellm_file: Path) -> None:
    """Refuse a copy of the package beside the LiteLLM YAML, from which LiteLLM would load the guardrail."""
    shadow = litellm_file.parent / "aligner_proxy"
    if (shadow / "guardrail.py").exists():
        raise ConfigError(
            f"{litellm_file} lies beside {shadow.name}/, so LiteLLM would load a second copy of the guardrail from "
            f"there; move the file into a folder of its own, for example {litellm_file.parent / 'configs'}"
        )


def check_master_key(litellm_file: Path) -> None:
    """Refuse a missing or well-known master key, which LiteLLM refuses only after several seconds."""
    data, source = read(litellm_file)
    settings = data.get("general_settings") or {}
    if "include" in data or _permitted(settings):
        return
    key = _master_key(settings)
    place = source.at("general_settings", "master_key")
    if not key:
        raise ConfigError(
            f"{place}: no master key, so anybody could use the gateway; set general_settings.master_key: "
            f"os.environ/{_MASTER_KEY} and in the environment {_NEW_KEY}"
        )
    if key == "sk-1234" or len(key) < _SHORTEST_KEY:
        raise ConfigError(f"{place}: the master key is too easy to guess; make one with {_NEW_KEY}")


def _permitted(settings: dict[str, Any]) -> bool:
    by_environment = os.environ.get(f"LITELLM_{_PERMIT_WEAK.upper()}", "").lower() == "true"
    return by_environment or settings.get(_PERMIT_WEAK) is True


def _master_key(settings: dict[str, Any]) -> str:
    """The master key as LiteLLM finds it: in the file or by its reference, in the environment or in .env."""
    written = str(settings.get("master_key") or f"os.environ/{_MASTER_KEY}")
    if not written.startswith("os.environ/"):
        return written
    name = written.removeprefix("os.environ/")
    from dotenv import dotenv_values  # comes with LiteLLM, which reads .env itself

    return os.environ.get(name) or dotenv_values(".env").get(name) or ""


def _free_socket() -> Path:
    """The default socket, or another one beside it when another gateway's engine uses it."""
    socket = config.default_socket()
    try:
        with sockets.unix(socket):
            return socket
    except ConfigError:
        own = socket.with_name(f"engine-{os.getpid()}.sock")
        log.info("another engine runs on %s, this gateway starts its own on %s", socket, own.name)
        return own


def engine_command(plan: Plan) -> list[str]:
    """Command line of the engine, with the aligner of the policies file."""
    # The engine has to finish a little before it would be killed.
    where = ["--socket", str(plan.socket), "--config", str(plan.policies), "--grace", str(max(0, plan.grace - 5))]
    return [sys.executable, "-m", "aligner_proxy", "engine", *where]


def litellm_command(plan: Plan) -> list[str]:
    """Command line of LiteLLM, in this interpreter."""
    start = "from litellm import run_server; run_server()"
    options = ["--config", str(plan.litellm_file), "--host", plan.host, "--port", str(plan.port)]
    return [sys.executable, "-c", start, *options, "--num_workers", str(plan.workers), "--telemetry", "False"]


def environment(plan: Plan) -> dict[str, str]:
    """The user's environment, with our addresses and defaults for LiteLLM."""
    ours = {"ALIGNER_PROXY_POLICIES": str(plan.policies)}
    if plan.socket:
        ours["ALIGNER_PROXY_SOCKET"] = str(plan.socket)
    keys = config.keys_path(plan.file)
    if keys is not None:
        ours["ALIGNER_PROXY_KEYS"] = str(keys.resolve())
    if plan.log is not None:
        ours[config.LOG] = plan.log
    return {**_UNLESS_SET, **({"JSON_LOGS": "true"} if plan.log == "json" else {}), **os.environ, **ours}


async def _run(plan: Plan) -> int:
    env = environment(plan)
    engine = supervisor.Child("engine", engine_command(plan), env) if plan.socket else None
    gateway = supervisor.Child("litellm", litellm_command(plan), env)
    loaded = partial(_until_loaded, plan)
    announce = partial(_until_serving, plan)
    return await supervisor.run(engine, loaded, gateway, announce, supervisor.Pace(grace=plan.grace))


async def _until_loaded(plan: Plan) -> None:
    """Wait until the engine is ready; a model group needs no waiting, it is LiteLLM's own."""
    if plan.engine.kind is Kind.GROUP and not plan.socket:
        return
    engine = HttpEngine(f"unix:{plan.socket}", patience_s=2) if plan.socket else build.open_engine(plan.file)
    where = f"unix:{plan.socket}" if plan.socket else str(plan.engine)
    started = time.monotonic()
    try:
        with Console(stderr=True).status(f"waiting for the aligner at {where} ..."):
            about = await _patiently(engine.info)
    finally:
        await engine.aclose()
    took = time.monotonic() - started
    log.info("engine: %s on %s (%s) ready after %.1f s", about.model, about.device, about.quantization, took)


async def _until_serving(plan: Plan) -> None:
    """Log when LiteLLM takes requests; it starts only after the aligner is loaded."""
    import httpx

    host = "127.0.0.1" if plan.host in {"0.0.0.0", "::"} else plan.host
    base = f"http://[{host}]:{plan.port}" if ":" in host else f"http://{host}:{plan.port}"
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=5) as client:

        async def ask() -> None:
            try:
                (await client.get("/health/readiness")).raise_for_status()
            except httpx.HTTPError as error:
                raise EngineUnavailable(str(error)) from None

        await _patiently(ask)
    log.info("ready: %s; point OPENAI_BASE_URL at %s/v1", base, base)


async def _patiently(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Retry until there is an answer or the supervisor cancels; logs each new reason for the delay."""
    reason = ""
    while True:
        try:
            return await ask()
        except EngineMismatch:
            raise  # waiting does not help; `serve` ends with this message
        except CorrectionError as error:
            if isinstance(error, EngineFault) and str(error) != reason:
                reason = str(error)
                log.warning("waiting: %s", reason)
            await asyncio.sleep(0.2)
