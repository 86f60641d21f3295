"""What `make dist` builds: every distribution, and the gateway's wheel runs by itself in a clean environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LARGEST_WHEEL = 1_500_000
EXAMPLES = {"plugins/plain_words"}
OURS = ("aligner_proxy", "__editable__", "_editable_")


def built_folders() -> list[str]:
    """The folders of which `make dist` builds the distributions."""
    [line] = re.findall(r"^DISTRIBUTIONS = (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return line.split()


def build(folder: Path, out: Path, *targets: str) -> list[Path]:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *targets, "-d", str(out)],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gateway's wheel, made of its sdist as a registry's users make it."""
    folder = tmp_path_factory.mktemp("dist")
    [sdist] = build(ROOT, folder / "sdist", "-t", "sdist")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    [built] = build(folder / sdist.name.removesuffix(".tar.gz"), folder / "wheel", "-t", "wheel")
    return built


def clean_environment(folder: Path) -> Path:
    """An environment that sees the packages of this one, but nothing of ours; its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(OURS) and entry.suffix != ".pth":
            (dependencies / entry.name).symlink_to(entry)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    return folder / "bin"


def test_every_distribution_is_built_but_the_example() -> None:
    projects = {str(path.parent.relative_to(ROOT)) for path in (ROOT / "plugins").rglob("pyproject.toml")} | {"."}
    assert set(built_folders()) == projects - EXAMPLES


def test_wheels_hold_the_source_and_no_weights(wheel: Path, tmp_path: Path) -> None:
    assert wheel.stat().st_size <= LARGEST_WHEEL
    [from_checkout] = build(ROOT, tmp_path, "-t", "wheel")
    contents = [
        {name for name in zipfile.ZipFile(path).namelist() if "dist-info" not in name}
        for path in (wheel, from_checkout)
    ]
    assert contents[0] == contents[1]
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "aligner_proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "embedded" not in path.parts
    }
    assert contents[0] == sources


def test_the_gateways_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    programs = clean_environment(tmp_path / "environment")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(programs / "python"),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, str(wheel)], check=True)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ALIGNER_PROXY_HOME")}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for arguments, part in ((["--help"], "Write the configuration of a new gateway"), (["--version"], version)):
        done = subprocess.run(
            [programs / "aligner-proxy", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert part in done.stdout
    place = [programs / "python", "-c", "import aligner_proxy; print(aligner_proxy.__file__)"]
    done = subprocess.run(place, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
