"""How `scripts/check_sizes.py` counts the attributes of classes, and which classes are too large."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

PLAIN = """
class Plain:
    def __init__(self):
        self.first, self.second = 1, 2
    def move(self):
        self.third = 3
"""
MUTABLE = """
@dataclass(slots=True)
class Mutable:
    first: int
    shared: ClassVar[int] = 1
    def move(self):
        self.late += 1
"""
FROZEN = """
@dataclass(frozen=True, slots=True)
class Frozen:
    first: int
    second: int
"""
SETTINGS = """
class Settings(BaseModel):
    first: int
    second: int
    third: int
"""
HEIR = """
class Heir(Plain):
    def __init__(self):
        self.first = 1
"""


@pytest.fixture
def check_sizes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_sizes", ROOT / "scripts" / "check_sizes.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_count_attributes_counts_fields_and_what_methods_assign(check_sizes: ModuleType) -> None:
    expected = {PLAIN: (3, False), MUTABLE: (2, False), FROZEN: (2, True), SETTINGS: (3, True), HEIR: (1, False)}
    for source, (attributes, record) in expected.items():
        [node] = ast.parse(source).body
        assert check_sizes.count_attributes(node) == attributes, source
        assert check_sizes.is_record(node) is record, source


def test_classes_wider_than_the_limit_are_errors_and_such_records_are_remarks(
    check_sizes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aligner_proxy").mkdir()
    (tmp_path / "aligner_proxy" / "module.py").write_text(PLAIN + FROZEN)
    monkeypatch.setattr(check_sizes, "ROOT", tmp_path)
    monkeypatch.setattr(check_sizes, "CLASS_ATTRIBUTES", 3)
    assert list(check_sizes.wide_classes()) == []
    monkeypatch.setattr(check_sizes, "CLASS_ATTRIBUTES", 1)
    (error,) = check_sizes.wide_classes()
    assert error.startswith("aligner_proxy/module.py:Plain has 3 attributes, more than 1")
    assert list(check_sizes.large_records()) == ["1 records have more than 1 fields: Frozen 2"]
