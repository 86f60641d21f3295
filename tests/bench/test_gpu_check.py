"""`make gpu-check` from end to end on a tiny shape and the CPU, and what it says where there is no GPU."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu_check, shapes

SMALL = ["--shapes", "tiny", "--device", "cpu", "--rounds", "1", "--sequences", "3", "--tokens", "40", "--answer", "16"]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    file = tmp_path / "benchmarks.md"
    file.write_text(f"# Before\n{gpu_check.BEGIN}\nnot measured\n{gpu_check.END}\n# After\n")
    return file


def test_it_checks_all_three_and_writes_its_section_alone(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([*SMALL, "--cases", "4", "--docs", str(docs)]) == 0
    text = docs.read_text()
    assert text.startswith(f"# Before\n{gpu_check.BEGIN}\n")
    assert text.endswith(f"{gpu_check.END}\n# After\n")
    assert "| tiny | 4 of 4 | 4 of 4 |" in text
    assert "not measured" not in text
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny"))
    assert row.count("|") == 5 + len(gpu_check.RATES) + 1
    assert row.split("|")[6].strip().endswith(", 1)")  # an unchanged answer: one forward that generates


def test_a_rehearsal_goes_through_all_of_it_and_writes_nothing(
    docs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It checks as the test above does, which measures; here what it found is given."""
    checked = list[tuple[str, dict[str, Any]]]()

    def check(shape: str, asked: argparse.Namespace) -> dict[str, Any]:
        checked.append((shape, vars(asked)))
        rate = {"ratio": 2.0, "ms": 3.0, "generate_ms": 6.0, "forwards": 1.0}
        rates = dict.fromkeys(gpu_check.RATES, rate)
        return {"shape": shape, "equal": (8, 8), "cases": 8, "weights_gb": 0, "peak_gb": 0, "rates": rates}

    monkeypatch.setattr(gpu_check, "check", check)
    before = docs.read_text()
    assert gpu_check.main(["--rehearse", "--docs", str(docs)]) == 0
    [(shape, asked)] = checked
    assert shape == "tiny"
    as_options = [(f"--{name}", str(asked[name])) for name in ("rounds", "sequences", "tokens", "answer", "cases")]
    measured = ["--shapes", *asked["shapes"], "--device", asked["device"], *itertools.chain(*as_options)]
    assert measured == [*SMALL, "--cases", "8"]
    assert "| tiny | 8 of 8 | 8 of 8 |" in capsys.readouterr().out
    assert docs.read_text() == before


def test_four_bits_take_the_place_of_every_linear_layer_inside() -> None:
    made = shapes.make_model("tiny", "cpu", torch.bfloat16, four_bits=True)
    kinds = {type(module).__name__ for module in made.model.layers.modules()}
    assert "Linear4bit" in kinds
    assert "Linear" not in kinds


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_writes_nothing(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = docs.read_text()
    assert gpu_check.main(["--docs", str(docs)]) == 1
    assert "needs a CUDA device" in capsys.readouterr().err
    assert docs.read_text() == before


def test_a_document_without_the_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.md").write_text("nothing")
    with pytest.raises(ValueError, match="no section"):
        gpu_check.write(tmp_path / "x.md", "text")


def test_the_document_has_the_place() -> None:
    text = Path("docs/reference/benchmarks.md").read_text()
    assert text.index(gpu_check.BEGIN) < text.index(gpu_check.END)
