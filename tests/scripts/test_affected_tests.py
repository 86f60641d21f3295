"""Which tests a change concerns."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[2] / "scripts" / "affected_tests.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("affected_tests", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_change_concerns_what_imports_it(script: ModuleType) -> None:
    imported = {
        "aligner_proxy/text/cutter.py": set(),
        "aligner_proxy/gate/judge.py": {"aligner_proxy/text/cutter.py"},
        "tests/gate/test_judge.py": {"aligner_proxy/gate/judge.py"},
        "tests/text/test_folding.py": set(),
        "models/data/pairs.py": set(),
        "tests/models/data/test_pairs.py": {"models/data/pairs.py"},
    }
    assert script.affected_tests(["aligner_proxy/text/cutter.py"], imported) == [
        *script.PROCESSES,
        "tests/gate/test_judge.py",
    ]
    assert script.affected_tests(["models/data/kinds.yaml"], imported) == ["tests/models/data/test_pairs.py"]
    assert script.affected_tests(["tests/text/test_folding.py"], imported) == ["tests/text/test_folding.py"]
    assert script.affected_tests(["README.md"], imported) == []


def test_imports_of_this_repository_are_found(script: ModuleType) -> None:
    imported = script.imports()
    assert "aligner_proxy/types.py" in imported["aligner_proxy/pipeline/pipeline.py"]
    concerned = script.concerned_files(["aligner_proxy/text/structure.py"], imported)
    assert {"tests/text/test_segments.py", "tests/gate/test_judge.py"} <= concerned
