"""The page has every cell that there is, and no other; what is in them is compared by the test of each."""

from __future__ import annotations

import pytest

from tests.faults import faults
from tests.faults.cells import WRITE, cells, told


@pytest.mark.skipif(WRITE, reason="it is being written")
def test_the_page_has_every_cell_and_no_other() -> None:
    assert set(told()) == {(cell.fault.title, cell.policy.value, cell.mode.name) for cell in cells(faults.ALL)}
    assert len(told()) >= 40
