"""Each fault befalls the fleet under load: nobody waits in vain, gets nothing, or gets another's text."""

from __future__ import annotations

import pytest

from tests.fleet import faults, load, trial
from tests.fleet.bed import Fleet
from tests.fleet.faults import Fault

# Nine processes under load make other tests of the same machine late: `make fleet-test` has it for itself.
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.mark.parametrize("fault", faults.EVERY, ids=lambda fault: fault.title)
def test_a_fault(bed: Fleet, fault: Fault) -> None:
    came_of_it = trial.tried(bed, fault)
    assert not [one for one in came_of_it.during if one.what in (load.HUNG, load.LOST, load.FOREIGN)]
    assert not trial.wrong(came_of_it)
    assert came_of_it.felt > 0, "nothing was wrong"
    trial.SEEN[fault.title] = trial.figures(came_of_it)
