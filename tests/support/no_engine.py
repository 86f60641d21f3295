"""Plugin of pytest for an environment without the extra `engine`: leaves out the test files that need its packages.

What a file needs is read from its imports, and from those of the modules of this repository that it imports in turn.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from aligner_proxy import extras
from scripts.imported_modules import imported_names, module_file

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
        for name in imported_names(waiting.pop(), everywhere=False):
            if name.partition(".")[0] in NEEDED:
                return True
            if (module := module_file(name)) and module not in seen:
                seen.add(module)
                waiting.append(module)
    return False
