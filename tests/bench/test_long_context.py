"""The bench of long questions from end to end with a scripted engine, and its table in the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import fakes, long_context
from tests.support.scripted import SegmentEngine


@pytest.fixture
def script_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_context, "LocalEngine", lambda _: SegmentEngine(fakes.score))
    monkeypatch.setattr(long_context, "_CHUNK_S", 0.0)


@pytest.mark.usefixtures("script_engine")
def test_each_size_has_a_row_and_the_document_its_table(tmp_path: Path) -> None:
    found = long_context.run("scripted", 2, (512, 131_072))
    assert [row["tokens"] for row in found["rows"]] == [0, 512, 131_072]
    assert all(row["corrected"] == 1.0 for row in found["rows"])
    docs = tmp_path / "benchmarks.md"
    docs.write_text(f"# Before\n{long_context.BEGIN}\nold\n{long_context.END}\n# After\n")
    long_context.write(docs, long_context.format_table(found))
    text = docs.read_text()
    assert text.startswith(f"# Before\n{long_context.BEGIN}\n2 answers")
    assert text.endswith(f"{long_context.END}\n# After\n")
    assert "| 131,072 | 100% |" in text
    assert "old" not in text


def test_questions_are_as_long_as_they_say() -> None:
    (case,) = long_context.make_cases(8_192, 1)
    assert 4 * 8_192 <= len(case.question) <= 4 * 8_192 + 500


def test_the_document_has_the_place(tmp_path: Path) -> None:
    text = Path("docs/reference/benchmarks.md").read_text()
    assert text.index(long_context.BEGIN) < text.index(long_context.END)
    (tmp_path / "x.md").write_text("nothing")
    with pytest.raises(ValueError, match="no section"):
        long_context.write(tmp_path / "x.md", "text")
