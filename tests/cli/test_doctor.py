"""`doctor`: each check on its own, with the world as it is and with a world that is broken in one place."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
import uvicorn
from click.testing import CliRunner
from starlette.responses import JSONResponse

from aligner_proxy.cli import doctor, main
from aligner_proxy.cli.doctor import DoctorFinding, LocalAligner, Severity
from aligner_proxy.engine import sockets, wire
from aligner_proxy.engine.weights.store import Prepared, WeightStore
from aligner_proxy.gateway import reload
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.registry import load_plugins
from aligner_proxy.policy import config
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.fleet import FleetHeartbeat, MemberState, policies_hash
from aligner_proxy_fleet.server import RedisServer
from tests.support.installed import install, install_example
from tests.support.redis_server import needs_redis, redis_process

CPU = {"torch": "2.13.0", "device": "cpu", "name": "AVX512", "threads": 2, "cpu_flags": ["avx2", "avx512_bf16"]}
CUDA = {"torch": "2.13.0", "device": "cuda", "name": "Some GPU", "memory_gb": 24.0, "cpu_flags": []}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test alone."""
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


SIZES = {"hidden": 64, "layers": 2, "inner": 128, "vocabulary": 384, "heads": 2, "kv_heads": 1, "head_size": 32}
ALIGNER = {"obstacle": None, "sizes": SIZES | {"tied": True}, "head_states": 4}
KERNELS = {"missing": None, "aligner": ALIGNER}


def probed(monkeypatch: pytest.MonkeyPatch, **report: Any) -> list[DoctorFinding]:
    """What `compute` says about a probe's report."""
    monkeypatch.setattr(doctor, "run_probe", lambda files: report)
    return list(doctor.check_compute())


def test_python_and_litellm_are_what_this_environment_has() -> None:
    (python,), (litellm,) = doctor.check_python(), doctor.check_litellm()
    assert (python.verdict, litellm.verdict) == (Severity.OK, Severity.OK)
    assert litellm.found == doctor._pinned_version()


def test_another_litellm_is_a_fault_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_pinned_version", lambda: "1.0.0")
    (finding,) = doctor.check_litellm()
    assert finding.verdict is Severity.FAULT
    assert "litellm[proxy]==1.0.0" in finding.fix


def test_cpu_says_its_instructions_and_the_error_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, kernels = probed(monkeypatch, **CPU, nf4_works=True, nf4=0.09)
    assert torch.found == "2.13.0 on CPU, 2 threads, AVX512-BF16"
    assert (kernels.verdict, kernels.found) == (Severity.OK, "relative error 0.09 on a random layer")


def test_gpu_says_its_name_and_broken_kernels_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, kernels, *_ = probed(monkeypatch, **CUDA, **KERNELS, nf4_works=False, nf4="RuntimeError: no kernel image")
    assert torch.found == "2.13.0 on Some GPU (24.0 GB)"
    assert kernels.verdict is Severity.FAULT
    assert "no kernel image" in kernels.found
    assert "quantization: none" in kernels.fix


def test_a_gpu_with_our_own_kernels_says_what_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, kernels, aligner, fits = probed(monkeypatch, **CUDA, **KERNELS, nf4_works=True, nf4=0.09)
    assert (kernels.check, kernels.verdict) == ("own kernels", Severity.OK)
    assert (aligner.verdict, aligner.found) == (Severity.OK, "embedded is of a family that own kernels compute")
    assert (fits.check, fits.verdict) == ("fits the GPU", Severity.OK)
    assert fits.found.startswith("on Some GPU (24 GB): 0.0 GB of weights, 262,144 tokens of KV cache, a bf16 copy")


def test_a_gpu_that_lacks_something_says_what_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"missing": "no package triton", "aligner": ALIGNER | {"obstacle": "the architecture gemma"}}
    small = CUDA | report | {"memory_gb": 0.5}
    _, _, kernels, aligner, fits = probed(monkeypatch, **small, nf4_works=True, nf4=0.09)
    assert (kernels.verdict, kernels.fix) == (Severity.NOTE, "pip install triton")
    assert kernels.found.endswith("no package triton")
    assert (aligner.verdict, aligner.fix.startswith("corrections are the same")) == (Severity.NOTE, True)
    assert aligner.found == "embedded stays on the library's forward: the architecture gemma"
    assert fits.verdict is Severity.NOTE
    assert fits.found.startswith("does not fit Some GPU (0.5 GB): not enough memory")


def test_a_gpu_is_checked_for_the_aligner_of_the_policies_file(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policies.yaml"
    given: list[object] = []

    def record(aligner: LocalAligner | None) -> dict[str, Any]:
        place = aligner.config.folder if aligner and aligner.config else None
        given.append(place)
        return CUDA | KERNELS | {"nf4_works": True, "nf4": 0.09, "aligner": ALIGNER if place else None}

    monkeypatch.setattr(doctor, "run_probe", record)
    path.write_text("aligner: {model: somebody/nothing, template: imhi, quantization: none}\n")
    *_, absent = doctor.check_compute(path)
    assert absent.verdict is Severity.NOTE
    assert "somebody/nothing is not on this machine; run: aligner-proxy pull somebody/nothing" in absent.found
    stored = Prepared("somebody/nothing", "0" * 64, "imhi", 4096, "none")
    store = WeightStore(home)
    store.remember("somebody/nothing", stored)
    store.folder(stored).mkdir()
    list(doctor.check_compute(path))
    (tmp_path / "full").mkdir()
    path.write_text("aligner: {model: ./full, template: imhi}\n")
    list(doctor.check_compute(path))
    path.write_text("aligner: {model: ./full, template: imhi, engine: 'http://127.0.0.1:9'}\n")
    *_, last = doctor.check_compute(path)
    assert last.check == "own kernels"
    assert given == [
        None,
        store.folder(stored),
        tmp_path / "full",
        None,
    ]


def test_probe_that_dies_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(files: object) -> dict[str, Any]:
        raise subprocess.CalledProcessError(-4, "probe")

    monkeypatch.setattr(doctor, "run_probe", dies)
    (finding,) = doctor.check_compute()
    assert finding.verdict is Severity.FAULT
    assert finding.fix == "pip install --require-hashes --no-deps -r requirements-torch.lock"


@pytest.mark.slow
@pytest.mark.slow
def run_here(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Run a module in this process, which has imported torch for other tests, as `python -m` would."""
    assert command[:2] == [sys.executable, "-m"]
    with contextlib.redirect_stdout(io.StringIO()) as printed, mock.patch.object(sys, "argv", command[2:]):
        runpy.run_module(command[2], run_name="__main__")
    return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")


@pytest.mark.some(1)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("run", [run_here, subprocess.run], ids=["here", "process"])
def test_the_real_probe_reports(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", run)
    report = doctor.run_probe()
    assert report["device"] in {"cpu", "cuda"}
    assert report["nf4_works"] is True


def test_store_that_cannot_be_written_and_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    monkeypatch.setattr("os.access", lambda *_: False)
    store, disk = doctor.check_store()
    assert (store.verdict, disk.verdict) == (Severity.FAULT, Severity.FAULT)
    assert "ALIGNER_PROXY_HOME" in store.fix


def test_no_engine_is_only_a_note() -> None:
    (finding,) = doctor.check_engine()
    assert finding.verdict is Severity.NOTE
    assert "serve" in finding.fix


def test_no_gateway_has_nothing_to_say_about_policies() -> None:
    assert list(doctor.check_policies()) == []


@pytest.mark.parametrize(
    ("report", "verdict", "said"),
    [
        ({}, Severity.OK, "uses /etc/p.yaml as of"),
        (
            {"refused": "p.yaml:3: unknown key 'x'", "refused_at": 2.0},
            Severity.NOTE,
            "refused: p.yaml:3: unknown key 'x'",
        ),
        (
            {"restart": ("p.yaml:2: aligner.model changed on disk; restart the gateway to apply it",)},
            Severity.NOTE,
            "p.yaml:2: aligner.model",
        ),
        ({"keys": "k.yaml does not exist"}, Severity.NOTE, "k.yaml does not exist"),
    ],
)
def test_what_a_running_gateway_goes_by_is_said(report: dict[str, Any], verdict: Severity, said: str) -> None:
    reload.write_report(reload.ReloadReport(os.getpid(), "/etc/p.yaml", 1.0, **report))
    finding = next(iter(doctor.check_policies()))
    assert finding.verdict is verdict
    assert said in finding.found
    assert bool(finding.fix) is (verdict is Severity.NOTE)


def test_an_engine_of_another_version_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    served = wire.WireVersionCheck(JSONResponse({}))
    monkeypatch.setattr(wire, "VERSION_HEADERS", {wire.HEADER: "99", wire.RELEASE: "9.9"})
    with sockets.listen_on_unix_socket(config.default_socket()) as listener:
        server = uvicorn.Server(uvicorn.Config(served, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        (finding,) = doctor.check_engine()
        server.should_exit = True
        thread.join()
    assert finding.verdict is Severity.FAULT
    assert "the engine is of another version (aligner-proxy 9.9, wire 99) than the gateway" in finding.found


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (finding,) = doctor.check_port(port)
    assert finding.verdict is Severity.NOTE
    assert str(port) in finding.found


def test_unreachable_hub_is_only_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> httpx.Response:
        raise httpx.ConnectError("nobody there")

    monkeypatch.setattr(httpx, "head", fails)
    (finding,) = doctor.check_hub()
    assert finding.verdict is Severity.NOTE
    assert "not reachable" in finding.found


@pytest.mark.parametrize(("verdict", "status"), [(Severity.OK, 0), (Severity.NOTE, 0), (Severity.FAULT, 1)])
def test_exit_status_says_whether_a_gateway_can_run(
    verdict: Severity, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [DoctorFinding("disk", verdict, "x [1]", "do")]
    monkeypatch.setattr("aligner_proxy.cli.doctor.examine", lambda *_: iter(found))
    table = CliRunner().invoke(main, ["doctor"])
    assert table.exit_code == status
    assert "x [1]" in table.output
    assert json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["runs"] is (status == 0)


def test_every_address_of_the_back_end_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("aligner: {engine: ['http://127.0.0.1:9', 'http://127.0.0.1:10']}\n")
    first, second = doctor.check_backend(path)
    assert (first.verdict, second.verdict) == (Severity.FAULT, Severity.FAULT)
    assert "http://127.0.0.1:9 (aligner-proxy engine): no engine answers" in first.found
    path.write_text("aligner: {engine: {at: 'http://127.0.0.1:9/v1', model: m}}\n")
    (completions,) = doctor.check_backend(path)
    assert "completions server): no server answers" in completions.found
    path.write_text("aligner: {engine: 'litellm:aligners'}\n")
    (group,) = doctor.check_backend(path)
    assert (group.verdict, "only inside the gateway" in group.found) == (Severity.NOTE, True)
    path.write_text("aligner: {}\n")
    (local,) = doctor.check_backend(path)
    assert local.verdict is Severity.NOTE
    assert not list(doctor.check_backend(None))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Installed plugins: the example, and one that cannot be loaded."""
    folder = install_example(tmp_path / "site")
    install(folder, "broken", "import no_such_module_at_all", entries={"broken": "broken"})
    monkeypatch.syspath_prepend(str(folder))
    for name in ("ALIGNER_PROXY_PLUGINS", "ALIGNER_PROXY_POLICIES"):
        monkeypatch.delenv(name, raising=False)
    load_plugins.cache_clear()
    yield folder
    load_plugins.cache_clear()


def test_plugins_are_named_with_what_they_offer(site: Path) -> None:
    found = {finding.check: finding for finding in doctor.check_plugins()}
    assert found["correctors"].found.startswith("metaaligner, aligner, self_refine, stream_aligner, plain_words")
    assert found["plugin meal"].found.endswith("comes with the gateway; objectives: auto; keys of a policy: best_of")
    assert found["plugin metaalign"].found.endswith("; keys of a policy: preferences, allow_preferences")
    assert "correctors: self_refine (a model of" in found["plugin self_refine"].found
    assert found["plugin plain_words"].found.startswith("0.1.0; correctors: plain_words (plain words")
    assert "gate rules: calm" in found["plugin plain_words"].found
    assert (found["plugin broken"].verdict, found["plugin broken"].found) == (
        Severity.NOTE,
        "1.0, left out: a plugin raised ModuleNotFoundError",
    )


@pytest.mark.parametrize("switch", ["environment", "file"])
def test_plugins_that_are_switched_off_are_named_and_not_loaded(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    if switch == "environment":
        monkeypatch.setenv("ALIGNER_PROXY_PLUGINS", "off")
    else:
        (tmp_path / "policies.yaml").write_text("plugins: {third_party: false}\n")
        monkeypatch.setenv("ALIGNER_PROXY_POLICIES", str(tmp_path / "policies.yaml"))
    found = {finding.check: finding for finding in doctor.check_plugins()}
    assert found["correctors"].found.startswith("metaaligner, aligner, self_refine, stream_aligner (")
    assert found["plugins"].found == "switched off, not loaded: broken, plain_words"
    assert not {"plugin plain_words", "plugin broken"} & set(found)


def _standing(**said: str) -> MemberState:
    told: dict[str, Any] = {"host": "a", "release": "1", "policies": "p", "keys": "k", "heads": "h", "pid": 1}
    return MemberState(**told | said)


def tell(url: str, *standings: MemberState) -> None:
    """What gateway processes with these in force tell the Redis."""

    async def told() -> None:
        server = RedisServer(url, "ALIGNER_TEST_REDIS")
        for one in standings:
            await FleetHeartbeat(server, EntryCodec()).exchange(one)
        await server.aclose()

    asyncio.run(told())


@needs_redis
def test_the_redis_of_a_policies_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("cache: {redis_env: ALIGNER_TEST_REDIS}\n")
    monkeypatch.delenv("ALIGNER_TEST_REDIS", raising=False)
    (missing,) = doctor.check_redis(path)
    assert (missing.verdict, missing.found[:20]) == (Severity.FAULT, "policies.yaml:1: cac")
    with redis_process(tmp_path / "redis") as server:
        monkeypatch.setenv("ALIGNER_TEST_REDIS", server.url)
        answers, fleet, full = doctor.check_redis(path)
        assert answers.verdict is Severity.OK
        assert "in ALIGNER_TEST_REDIS" in answers.found
        assert "not encrypted" in answers.found
        assert (fleet.check, fleet.verdict) == ("fleet", Severity.NOTE)
        assert "no gateway has reported" in fleet.found
        assert full.verdict is Severity.NOTE
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        own = _standing(host="a", policies=policies_hash(registry.load_policies(path)))
        tell(server.url, own, own.model_copy(update={"host": "b"}))
        assert [(one.check, one.verdict) for one in doctor.check_redis(path)] == [
            ("redis", Severity.OK),
            ("fleet", Severity.OK),
        ]
        tell(server.url, own.model_copy(update={"host": "c", "policies": "elsewhere"}))
        _, differs = doctor.check_redis(path)
        assert differs.verdict is Severity.NOTE
        assert "3 gateway processes on 3 hosts: policies differ" in differs.found
        assert f"elsewhere on c; {own.policies} on a, b" in differs.found or "on a, b; elsewhere on c" in differs.found
        path.write_text("cache: {redis_env: ALIGNER_TEST_REDIS, ttl_s: 60}\n")
        assert "no gateway uses this policies file" in list(doctor.check_redis(path))[-1].found
    (away,) = doctor.check_redis(path)
    assert away.verdict is Severity.NOTE
    assert server.url not in away.found
