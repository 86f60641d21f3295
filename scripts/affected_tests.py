"""Finds the test files that a change affects, by imports; `make affected` runs them in full.

A test file is affected if it, or anything that it imports, has changed. A changed file that is not a module (a page, a
table, a template) counts as a change of all modules in its folder. Tests that start whole processes import little of
the code that they test, so every change of the package affects them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from scripts.imported_modules import ROOT, imported_files

SOURCES = ("aligner_proxy", "plugins", "models", "bench", "demo", "scripts", "tests")
PROCESSES = ("tests/clients", "tests/conformance", "tests/e2e", "tests/faults")
"""Folders with tests that start whole processes."""


def changed_files(base: str) -> list[str]:
    """Files that differ from the commit `base`, and new files."""
    changed = _git("diff", "--name-only", base)
    return [*changed, *_git("ls-files", "--others", "--exclude-standard")]


def _git(*arguments: str) -> list[str]:
    ran = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def read_imports() -> dict[str, set[str]]:
    """Map each file to the files of this repository that it imports."""
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    return {_relative_path(file): set(map(_relative_path, imported_files(file, everywhere=True))) for file in files}


def _relative_path(file: Path) -> str:
    return str(file.relative_to(ROOT))


def concerned_files(changed: Iterable[str], imported: Mapping[str, set[str]]) -> set[str]:
    """The changed modules, and all modules that import one of them directly or indirectly."""
    importers: dict[str, set[str]] = {}
    for file, others in imported.items():
        for other in others:
            importers.setdefault(other, set()).add(file)
    waiting = [module for file in changed for module in _modules_of(file, imported)]
    concerned: set[str] = set()
    while waiting:
        file = waiting.pop()
        if file not in concerned:
            concerned.add(file)
            waiting.extend(importers.get(file, ()))
    return concerned


def _modules_of(file: str, imported: Mapping[str, set[str]]) -> list[str]:
    if file in imported:
        return [file]
    folder = file.rpartition("/")[0]
    return [module for module in imported if folder and module.startswith(f"{folder}/")]


def affected_tests(changed: list[str], imported: Mapping[str, set[str]]) -> list[str]:
    """The test files and folders to run after a change of these files."""
    concerned = concerned_files(changed, imported)
    tests = {file for file in concerned if file.startswith("tests/") and Path(file).name.startswith("test_")}
    package = any(file.startswith(("aligner_proxy/", "plugins/")) for file in changed)
    return sorted(tests | set(PROCESSES if package else ()))


if __name__ == "__main__":
    print("\n".join(affected_tests(changed_files(sys.argv[1]), read_imports())))
