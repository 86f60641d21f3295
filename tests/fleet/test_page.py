"""The page tells of every fault of the fleet what the tests hold it to, and the figures are of the same faults."""

from __future__ import annotations

import pytest

from tests.faults import cells
from tests.fleet import page
from tests.fleet.faults import ALL


@pytest.mark.skipif(cells.WRITE, reason="it is being written")
def test_the_page_has_the_cells_of_the_fleet() -> None:
    assert cells.told(of_fleet=True) == page.fault_cells()
    assert len({fault.title for fault in ALL}) >= 20


@pytest.mark.skipif(cells.WRITE, reason="they are being written")
def test_figures_are_of_the_same_faults() -> None:
    rows = [line for line in page.FIGURES.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    told = {line.split(" | ")[0].removeprefix("| ") for line in rows} - {"fault", "---"}
    assert len(told) >= 20
    assert told <= {fault.title for fault in ALL}
