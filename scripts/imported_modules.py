"""Imports between the files of this repository, read from their source without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PLUGINS = ROOT / "plugins"
PLACES = (ROOT, _PLUGINS, *(_PLUGINS / name for name in ("embedded", "fleet", "grounding", "review", "vllm")))
"""The folders that contain importable modules."""


@cache
def module_file(name: str) -> Path | None:
    """The file of a module of this repository; None for other modules."""
    for place in PLACES:
        path = place.joinpath(*name.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


@cache
def imported_names(file: Path, *, everywhere: bool) -> tuple[str, ...]:
    """The modules that a file imports; a name imported from a module may be a module, so it is included as well.

    Without `everywhere`, only imports at the top level count, which run when the file itself is imported.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return tuple(_imported_names(_list_statements(tree) if everywhere else tree.body, file))


_PARTS = ("body", "handlers", "orelse", "finalbody", "cases")
"""The attributes of statements that hold other statements; no import is anywhere else."""


def _list_statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements inside a node; `ast.walk` would look at every expression as well, which takes twice as long."""
    for part in _PARTS:
        for statement in getattr(node, part, ()):
            yield statement
            yield from _list_statements(statement)


def _imported_names(nodes: Iterable[ast.AST], file: Path) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _package(file, node.level) + (node.module or "") if node.level else str(node.module)
            yield source.rstrip(".")
            yield from (f"{source.rstrip('.')}.{alias.name}" for alias in node.names)


def _package(file: Path, level: int) -> str:
    """The package that `level` dots refer to in a file, with a trailing dot."""
    folder = file.parents[level - 1]
    place = max((place for place in PLACES if folder.is_relative_to(place)), key=lambda place: len(place.parts))
    return "".join(f"{part}." for part in folder.relative_to(place).parts)


def imported_files(file: Path, *, everywhere: bool) -> set[Path]:
    """The files of this repository that a file imports, including those of the packages that contain them."""
    files: set[Path] = set()
    for name in imported_names(file, everywhere=everywhere):
        parts = name.split(".")
        packages = (".".join(parts[: count + 1]) for count in range(len(parts)))
        files.update(path for package in packages if (path := module_file(package)))
    return files
