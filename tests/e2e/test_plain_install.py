"""`pip install .` in an environment of its own: a gateway before an engine elsewhere, without torch.

PLAIN_INSTALL names an environment that is there already; making one takes minutes, and a package registry.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aligner_proxy import extras
from tests.e2e.clients import Gateway
from tests.e2e.deployment import Deployment, proxy
from tests.e2e.processes import EngineProcess

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
DEPLOYMENT = Deployment().model("gpt")
CORRECTED = "The capital of France is Paris. It lies on the Seine."
ENGINE = sorted(set(extras.PACKAGES[extras.ENGINE]) - {"huggingface_hub"})
"""What only an engine needs; the hub's client comes with LiteLLM."""
LISTED = """
import importlib.metadata, importlib.util, json, sys
import aligner_proxy
needs = [need for need in importlib.metadata.requires("aligner-proxy") if "extra ==" not in need]
print(json.dumps([aligner_proxy.__file__, needs, [name for name in sys.argv[1:] if importlib.util.find_spec(name)]]))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment with nothing but `pip install .` in it."""
    if ready := os.environ.get("PLAIN_INSTALL"):
        return Path(ready) / "bin"
    folder = tmp_path_factory.mktemp("plain") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", str(ROOT)], check=True)
    return folder / "bin"


def said(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_it_brings_nothing_that_only_an_extra_needs(plain: Path, tmp_path: Path) -> None:
    done = said(plain / "python", "-c", LISTED, *ENGINE, cwd=tmp_path)
    place, needs, there = json.loads(done.stdout)
    assert ROOT not in Path(place).parents
    assert there == []
    named = {need.lower().replace("-", "_") for need in needs}
    for packages in extras.PACKAGES.values():
        assert not [need for need in named for package in packages if need.startswith(package)]


def test_it_carries_no_weights(plain: Path, tmp_path: Path) -> None:
    done = said(plain / "aligner-proxy", "doctor", "--json", cwd=tmp_path)
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["torch"]["verdict"] == "note"
    assert findings["torch"]["fix"] == "pip install 'aligner-proxy[engine]'"
    assert "pip install aligner-proxy-embedded" in findings["embedded aligner"]["found"]


def test_an_engine_here_is_refused_with_the_extra(plain: Path, tmp_path: Path) -> None:
    for command in (["engine", "--port", "0"], ["align", "-q", "When?"], ["pull"]):
        done = said(plain / "aligner-proxy", *command, cwd=tmp_path)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2
        assert line.endswith("pip install 'aligner-proxy[engine]'")


def test_a_command_about_reviews_is_refused_with_its_distribution(plain: Path, tmp_path: Path) -> None:
    done = said(plain / "aligner-proxy", "console", "--config", "litellm.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("pip install aligner-proxy-review\n")


def test_what_hosts_share_is_refused_with_the_distribution(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text("cache: {redis_env: SOME_REDIS}\ndefaults: {mode: off}\n")
    done = said(plain / "aligner-proxy", "check", "policies.yaml", cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.endswith("pip install aligner-proxy-fleet")


@pytest.fixture(scope="module")
def answers(
    plain: Path, engine: EngineProcess, upstream: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A real LiteLLM proxy of that environment, with the scripted engine elsewhere."""
    started = proxy(DEPLOYMENT, tmp_path_factory.mktemp("proxy"), folder, upstream, engine, guarded=True)
    started.process.command[0] = str(plain / "litellm")
    started.process.env["PYTHONPATH"] = ""
    started.process.start()
    try:
        started.wait()
        with contextlib.closing(Gateway(started.address)) as gateway:
            yield gateway
    finally:
        started.process.stop()


def test_its_gateway_corrects_answers(answers: Gateway) -> None:
    got = answers.chat("rude and plain")
    assert got.json()["choices"][0]["message"]["content"] == CORRECTED
    assert got.headers["x-aligner-status"] == "corrected"
    assert answers.chat_stream("rude and streamed").text() == CORRECTED
