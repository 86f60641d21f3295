"""What can this machine run? Each check tries the thing itself and says what it found and what to fix.

`fault` means that a gateway cannot run here, `note` that something is missing that not everybody needs. Checks never
raise, never change anything, and import neither torch nor LiteLLM into this process.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx

from aligner_proxy import config
from aligner_proxy.engine import listen
from aligner_proxy.engine.client import HttpEngine
from aligner_proxy.errors import AlignerProxyError, ConfigError, CorrectionError

_SUPPORTED = ((3, 11), (3, 12), (3, 13))
_PROBE_S = 120.0
_HUB_S = 3.0
_NEED_DISK_GB, _NEED_MEMORY_GB = 1.0, 2.0


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


Check = Callable[[], Iterator[Finding]]


def examine(port: int) -> Iterator[Finding]:
    """All findings, each as soon as it is known."""
    checks: tuple[Check, ...] = (python, litellm, compute, weights, store, memory, engine, lambda: free(port), hub)
    for check in checks:
        yield from check()


def python() -> Iterator[Finding]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] in _SUPPORTED
    yield _finding("python", good, version, "use Python 3.11, 3.12 or 3.13")


def litellm() -> Iterator[Finding]:
    """The host, in the one version that is tested and known to be clean."""
    pinned = _pin()
    try:
        version = importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    good = pinned is None or version == pinned
    yield _finding("litellm", good, version, f"pip install 'litellm[proxy]=={pinned}'")


def _pin() -> str | None:
    """The version that our own metadata asks for."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for requirement in importlib.metadata.requires("aligner-proxy") or ():
            if match := re.match(r"litellm\[proxy\]==([\w.]+)", requirement):
                return match[1]
    return None


def compute() -> Iterator[Finding]:
    """torch, its device and the 4-bit kernels, tried out in a process of their own."""
    try:
        found = probe()
    except (subprocess.SubprocessError, ValueError, OSError) as error:
        yield Finding(
            "torch", Verdict.FAULT, f"does not run here ({type(error).__name__})", "pip install torch==2.13.0"
        )
        return
    yield Finding("torch", Verdict.OK, f"{found['torch']} on {_device(found)}")
    works, said = found["nf4_works"], found["nf4"]
    text = f"relative error {said} on a random layer" if works else str(said)
    fix = "reinstall bitsandbytes, or set aligner.quantization: none in the policies file (more memory, same answers)"
    yield _finding("4-bit kernels", works, text, fix)


def probe() -> dict[str, Any]:
    """The probe's report; raises what keeps it from reporting."""
    command = [sys.executable, "-m", "aligner_proxy.engine.probe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _device(found: dict[str, Any]) -> str:
    if found["device"] == "cuda":
        return f"{found['name']} ({found['memory_gb']} GB)"
    flags = set(found["cpu_flags"])
    quick = [name for flag, name in (("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX")) if flag in flags]
    return f"CPU, {found['threads']} threads, {' and '.join(quick) or 'without bf16 instructions'}"


def weights() -> Iterator[Finding]:
    """The embedded aligner and the base model that it edits."""
    from aligner_proxy.engine import sources

    try:
        source = sources.resolve("embedded")
    except AlignerProxyError as error:
        yield Finding("embedded aligner", Verdict.FAULT, str(error), "or set aligner.model to another aligner")
        return
    head = "with detector head" if source.head else "without detector head"
    yield Finding("embedded aligner", Verdict.OK, f"{head}, template {source.template}, checked against its hashes")


def store() -> Iterator[Finding]:
    """Whether prepared weights and corrections can be stored."""
    home = config.home()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free_gb = shutil.disk_usage(there).free / 2**30
    fix = "set ALIGNER_PROXY_HOME to a folder that you can write to"
    yield _finding("store", os.access(there, os.W_OK), str(home), fix)
    text = f"{free_gb:.1f} GB free"
    yield _finding("disk", free_gb >= _NEED_DISK_GB, text, f"free {_NEED_DISK_GB:g} GB, or move ALIGNER_PROXY_HOME")


def memory() -> Iterator[Finding]:
    """What the system says is free; the embedded aligner and one LiteLLM worker need about 2 GB together."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free_gb = _available() or total
    text = f"{free_gb:.1f} GB available of {total:.1f} GB"
    fix = f"a gateway with the embedded aligner needs about {_NEED_MEMORY_GB:g} GB"
    yield _finding("memory", free_gb >= _NEED_MEMORY_GB, text, fix, Verdict.NOTE)


def _available() -> float | None:
    info = Path("/proc/meminfo")
    match = re.search(r"MemAvailable:\s+(\d+) kB", info.read_text()) if info.exists() else None
    return int(match[1]) / 2**20 if match else None


def engine() -> Iterator[Finding]:
    """Whether an engine already runs on the default socket."""
    try:
        socket = config.default_socket()
        about = asyncio.run(_ask(f"unix:{socket}"))
    except ConfigError as error:
        yield Finding("engine", Verdict.FAULT, str(error))
    except CorrectionError:
        yield Finding("engine", Verdict.NOTE, f"none on {socket}", "`aligner-proxy serve` starts one")
    else:
        yield Finding("engine", Verdict.OK, about)


async def _ask(address: str) -> str:
    client = HttpEngine(address, patience_s=0.1)
    try:
        about = await client.info()
    finally:
        await client.aclose()
    return f"{about.model} {about.content_hash[:12]} on {about.device}, {about.quantization}"


def free(port: int) -> Iterator[Finding]:
    """Whether the gateway's port can be listened on."""
    try:
        with listen.tcp("127.0.0.1", port):
            yield Finding("port", Verdict.OK, f"{port} is free")
    except ConfigError as error:
        yield Finding("port", Verdict.NOTE, str(error))


def hub() -> Iterator[Finding]:
    """Whether weights could be fetched; the embedded aligner does not need it."""
    from huggingface_hub import constants  # knows the mirror that the user may have set

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
