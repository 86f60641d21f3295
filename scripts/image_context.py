"""Lays out what the build of an image reads: the files that deploy/Containerfile copies, and how pip finds packages.

`python -m scripts.image_context FOLDER VERSION` lays out FOLDER for a base with this version of Python: `context/` for
the builder, `pip.conf` with pip's settings of this machine, and `mounts` with the files and folders that they name. It
prints the name of the lock file with torch: ours, or one of this machine's own build (such as 2.13.0+cpu).
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = "requirements-torch.lock"
OWN_LOCK = "requirements-torch-own.lock"
_PATHS = re.compile(r"/[\w.+/-]+")


def copy_sources(context: Path) -> None:
    """Copy what .containerignore lets a builder see, with the files that links point at."""
    for line in (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines():
        for source in sorted(ROOT.glob(line[1:])) if line.startswith("!") else ():
            if source.is_dir():
                shutil.copytree(source, context / source.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, context / source.name)


def read_pip_settings() -> configparser.ConfigParser:
    """The settings of pip on this machine, of its files and of the environment, in one section."""
    setting_lines = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    settings = configparser.ConfigParser(interpolation=None)
    settings.add_section("global")
    # what stands in the environment counts more
    for line in sorted(setting_lines, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        settings.set("global", name.rpartition(".")[2], str(ast.literal_eval(value)))
    return settings


def find_own_torch(version: str) -> str:
    """The requirement, with its hash, of the torch that pip takes for this Python; empty if it is the registry's."""
    [pin] = re.findall(r"^torch==[\d.]+", (ROOT / LOCK).read_text(encoding="utf-8"), flags=re.MULTILINE)
    wheels = ["--only-binary=:all:", "--python-version", version, "--target", "unused"]
    options = ["install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", *wheels, pin]
    done = subprocess.run([sys.executable, "-m", "pip", *options], capture_output=True, text=True, check=True)
    [torch] = json.loads(done.stdout)["install"]
    torch_version = torch["metadata"]["version"]
    digest = torch["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"torch=={torch_version} --hash=sha256:{digest}" if "+" in torch_version else ""


def main() -> None:
    """Make the folder, and print which lock file has torch."""
    folder, version = Path(sys.argv[1]), sys.argv[2]
    context = folder / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    copy_sources(context)
    settings = read_pip_settings()
    with (folder / "pip.conf").open("w", encoding="utf-8") as file:
        settings.write(file)
    named_paths = {Path(path) for value in dict(settings["global"]).values() for path in _PATHS.findall(value)}
    # the pages of an index in a folder `simple` lead to files beside it
    mounts = {path.parent if path.name == "simple" else path for path in named_paths if path.exists()}
    (folder / "mounts").write_text("".join(f"{path}\n" for path in sorted(mounts)), encoding="utf-8")
    own = find_own_torch(version)
    if own:
        (context / OWN_LOCK).write_text(f"{own}\n", encoding="utf-8")
    sys.stdout.write(f"{OWN_LOCK if own else LOCK}\n")


if __name__ == "__main__":
    main()
