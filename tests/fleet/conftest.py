"""The test bed, started once for all tests of this folder that are run."""

from __future__ import annotations

import pytest

from tests.e2e.processes import once
from tests.faults import cells
from tests.fleet import faults, needs, page, trial
from tests.fleet.bed import Fleet, fleet


@pytest.fixture(scope="session")
def bed(request: pytest.FixtureRequest) -> Fleet:
    """A fleet that runs."""
    if said := needs.missing():
        pytest.skip(said)
    return once(request.config, "fleet", lambda stack: stack.enter_context(fleet()))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the cells and the figures, if that was asked for and all faults were tried."""
    if cells.WRITE and not exitstatus and len(trial.SEEN) == len(faults.ALL):
        page.write_cells()
        page.write_figures(trial.SEEN)
