"""Data of the tests of `models`: sentences of our own; the research data only on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.pairs import Pair, read_pairs
from models.data.test_sets import main as write_sets
from models.reporting import loss_curves
from tests.models.research import research_data
from tests.support.sampling import examples

draw_curves = loss_curves.draw_curves


@pytest.fixture(autouse=True)
def undrawn_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw no curves, which takes longer than many of their steps; one test of the trainer looks at them."""
    monkeypatch.setattr(loss_curves, "draw_curves", lambda _: None)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder in the shape of the research data."""
    return research_data(tmp_path_factory.mktemp("research"))


@pytest.fixture(scope="session")
def set_size() -> int:
    """How many pairs of each held-out set tests look at: in the sample few, because making a set takes seconds."""
    return examples(10_000, 25)


@pytest.fixture(scope="session")
def dev_folder(data_dir: Path, set_size: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The development sets as the command writes them; making them takes seconds."""
    folder = tmp_path_factory.mktemp("dev")
    write_sets(["--data", str(data_dir), "--side", "dev", "--limit", str(set_size), "--out", str(folder)])
    return folder


@pytest.fixture(scope="session")
def dev_sets(dev_folder: Path) -> dict[str, list[Pair]]:
    """The development sets by name."""
    return {path.stem: list(read_pairs(path)) for path in sorted(dev_folder.iterdir())}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The research data beside the checkout; tests that need it are marked `shared_data`."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "hh_rlhf_harmless_pairs.jsonl.gz").is_file():
        pytest.skip(f"no research data under {folder}")
    return folder
