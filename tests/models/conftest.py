"""Where do the tests of `models` get their data? From sentences of our own; the research data only on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.research import research_data


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder in the shape of the research data."""
    return research_data(tmp_path_factory.mktemp("research"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The research data beside the checkout; tests that need it are marked `shared_data`."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "hh_rlhf_harmless_pairs.jsonl.gz").is_file():
        pytest.skip(f"no research data under {folder}")
    return folder
