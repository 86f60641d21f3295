"""Plugins as pip would leave them: a module and its metadata in a folder, without a build and without a network."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "plugins" / "plain_words"


def install(folder: Path, module: str, source: str, *, version: str = "1.0", entries: Mapping[str, str]) -> Path:
    """Put one distribution with these entry points (name -> module) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    lines = [f"{name} = {target}" for name, target in entries.items()]
    (about / "entry_points.txt").write_text("\n".join(["[aligner_proxy]", *lines, ""]))
    importlib.invalidate_caches()  # else a folder that was looked at in the same tick of the clock stays as it was
    return folder


def install_example(folder: Path) -> Path:
    """The example of plugins/, by what its own pyproject says."""
    told = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    entries = told["entry-points"]["aligner_proxy"]
    source = (EXAMPLE / "plain_words.py").read_text()
    return install(folder, "plain_words", source, version=told["version"], entries=entries)
