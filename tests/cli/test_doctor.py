"""`doctor`: each check on its own, with the world as it is and with a world that is broken in one place."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from aligner_proxy import doctor
from aligner_proxy.cli import main
from aligner_proxy.doctor import Finding, Verdict

CPU = {"torch": "2.13.0", "device": "cpu", "name": "AVX512", "threads": 2, "cpu_flags": ["avx2", "avx512_bf16"]}
CUDA = {"torch": "2.13.0", "device": "cuda", "name": "Some GPU", "memory_gb": 24.0, "cpu_flags": []}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test alone."""
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def probed(monkeypatch: pytest.MonkeyPatch, **report: Any) -> list[Finding]:
    """What `compute` says about a probe's report."""
    monkeypatch.setattr(doctor, "probe", lambda: report)
    return list(doctor.compute())


def test_python_and_litellm_are_what_this_environment_has() -> None:
    (python,), (litellm,) = doctor.python(), doctor.litellm()
    assert (python.verdict, litellm.verdict) == (Verdict.OK, Verdict.OK)
    assert litellm.found == doctor._pin()


def test_another_litellm_is_a_fault_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_pin", lambda: "1.0.0")
    (finding,) = doctor.litellm()
    assert finding.verdict is Verdict.FAULT
    assert "litellm[proxy]==1.0.0" in finding.fix


def test_cpu_says_its_instructions_and_the_error_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, kernels = probed(monkeypatch, **CPU, nf4_works=True, nf4=0.09)
    assert torch.found == "2.13.0 on CPU, 2 threads, AVX512-BF16"
    assert (kernels.verdict, kernels.found) == (Verdict.OK, "relative error 0.09 on a random layer")


def test_gpu_says_its_name_and_broken_kernels_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, kernels = probed(monkeypatch, **CUDA, nf4_works=False, nf4="RuntimeError: no kernel image")
    assert torch.found == "2.13.0 on Some GPU (24.0 GB)"
    assert kernels.verdict is Verdict.FAULT
    assert "no kernel image" in kernels.found
    assert "quantization: none" in kernels.fix


def test_probe_that_dies_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies() -> dict[str, Any]:
        raise subprocess.CalledProcessError(-4, "probe")

    monkeypatch.setattr(doctor, "probe", dies)
    (finding,) = doctor.compute()
    assert (finding.verdict, finding.fix) == (Verdict.FAULT, "pip install torch==2.13.0")


@pytest.mark.slow
def test_the_real_probe_reports() -> None:
    report = doctor.probe()
    assert report["device"] in {"cpu", "cuda"}
    assert report["nf4_works"] is True


def test_store_that_cannot_be_written_and_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    monkeypatch.setattr("os.access", lambda *_: False)
    store, disk = doctor.store()
    assert (store.verdict, disk.verdict) == (Verdict.FAULT, Verdict.FAULT)
    assert "ALIGNER_PROXY_HOME" in store.fix


def test_no_engine_is_only_a_note() -> None:
    (finding,) = doctor.engine()
    assert finding.verdict is Verdict.NOTE
    assert "serve" in finding.fix


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (finding,) = doctor.free(port)
    assert finding.verdict is Verdict.NOTE
    assert str(port) in finding.found


def test_unreachable_hub_is_only_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> httpx.Response:
        raise httpx.ConnectError("nobody there")

    monkeypatch.setattr(httpx, "head", fails)
    (finding,) = doctor.hub()
    assert finding.verdict is Verdict.NOTE
    assert "not reachable" in finding.found


@pytest.mark.parametrize(("verdict", "status"), [(Verdict.OK, 0), (Verdict.NOTE, 0), (Verdict.FAULT, 1)])
def test_exit_status_says_whether_a_gateway_can_run(
    verdict: Verdict, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aligner_proxy.cli.doctor.examine", lambda _: iter([Finding("disk", verdict, "x [1]", "do")]))
    table = CliRunner().invoke(main, ["doctor"])
    assert table.exit_code == status
    assert "x [1]" in table.output
    assert json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["runs"] is (status == 0)
