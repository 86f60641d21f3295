"""Plugins as pip would leave them: a module and its metadata in a folder, without a build and without a network."""

from __future__ import annotations

import importlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from aligner_proxy.plugins import registry

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
    registry.load_plugins.cache_clear()
    return folder


def install_example(folder: Path) -> Path:
    """The example of plugins/, by what its own pyproject says."""
    told = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    entries = told["entry-points"]["aligner_proxy"]
    source = (EXAMPLE / "plain_words.py").read_text()
    return install(folder, "plain_words", source, version=told["version"], entries=entries)


def pretend_installed(monkeypatch: pytest.MonkeyPatch, entries: Sequence[EntryPoint]) -> None:
    """Let these plugins be the installed ones during a test.

    The test gets a cache of its own: a thread of an earlier test may be loading the plugins that really are installed,
    and would keep them in a cache that was only cleared.
    """
    monkeypatch.setattr(registry, "installed_plugins", lambda: tuple(entries))
    monkeypatch.setattr(registry, "load_plugins", cache(registry.load_plugins.__wrapped__))
