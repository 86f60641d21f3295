"""The test bed, started once for all tests of this folder that are run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import cells
from tests.fleet import faults, needs, page, trial
from tests.fleet.bed import Fleet, fleet


@pytest.fixture(scope="package")
def bed() -> Iterator[Fleet]:
    """A fleet that runs; it ends with the tests of this folder."""
    if said := needs.missing():
        pytest.skip(said)
    with fleet() as running:
        yield running


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the cells and the figures, if that was asked for and all faults were tried."""
    if cells.WRITE and not exitstatus and len(trial.SEEN) == len(faults.ALL):
        page.write_cells()
        page.write_figures(trial.SEEN)
