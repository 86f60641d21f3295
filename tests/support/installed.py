"""Plugins as pip would leave them: a module and its metadata in a folder, without a build and without a network."""

from __future__ import annotations

import importlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from aligner_proxy.plugins.registry import load_plugins

EXAMPLE = Path(__file__).resolve().parents[2] / "plugins" / "plain_words"


def install(folder: Path, module: str, source: str, *, version: str = "1.0", entries: Mapping[str, str]) -> Path:
    """Put one distribution with these entry points (name -> module) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    before = folder.stat().st_mtime
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (about / "entry_points.txt").write_text("\n".join(["[aligner_proxy]", *lines, ""]))
    # Whoever looked at the folder in this tick of the clock (a thread of an earlier test may) would see it as it was:
    # `importlib.metadata` remembers a folder by its time alone, and `invalidate_caches` does not reach it in 3.11.
    os.utime(folder, (before + 1, before + 1))
    importlib.invalidate_caches()
    load_plugins.cache_clear()
    return folder


def install_example(folder: Path) -> Path:
    """The example of plugins/, by what its own pyproject says."""
    told = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    entries = told["entry-points"]["aligner_proxy"]
    source = (EXAMPLE / "plain_words.py").read_text()
    return install(folder, "plain_words", source, version=told["version"], entries=entries)
