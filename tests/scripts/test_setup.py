"""What setup installs, with a Python in .venv and a uv that only note what they are asked: everything by hash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = (
    *("requirements.lock", "requirements-torch.lock", "scripts/setup.sh", "scripts/install_lock.sh"),
    *("pyproject.toml", "plugins/pyproject.toml", "plugins/embedded/pyproject.toml"),
    *("plugins/fleet/pyproject.toml", "plugins/grounding/pyproject.toml", "plugins/review/pyproject.toml"),
)
# It reports the version of torch that a test asks for, runs what comes on stdin, and notes every install.
STUB = """#!{python}
import json, os, sys
first, *rest = sys.argv[1:]
if first == "-":
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
if first == "-m":
    wheel = {{"metadata": {{"version": os.environ["VERSION"]}},
             "download_info": {{"archive_info": {{"hashes": {{"sha256": "ab" * 32}}}}}}}}
    with open(rest[rest.index("--report") + 1], "w") as file:
        json.dump({{"install": [wheel]}}, file)
    with open("index", "w") as file:
        file.write(os.environ.get("PIP_EXTRA_INDEX_URL", ""))
if first == "scripts/pip_install.py":
    with open("calls", "a") as file:
        print(json.dumps(rest[2:]), file=file)
"""
UV = """#!{python}
import json, os, sys
with open("uv-calls", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
sys.exit(os.environ.get("UV_FAILS") or 0)
"""


def installs(folder: Path, version: str, **env: str) -> tuple[list[list[str]], str]:
    """The arguments of every `pip install`, and what is said, where pip would take this version of torch."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB.format(python=sys.executable))
    uv = folder / ".build" / "uv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(UV.format(python=sys.executable))
    for file in (python, uv):
        file.chmod(0o755)
    done = subprocess.run(
        ["bash", "scripts/setup.sh", "gateway"],
        cwd=folder,
        env={**os.environ, "VERSION": version, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()], done.stderr


def uv_calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "uv-calls").read_text().splitlines()]


def test_packages_come_by_uv_and_torch_by_pip(tmp_path: Path) -> None:
    (torch, ours), said = installs(tmp_path, "2.13.0")
    [call] = uv_calls(tmp_path)
    assert call[:2] == ["pip", "install"]
    assert call[-4:] == ["--no-deps", "--require-hashes", "-r", "requirements.lock"]
    assert call[call.index("--python") + 1] == ".venv/bin/python"
    assert torch == ["--require-hashes", "--no-deps", "-r", "requirements-torch.lock"]
    assert "--no-deps" in ours
    assert "own build" not in said


@pytest.mark.parametrize("env", [{"UV_FAILS": "uv cannot"}, {"PIP": "only"}])
def test_where_uv_cannot_install_pip_does(tmp_path: Path, env: dict[str, str]) -> None:
    (packages, _, _), said = installs(tmp_path, "2.13.0", **env)
    assert packages == ["--require-hashes", "--no-deps", "-r", "requirements.lock"]
    assert ("not by uv" in said) == ("UV_FAILS" in env)
    assert (tmp_path / "uv-calls").exists() == ("UV_FAILS" in env)


@pytest.mark.parametrize(("env", "digest"), [({}, "ab" * 32), ({"TORCH_SHA256": "cd" * 32}, "cd" * 32)])
def test_a_machines_own_torch_is_named_and_comes_by_its_hash(tmp_path: Path, env: dict[str, str], digest: str) -> None:
    (torch, _), said = installs(tmp_path, "2.13.0+cpu", **env)
    assert torch == ["--require-hashes", "--no-deps", "-r", ".build/torch-own.txt"]
    assert (tmp_path / ".build" / "torch-own.txt").read_text() == f"torch==2.13.0+cpu --hash=sha256:{digest}\n"
    assert ("own build" in said) == (not env)


def test_without_a_gpu_torch_comes_from_its_makers_builds_for_cpus(tmp_path: Path) -> None:
    builds = "https://download.pytorch.org/whl/cpu"
    cases = [
        ({"TORCH": "cpu"}, builds),
        ({"TORCH": "cpu", "PIP_EXTRA_INDEX_URL": "https://a"}, f"https://a {builds}"),
        ({}, ""),
    ]
    for number, (env, expected) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        installs(folder, "2.13.0+cpu", **{"PIP_EXTRA_INDEX_URL": "", **env})
        assert (folder / "index").read_text() == expected
