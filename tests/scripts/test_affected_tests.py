"""Which tests a change concerns."""

from __future__ import annotations

import pytest

from scripts import affected_tests as script


def test_a_change_concerns_what_imports_it() -> None:
    imported = {
        "aligner_proxy/text/splitter.py": set(),
        "aligner_proxy/gate/judge.py": {"aligner_proxy/text/splitter.py"},
        "tests/gate/test_judge.py": {"aligner_proxy/gate/judge.py"},
        "tests/text/test_disguises.py": set(),
        "models/data/pairs.py": set(),
        "tests/models/data/test_pairs.py": {"models/data/pairs.py"},
    }
    assert script.affected_tests(["aligner_proxy/text/splitter.py"], imported) == [
        *script.PROCESSES,
        "tests/gate/test_judge.py",
    ]
    assert script.affected_tests(["models/data/kinds.yaml"], imported) == ["tests/models/data/test_pairs.py"]
    assert script.affected_tests(["tests/text/test_disguises.py"], imported) == ["tests/text/test_disguises.py"]
    assert script.affected_tests(["README.md"], imported) == []


FEW = ("aligner_proxy/gate", "aligner_proxy/pipeline", "aligner_proxy/text", "tests/gate", "tests/text")


@pytest.mark.some(1)  # every file of the repository takes seconds
@pytest.mark.parametrize("folders", [FEW, script.SOURCES], ids=["few", "all"])
def test_imports_of_this_repository_are_found(folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SOURCES", folders)
    imported = script.read_imports()
    assert "aligner_proxy/errors.py" in imported["aligner_proxy/pipeline/pipeline.py"]
    concerned = script.concerned_files(["aligner_proxy/text/structure.py"], imported)
    assert {"tests/text/test_segments.py", "tests/gate/test_judge.py"} <= concerned
