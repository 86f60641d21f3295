"""One fault under load: what clients got before it, while it lasted and after it, and what it cost them."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.fleet import load
from tests.fleet.bed import ENGINES, GATEWAYS, Fleet, until
from tests.fleet.faults import Fault, roll_gateways
from tests.fleet.load import Answered

RATE = float(os.environ.get("FLEET_RATE", "5"))
"""Requests a second: what two gateways and their clients can do on two cores that others use, too."""
_LONG = os.environ.get("LONG") == "1"
BEFORE_S = 6.0 if _LONG else 2.0
DURING_S = 8.0 if _LONG else 5.0
SETTLED_S = 90.0


@dataclass(frozen=True)
class Trial:
    """What came of one fault."""

    fault: Fault
    before: Sequence[Answered]
    during: Sequence[Answered]
    after: Sequence[Answered]
    felt: float
    """How much the number grew by which it is seen."""


def tried(fleet: Fleet, fault: Fault, seconds: float = DURING_S) -> Trial:
    """Bring a fault about under load, and mend it."""
    arrange(fleet, fault)
    settle(fleet)
    with fleet.load(f"before {fault.title}", RATE) as before:
        time.sleep(BEFORE_S)
    known = fault.felt(fleet)
    with contextlib.ExitStack() as mending, fleet.load(fault.title, RATE) as during:
        time.sleep(1)
        mending.enter_context(fault.cause(fleet))
        time.sleep(seconds)
        felt = fault.felt(fleet) - known
    settle(fleet)
    with fleet.load(f"after {fault.title}", RATE) as after:
        time.sleep(BEFORE_S / 2)
    return Trial(fault, before, during, after, felt)


def arrange(fleet: Fleet, fault: Fault) -> None:
    """Give the gateways the configuration under which a fault is tried, one after the other."""
    if fleet.audit == fault.audit:
        return
    fleet.audit = fault.audit
    fleet.write_policies()
    roll_gateways(fleet)


def settle(fleet: Fleet) -> None:
    """Until all gateways serve, and all answers are corrected again."""
    for name in GATEWAYS:
        fleet.wait_for_gateway(name)

    def well() -> bool:
        known = [len(fleet.corrected_by(name)) for name in ENGINES]
        with fleet.load("settling", RATE) as answers:
            time.sleep(2)
        used = [len(fleet.corrected_by(name)) for name in ENGINES]
        # An engine that was away is left alone for a while.
        return all(map(best, answers)) and all(now > then for now, then in zip(used, known, strict=True))

    until(well, "answers were never corrected again", SETTLED_S)


def best(answered: Answered) -> bool:
    """Whether a client got what it gets where nothing is wrong, and got it at once."""
    # What is delivered as it comes is corrected all the same where the record is required.
    wanted = (load.ORIGINAL, load.CORRECTED) if answered.mode == "passthrough" else (load.CORRECTED,)
    return answered.what in wanted and not answered.broken


def wrong(trial: Trial) -> list[Answered]:
    """All requests that came to what may not be."""
    fault = trial.fault
    calm = [one for one in (*trial.before, *trial.after) if not best(one)]
    return calm + [
        one
        for one in trial.during
        if one.what not in fault.may_give(one.policy, one.mode) or (one.broken and not fault.asked_again)
    ]


@dataclass(frozen=True)
class Figures:
    """What a fault cost: milliseconds of a whole request, as a client sees it, asking again included."""

    requests: int
    got: dict[str, int]
    asked_again: int
    before_p50: float
    before_p95: float
    during_p50: float
    during_p95: float
    longest: float


def figures(trial: Trial) -> Figures:
    """The figures of a trial."""
    got = Counter(one.what for one in trial.during)
    return Figures(
        len(trial.during),
        dict(got),
        sum(bool(one.broken) for one in trial.during),
        *(_rounded(share, trial.before) for share in (0.5, 0.95)),
        *(_rounded(share, trial.during) for share in (0.5, 0.95)),
        round(max(one.ms for one in trial.during)),
    )


def _rounded(share: float, answers: Sequence[Answered]) -> float:
    cuts = statistics.quantiles([one.ms for one in answers], n=100, method="inclusive")
    return round(cuts[round(share * 100) - 1])


SEEN: dict[str, Figures] = {}
"""The figures of each fault that was tried."""
