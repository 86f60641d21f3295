"""Each fault befalls the fleet under load: nobody waits in vain, gets nothing, or gets another's text."""

from __future__ import annotations

import pytest

from tests.fleet import faults, load, trial
from tests.fleet.bed import Fleet
from tests.fleet.faults import Fault

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


def marked(fault: Fault) -> object:
    return pytest.param(fault, id=fault.title, marks=() if fault.quick else pytest.mark.long)


@pytest.mark.parametrize("fault", [marked(fault) for fault in faults.EVERY])
def test_a_fault(bed: Fleet, fault: Fault) -> None:
    came_of_it = trial.tried(bed, fault)
    assert not [one for one in came_of_it.during if one.what in (load.HUNG, load.LOST, load.FOREIGN)]
    assert not trial.wrong(came_of_it)
    assert came_of_it.felt > 0, "nothing was wrong"
    trial.SEEN[fault.title] = trial.figures(came_of_it)
