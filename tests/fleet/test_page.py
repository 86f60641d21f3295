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
