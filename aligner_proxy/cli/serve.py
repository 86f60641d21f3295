"""`aligner-proxy serve`: check the configuration, then start the engine and the LiteLLM proxy.

Mistakes that LiteLLM would report late or not at all are refused here with one sentence. LiteLLM gets the user's
environment, plus defaults that make it work offline; the engine gets only the variables that it needs.

On SIGHUP both are replaced without a gap. This process owns the port, so that the old and the new LiteLLM can listen on
it in turn. Each generation has its own engine with its own socket; a link with the usual socket name points to the
current one, for other tools.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from aligner_proxy import extras
from aligner_proxy.audit import writer
from aligner_proxy.cli import open_files
from aligner_proxy.cli.options import (
    check_guardrail_entry,
    check_local_aligner,
    connection_options,
    log_option,
    log_to_stderr,
    take_limits,
)
from aligner_proxy.cli.terminal import Terminal
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine import sockets
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.errors import ConfigError, CorrectionError, EngineFault, EngineMismatch, EngineUnavailable
from aligner_proxy.gateway import active_policies, build
from aligner_proxy.gateway.process import litellm_server, memory_limit, supervisor
from aligner_proxy.gateway.process.auto_training import AutoTrainer, ServingEngine
from aligner_proxy.gateway.process.companion_process import CompanionKeeper
from aligner_proxy.gateway.shared_server import open_shared_server
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.commands import Companion, plugin_commands
from aligner_proxy.policy import config, environment, guardrail_entry, litellm_config
from aligner_proxy.policy.engine_schema import Backend, ServerKind
from aligner_proxy.policy.litellm_config import find_policies, model_groups
from aligner_proxy.policy.plugin_keys import COMPANIONS_OF_PLUGINS, missing_plugin_text
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.policy.yaml_file import read_yaml

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])
_COMPANIONS: Mapping[str, Companion] = {
    command.name: command.companion for command in plugin_commands() if command.companion is not None
}
"""Companion processes of plugins (such as the console), by the names of their commands."""
_RETRY_S = 0.2
"""Seconds between two questions whether a process is ready."""

# Defaults for variables that are not set. Without the first three, LiteLLM calls the internet at every start, and waits
# if there is none. TIMEOUT_WORKER_HEALTHCHECK is the number of seconds after which uvicorn replaces a silent worker: on
# a busy machine LiteLLM's import takes longer than the default of 5, so workers would be restarted forever.
_DEFAULT_VARIABLES = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "true",
    "TIMEOUT_WORKER_HEALTHCHECK": "60",
    # Allocations above this threshold are given back to the system when freed. glibc would raise it, up to 32 MB, as
    # soon as a long text is freed, and long texts would then leave gaps in the heaps of all threads. The value is above
    # what a socket reads at once (256 KB), so that it does not slow down ordinary requests.
    "MALLOC_MMAP_THRESHOLD_": str(384 << 10),
}


@dataclass(frozen=True, slots=True)
class ServePlan:
    """A checked configuration with the processes to start; `starts_engine` is False if the engine runs elsewhere."""

    litellm_file: Path
    policies: Path
    """Absolute path of the policies file."""
    file: PolicyFile
    """What the policies file contains."""
    engine: Backend
    """The engine that the policies file names, or the environment in its place."""
    starts_engine: bool
    host: str
    port: int
    workers: int
    log_format: str = "text"
    grace: int = 30
    """Seconds for each process to finish its requests after SIGTERM."""
    handover: int = 600
    """Seconds for the old processes to finish their requests after a restart."""
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    number: int = 1
    """The generation of processes, counted from 1; each restart adds one."""
    engine_number: int = 1
    """The generation of the engine in use; an earlier one if only LiteLLM was replaced."""
    companions: Mapping[str, int] = field(default_factory=dict)
    """Ports of the companion processes, which listen only on this machine, by the names of their commands."""
    worker_mb: int = 0
    """Megabytes that a LiteLLM process may use before it is replaced; 0: no limit."""

    @property
    def is_restart(self) -> bool:
        """Whether older processes still serve while these start."""
        return self.number > 1

    @property
    def socket(self) -> Path | None:
        """The socket of this generation's engine; None if the engine runs elsewhere."""
        return self._socket("engine", self.engine_number) if self.starts_engine else None

    @property
    def probe_socket(self) -> Path:
        """A private socket, on which only `serve` probes this generation's LiteLLM."""
        return self._socket("gateway", self.number)

    def _socket(self, name: str, number: int) -> Path:
        """The path of a socket, unique to this process and generation, in the folder of the engine's usual socket."""
        return config.default_socket().with_name(f"{name}-{os.getpid()}-{number}.sock")


def companion_options(function: _F) -> _F:
    """Add a flag and a port option for each installed companion, a process that a plugin adds to `serve`.

    A known companion that is not installed gets a hidden flag, so that `serve` can name the package that is missing.
    """
    # Decorators add the options from last to first.
    for name, companion in reversed(tuple(_COMPANIONS.items())):
        port_type = click.IntRange(1, 65535)
        add_port_option = click.option(
            f"--{name}-port", default=companion.port, show_default=True, type=port_type, help=f"Port of --{name}."
        )
        function = add_port_option(function)
        function = click.option(f"--{name}", is_flag=True, help=companion.about)(function)
    for name in COMPANIONS_OF_PLUGINS.keys() - _COMPANIONS.keys():
        function = click.option(f"--{name}", is_flag=True, hidden=True)(function)
    return function


def take_companions(options: dict[str, Any]) -> dict[str, int]:
    """Remove companion options from `options`; returns the ports of the requested companions by name.

    Raises `ConfigError` if the package of a requested companion is not installed.
    """
    port_by_name: dict[str, int] = {}
    for name, companion in _COMPANIONS.items():
        option_name = name.replace("-", "_")
        port = options.pop(f"{option_name}_port")
        if options.pop(option_name):
            if companion.extra is not None:
                extras.require_extra(companion.extra, f"--{name}")
            port_by_name[name] = port
    for name in COMPANIONS_OF_PLUGINS.keys() - _COMPANIONS.keys():
        if options.pop(name.replace("-", "_")):
            raise ConfigError(missing_plugin_text(f"--{name}", COMPANIONS_OF_PLUGINS[name]))
    return port_by_name


@click.command("serve")
@click.option("--config", "file", required=True, type=click.Path(path_type=Path), help="LiteLLM YAML.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256), help="LiteLLM processes.")
@click.option(
    "--grace",
    default=30,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seconds to let running requests finish after SIGTERM.",
)
@click.option(
    "--handover",
    default=600,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seconds the old processes get to finish after SIGHUP.",
)
@click.option(
    "--body-mb", default=32, show_default=True, type=click.IntRange(1, 1024), help="Maximum request body in megabytes."
)
@click.option(
    "--worker-mb",
    default=2048,
    show_default=True,
    type=click.IntRange(min=0),
    callback=lambda _context, _option, worker_mb: _check_worker_mb(worker_mb),
    help="Megabytes that a LiteLLM process may use before it is replaced without a gap; 0: no limit (Linux only).",
)
@companion_options
@connection_options
@log_option
def command(
    file: Path,
    host: str,
    port: int,
    workers: int,
    grace: int,
    handover: int,
    body_mb: int,
    worker_mb: int,
    log_format: str | None,
    **options: Any,
) -> None:
    """Start the aligner engine and the LiteLLM proxy. SIGHUP replaces both; SIGTERM ends both after their requests.

    For example: aligner-proxy serve --config gateway/litellm.yaml --port 4000
    """
    log_to_stderr(log_format)
    companions = take_companions(options)
    limits = replace(take_limits(options), body_bytes=body_mb << 20)
    open_files.allow_connections(limits.connections, open_files.FILES_PER_REQUEST)
    plan = replace(
        make_plan(file, host, port, workers),
        log_format=log_format or environment.log_format() or "text",
        grace=grace,
        handover=handover,
        limits=limits,
        worker_mb=worker_mb,
        companions=companions,
    )
    with contextlib.closing(sockets.bind_socket(host, port)) as listener:
        sys.exit(asyncio.run(_run(plan, listener)))


def _check_worker_mb(worker_mb: int) -> int:
    """Return the limit in MB, or 0 (none) if memory cannot be measured; refuse a limit below what LiteLLM needs."""
    if 0 < worker_mb < memory_limit.MIN_MB:
        raise click.BadParameter(
            f"{worker_mb} MB is less than LiteLLM needs to serve; give at least {memory_limit.MIN_MB}, "
            "or 0 for no limit"
        )
    return worker_mb if memory_limit.is_measurable() else 0


def make_plan(file: Path, host: str, port: int, workers: int) -> ServePlan:
    """Check everything that a start or restart needs, and return the plan; raises `ConfigError` with a fix.

    `file` is the LiteLLM YAML, and `workers` the number of LiteLLM processes.
    """
    litellm_file = file.resolve()
    policies_path = find_policies(litellm_file)
    policies = registry.load_policies(policies_path)
    # What is made and opened here is only checked, as a mistake raises its error.
    config.refuse_without_policies(policies)
    config.known_keys(policies)
    writer.make_recorder(policies)
    config.check_audit_file(policies)
    registry.configure_plugins(policies)
    litellm_config.check_class_is_ours(litellm_file)
    litellm_config.check_master_key(litellm_file)
    check_guardrail(litellm_file, policies)
    open_shared_server(policies)
    config.check_local_engine(policies)
    check_local_aligner(policies)
    engine = config.engine_backend(policies)
    check_engine(litellm_file, policies, engine)
    return ServePlan(
        litellm_file,
        policies_path.absolute(),
        policies,
        engine,
        starts_engine=engine.needs_local,
        host=host,
        port=port,
        workers=workers,
    )


def check_engine(litellm_file: Path, file: PolicyFile, engine: Backend) -> None:
    """Raise `ConfigError` for engine settings that the guardrail would refuse, or a group that LiteLLM's YAML lacks."""
    build.check_completions(file, engine)
    data, source = read_yaml(litellm_file)
    # Groups in included files or in LiteLLM's database are not visible here, so nothing is refused then.
    has_hidden_groups = "include" in data or (data.get("general_settings") or {}).get("store_model_in_db")
    if engine.kind is ServerKind.GROUP and not has_hidden_groups and engine.group not in model_groups(data):
        raise ConfigError(f"{source.name}: no model group {engine.group!r} in the model_list; aligner.engine names it")


def check_guardrail(litellm_file: Path, file: PolicyFile) -> None:
    """Raise `ConfigError` for a guardrail entry that LiteLLM would ignore, or use for only some answers.

    Warnings about the file are logged.
    """
    data, source = read_yaml(litellm_file)
    entry_warnings = guardrail_entry.check_entries(data, source, file, check_guardrail_entry)
    for warning in (*entry_warnings, *litellm_config.find_unset_variables(data, source)):
        log.warning("%s", warning)


def engine_command(plan: ServePlan) -> list[str]:
    """Command line of the engine, with the aligner of the policies file."""
    engine_grace = max(0, plan.grace - 5)  # the engine must finish a few seconds before it would be killed
    arguments = ["--socket", str(plan.socket), "--config", str(plan.policies), "--grace", str(engine_grace)]
    return [sys.executable, "-m", "aligner_proxy", "engine", *arguments]


def litellm_command(plan: ServePlan, *listeners: socket.socket) -> list[str]:
    """Command line of LiteLLM, which runs in this interpreter and inherits these sockets."""
    module = ["-m", litellm_server.__name__, litellm_server.encode_settings(listeners, plan.limits)]
    options = ["--config", str(plan.litellm_file), "--host", plan.host, "--port", str(plan.port)]
    return [sys.executable, *module, *options, "--num_workers", str(plan.workers), "--telemetry", "False"]


def companion_command(plan: ServePlan, name: str) -> list[str]:
    """Command line of a companion process, which uses this generation's engine and listens only on this machine."""
    arguments = ["--config", str(plan.litellm_file), "--port", str(plan.companions[name]), "--gateway", _base_url(plan)]
    engine_arguments = ["--engine", f"unix:{plan.socket}"] if plan.socket else []
    return [sys.executable, "-m", "aligner_proxy", name, *arguments, *engine_arguments]


def litellm_environment(plan: ServePlan) -> dict[str, str]:
    """The environment of LiteLLM: the user's. The gateway's variables override it; LiteLLM's defaults fill its gaps."""
    variables = {
        environment.POLICIES: str(plan.policies),
        environment.ACTIVE_POLICIES_FILE: str(active_policies.state_file_path()),
        environment.LOG_FORMAT: plan.log_format,
    }
    if plan.socket:
        variables[environment.SOCKET] = str(plan.socket)
    keys_path = config.keys_path(plan.file)
    if keys_path is not None:
        variables[environment.KEYS] = str(keys_path.resolve())
    litellm_data, _ = read_yaml(plan.litellm_file)
    if litellm_config.needs_key_check(litellm_data):
        variables[environment.CHECK_KEYS] = "1"
    defaults = dict(_DEFAULT_VARIABLES)
    if plan.log_format == "json":
        defaults["JSON_LOGS"] = "true"
    return {**defaults, **os.environ, **variables}


def engine_environment(plan: ServePlan) -> dict[str, str]:
    """The environment of the engine: the part of the user's that it needs, without keys, and the log format."""
    return environment.engine_environment() | {environment.LOG_FORMAT: plan.log_format}


async def _run(first_plan: ServePlan, listener: socket.socket) -> int:
    """Run all processes until SIGTERM or until one fails for good; returns the exit status.

    `listener` is the gateway's port. The supervisor builds a generation of engine and LiteLLM for each start.
    """
    numbers = itertools.count(1)
    usual_socket = _claim_socket_name()
    # The plans of all generations that have served, the present one last.
    served_plans: list[ServePlan] = []
    trainer = AutoTrainer(
        first_plan.policies,
        lambda: _serving_engine(served_plans[-1]) if served_plans else None,
        litellm_environment(first_plan),
    )
    with contextlib.ExitStack() as files:
        policies = files.enter_context(active_policies.keep_active(first_plan.policies, first_plan.file))

        def make_generation(running_engine: supervisor.EngineProcess | None) -> supervisor.Generation:
            """Build the next generation; with a `running_engine`, only LiteLLM is replaced, and the plan stays."""
            number = next(numbers)
            if running_engine is not None:
                plan = replace(served_plans[-1], number=number)
            else:
                plan = first_plan if number == 1 else _renew_plan(first_plan)
                policies.refuse_losses(plan.file)
                plan = replace(plan, number=number, engine_number=number)
            return _build_generation(plan, running_engine, listener, files, usual_socket, served_plans.append)

        pace = supervisor.Pace(grace_s=first_plan.grace, handover_s=first_plan.handover)
        memory = memory_limit.MemoryLimit(first_plan.worker_mb)
        side_tasks = [asyncio.ensure_future(trainer.keep_training())]
        for name in first_plan.companions:
            side_tasks.append(asyncio.ensure_future(_make_companion(served_plans, name).keep_running()))

        def stop_serving() -> None:
            """Accept no further connections, and end teaching and companions."""
            listener.close()
            for task in side_tasks:
                task.cancel()

        try:
            return await supervisor.run(make_generation, pace, stop_serving, memory)
        finally:
            await asyncio.gather(*side_tasks, return_exceptions=True)


def _make_companion(served_plans: list[ServePlan], name: str) -> CompanionKeeper:
    """Return a keeper that restarts a companion if the engine is replaced, but not if only LiteLLM is replaced.

    `served_plans` grows with each generation; the companion uses the last plan.
    """

    def make_process() -> supervisor.ChildProcess:
        plan = served_plans[-1]
        return supervisor.ChildProcess(name, companion_command(plan, name), litellm_environment(plan))

    return CompanionKeeper(lambda: served_plans[-1].engine_number if served_plans else None, make_process)


def _serving_engine(plan: ServePlan) -> ServingEngine:
    """Return the address of a plan's engine (None if it runs elsewhere), and a function that opens a client for it."""
    if plan.socket is None:
        return ServingEngine(None, partial(build.open_engine, plan.file))
    address = f"unix:{plan.socket}"
    return ServingEngine(address, partial(HttpEngine, address))


def _renew_plan(first_plan: ServePlan) -> ServePlan:
    """Return the first plan with what the configuration files say now; raises `ConfigError` if they are not valid."""
    plan = make_plan(first_plan.litellm_file, first_plan.host, first_plan.port, first_plan.workers)
    return replace(
        first_plan, policies=plan.policies, file=plan.file, engine=plan.engine, starts_engine=plan.starts_engine
    )


def _build_generation(
    plan: ServePlan,
    running_engine: supervisor.EngineProcess | None,
    listener: socket.socket,
    socket_files: contextlib.ExitStack,
    usual_socket: Path | None,
    note_serving: Callable[[ServePlan], None],
) -> supervisor.Generation:
    """Build the engine and the LiteLLM of a plan; closing `socket_files` removes their socket files at the latest.

    With a `running_engine`, no engine is built. LiteLLM also listens on a probe socket, on which `serve` asks whether
    it is ready. `usual_socket` is the usual name of the engine's socket; None if another engine has it. `note_serving`
    is called with the plan as soon as both serve.
    """
    probe_file = socket_files.enter_context(contextlib.ExitStack())
    probe = probe_file.enter_context(sockets.listen_on_unix_socket(plan.probe_socket))
    engine = running_engine or _make_engine(plan)
    descriptors = [listener.fileno(), probe.fileno()]
    gateway = supervisor.ChildProcess(
        "litellm", litellm_command(plan, listener, probe), litellm_environment(plan), descriptors, is_held=True
    )

    def publish() -> None:
        """Let the usual socket name point to this engine, unless another engine has the name."""
        if usual_socket is not None and plan.socket is not None:
            socket_files.enter_context(_publish_socket(plan.socket, usual_socket))

    async def wait_serving() -> None:
        """Wait until LiteLLM serves, then let other tools find this generation."""
        with probe_file:
            await _wait_until_serving(plan)
        if plan.is_restart and running_engine is None:
            publish()
        note_serving(plan)

    if not plan.is_restart:
        publish()  # no older engine uses the name, so tools can already watch the engine while it loads
    return supervisor.Generation(engine, gateway, wait_serving)


def _make_engine(plan: ServePlan) -> supervisor.EngineProcess:
    """Return the engine process of a plan; an engine that runs elsewhere has no child process, and is waited for."""
    child = supervisor.ChildProcess("engine", engine_command(plan), engine_environment(plan)) if plan.socket else None
    return supervisor.EngineProcess(child, partial(_wait_until_loaded, plan))


@contextlib.contextmanager
def _publish_socket(socket_file: Path, usual_socket: Path) -> Iterator[None]:
    """Link the usual socket name to this engine's socket; on exit remove the link, unless a later engine has it."""
    sockets.publish(socket_file, usual_socket)
    try:
        yield
    finally:
        sockets.withdraw(socket_file, usual_socket)


def _claim_socket_name() -> Path | None:
    """Return the usual name of the engine's socket; None, and a log line, if another engine of this user has it."""
    usual_socket = config.default_socket()
    try:
        with sockets.listen_on_unix_socket(usual_socket):  # succeeds if no engine listens there
            return usual_socket
    except ConfigError:
        if usual_socket.exists() and not usual_socket.is_socket():
            raise
        log.info("%s belongs to another engine, so this gateway's engine cannot be reached there", usual_socket)
        return None


async def _wait_until_loaded(plan: ServePlan) -> None:
    """Wait until the engine is ready, and log what it serves; a model group of LiteLLM needs no waiting."""
    if plan.engine.kind is ServerKind.GROUP and not plan.socket:
        return
    if plan.is_restart and plan.socket:
        # The engine may have a newer version than this process, so it is asked only whether it is ready.
        await _wait_for_answer(plan.socket, "/health/ready")
        return
    engine = HttpEngine(f"unix:{plan.socket}", wait_s=2) if plan.socket else build.open_engine(plan.file)
    address = f"unix:{plan.socket}" if plan.socket else str(plan.engine)
    start_time = time.monotonic()
    try:
        with Terminal(stderr=True).status(f"waiting for the aligner at {address} ..."):
            info = await _retry_until_answer(engine.info)
    finally:
        await engine.aclose()
    seconds = time.monotonic() - start_time
    log.info("engine: %s on %s (%s) ready after %.1f s", info.model, info.device, info.quantization, seconds)


async def _wait_until_serving(plan: ServePlan) -> None:
    """Wait until LiteLLM accepts requests, and log its address; LiteLLM listens only after the aligner is loaded.

    After a restart it is enough that LiteLLM is alive, because whatever keeps it from being ready also affects the old
    one.
    """
    base_url = _base_url(plan)
    await _wait_for_answer(plan.probe_socket, "/health/liveliness" if plan.is_restart else "/health/readiness")
    log.info("ready: %s; point OPENAI_BASE_URL at %s/v1", base_url, base_url)


def _base_url(plan: ServePlan) -> str:
    """The gateway's URL for clients on this machine."""
    host = "127.0.0.1" if plan.host in {"0.0.0.0", "::"} else plan.host
    return f"http://[{host}]:{plan.port}" if ":" in host else f"http://{host}:{plan.port}"


async def _wait_for_answer(socket_file: Path, path: str) -> None:
    """Wait until a child process answers a GET request of the URL path `path` with success on its socket."""
    import httpx

    transport = httpx.AsyncHTTPTransport(verify=False, uds=str(socket_file))  # TLS is for other hosts
    async with httpx.AsyncClient(transport=transport, base_url="http://child", timeout=30) as client:

        async def ask_once() -> None:
            """Request the path once; raises `EngineUnavailable` without a successful answer."""
            try:
                response = await client.get(path)
                response.raise_for_status()
            except httpx.HTTPError as error:
                raise EngineUnavailable(str(error)) from None

        await _retry_until_answer(ask_once)


async def _retry_until_answer(ask_once: Callable[[], Awaitable[_T]]) -> _T:
    """Call `ask_once` every `_RETRY_S` seconds as long as it raises `CorrectionError`, and return its result.

    Each new reason is logged. This ends only with a result, with `EngineMismatch`, or when the supervisor cancels it.
    """
    last_reason = ""
    while True:
        try:
            return await ask_once()
        except EngineMismatch:
            raise  # waiting does not help; `serve` ends with this message
        except CorrectionError as error:
            if isinstance(error, EngineFault) and str(error) != last_reason:
                last_reason = str(error)
                log.warning("waiting: %s", last_reason)
            await asyncio.sleep(_RETRY_S)
