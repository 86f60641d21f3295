"""Packages that a process cannot import, as if they were not installed.

LiteLLM brings some packages of our extras itself (jinja2, redis), so these are hidden from our own modules alone.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

OF_LITELLM = frozenset({"huggingface_hub", "jinja2", "markupsafe", "redis", "tokenizers"})
"""Packages that LiteLLM imports itself."""


class _Finder:
    """A finder of modules that finds nothing of some packages."""

    def __init__(self, finder: Any, packages: Collection[str]) -> None:
        self._finder = finder
        self._packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a module; None for a package that is hidden."""
        return None if name.partition(".")[0] in self._packages else self._finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def hide(packages: Collection[str]) -> None:
    """Hide packages from this process, and what LiteLLM needs of them from our modules; call it first."""
    assert not {name.partition(".")[0] for name in sys.modules} & set(packages) - OF_LITELLM
    from_all = set(packages) - OF_LITELLM
    sys.meta_path[:] = [_Finder(finder, from_all) for finder in sys.meta_path]  # type: ignore[misc]
    import_module = builtins.__import__
    find_spec = importlib.util.find_spec

    def import_visible(name: str, namespace: Any = None, *rest: Any, **named: Any) -> ModuleType:
        ours = str((namespace or {}).get("__name__")).startswith("aligner_proxy")
        level = named.get("level", rest[2] if len(rest) > 2 else 0)
        if ours and not level and name.partition(".")[0] in packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return import_module(name, namespace, *rest, **named)

    def find_visible(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in packages else find_spec(name, package)

    builtins.__import__ = import_visible
    importlib.util.find_spec = find_visible
