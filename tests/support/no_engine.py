"""Plugin of pytest for an environment without the extra `engine`: leaves out the test files that need its packages.

What a file needs is read from its imports, and from those of the modules of this repository that it imports in turn.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from aligner_proxy import extras

ROOT = Path(__file__).parents[2]
PLACES = (ROOT, ROOT / "plugins", ROOT / "plugins" / "vllm")
NEEDED = frozenset(extras.PACKAGES[extras.ENGINE]) - {"huggingface_hub"}  # LiteLLM brings that
_LEFT_OUT: list[str] = []


def pytest_configure() -> None:
    """What is left asks whether an engine could run here, and starts none: it could."""
    list_missing = extras.list_missing
    extras.list_missing = lambda extra, packages=None: [] if extra == extras.ENGINE else list_missing(extra, packages)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a test file that needs the engine; anything else is pytest's to decide."""
    if collection_path.suffix != ".py" or not needs_engine(collection_path):
        return None
    _LEFT_OUT.append(collection_path.name)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many files were left out."""
    terminalreporter.write_line(f"{len(_LEFT_OUT)} files left out, which need the extra `engine`")


@cache
def needs_engine(file: Path) -> bool:
    """Whether a module cannot be imported without a package of the extra."""
    seen = {file}
    waiting = [file]
    while waiting:
        for name in imports(waiting.pop()):
            if name.partition(".")[0] in NEEDED:
                return True
            if (module := source(name)) and module not in seen:
                seen.add(module)
                waiting.append(module)
    return False


@cache
def imports(file: Path) -> tuple[str, ...]:
    """The modules that a file imports when it is imported itself, also what may be a name in one of them."""
    return tuple(_imports(ast.parse(file.read_text(encoding="utf-8")).body))


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield str(statement.module)
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


@cache
def source(name: str) -> Path | None:
    """The file of a module of this repository."""
    for place in PLACES:
        path = place.joinpath(*name.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None
