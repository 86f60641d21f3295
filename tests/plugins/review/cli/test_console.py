"""`aligner-proxy console`: what it refuses before it starts, and that it starts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from click.testing import CliRunner

from aligner_proxy.cli import main
from tests.e2e.processes import free_port
from tests.plugins.review.console.conftest import MASTER, Site
from tests.plugins.review.console.conftest import site as site


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["console", *arguments])
    assert result.exit_code == 2
    return result.output


def test_what_it_refuses(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    file = str(site.litellm)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for address in ("ftp://x", "http://", "http://x:99999"):
            words = refused("--config", file, "--port", port, "--gateway", address)
            assert "--gateway must be an address such as http://127.0.0.1:4000" in words
    assert "nothing.yaml" in refused("--config", str(tmp_path / "nothing.yaml"))
    data = yaml.safe_load(site.litellm.read_text())
    site.litellm.write_text(yaml.safe_dump(data | {"general_settings": {}}))
    assert "no master key" in refused("--config", file)
    permitted = {"dangerously_permit_weak_or_unset_master_key": True}
    site.litellm.write_text(yaml.safe_dump(data | {"general_settings": permitted}))
    assert "with which the operator logs in" in refused("--config", file)
    site.litellm.write_text(yaml.safe_dump({**data, "guardrails": []}))
    assert "no guardrail" in refused("--config", file)


@pytest.mark.slow
def test_it_serves_until_it_is_told_to_end(site: Site) -> None:
    port = free_port()
    command = [sys.executable, "-m", "aligner_proxy", "console", "--config", str(site.litellm), "--port", str(port)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("ALIGNER_PROXY_")}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            got = _first(f"http://127.0.0.1:{port}/login", process)
            assert "With the gateway&#39;s master key" in got.text or "With the gateway's master key" in got.text
            assert "server" not in got.headers
        finally:
            process.send_signal(signal.SIGTERM)
            printed = process.communicate(timeout=30)[0].decode()
    assert f"console: http://127.0.0.1:{port}" in printed
    assert MASTER not in printed


def _first(url: str, process: subprocess.Popen[bytes]) -> httpx.Response:
    """The first response of a process that starts."""
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url, trust_env=False, verify=False)
        time.sleep(0.1)
    raise AssertionError("it ended")
