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
from tests.fleet.faults import Fault, engine_back, roll_gateways
from tests.fleet.load import Answered

RATE = float(os.environ.get("FLEET_RATE", "5" if load.ALONE else "2"))
"""Requests a second: what two gateways and their clients can do on two cores that others use, too."""
SLOWLY = 10
"""How many times fewer they are for the embedded aligner on a CPU; three times as long, so that there are some."""
BEFORE_S = 6.0 if load.ALONE else 2.0
DURING_S = 8.0 if load.ALONE else 3.0
SETTLED_S = 90.0 if load.ALONE else 300.0


@dataclass(frozen=True)
class Trial:
    """What came of one fault."""

    fault: Fault
    before: Sequence[Answered]
    during: Sequence[Answered]
    after: Sequence[Answered]
    felt: float
    """How much the number grew by which it is seen."""


def tried(fleet: Fleet, fault: Fault) -> Trial:
    """Bring a fault about under load, and mend it."""
    arrange(fleet, fault)
    settle(fleet)
    rate = RATE / SLOWLY if fault.embedded else RATE
    longer = 3 if fault.embedded else 1
    with fleet.load(f"before {fault.title}", rate) as before:
        time.sleep(BEFORE_S * longer)
    known = fault.felt(fleet)
    with contextlib.ExitStack() as mending, fleet.load(fault.title, rate) as during:
        time.sleep(1)
        mending.enter_context(fault.cause(fleet))
        time.sleep(DURING_S * longer)
        until(lambda: fault.felt(fleet) > known, f"nothing was wrong: {fault.title}")
        felt = fault.felt(fleet) - known
    settle(fleet)
    with fleet.load(f"after {fault.title}", rate) as after:
        time.sleep(BEFORE_S / 2 * longer)
    return Trial(fault, before, during, after, felt)


def arrange(fleet: Fleet, fault: Fault) -> None:
    """Give gateways the configuration and engines the aligner with which a fault is tried, one after the other."""
    if fleet.audit != fault.audit:
        fleet.audit = fault.audit
        fleet.write_policies()
        roll_gateways(fleet)
    if fleet.embedded != fault.embedded:
        fleet.embedded = fault.embedded
        for name in ENGINES:
            fleet.servers[name].stop()
            engine_back(fleet, name)


def settle(fleet: Fleet) -> None:
    """Until all gateways serve, and all answers are corrected again."""
    for name in GATEWAYS:
        fleet.wait_for_gateway(name)

    known = [len(fleet.corrected_by(name)) for name in ENGINES]

    def well() -> bool:
        with fleet.load("settling", RATE / SLOWLY if fleet.embedded else RATE) as answers:
            time.sleep(2)
        if fleet.embedded:
            return bool(answers) and all(map(best, answers))
        used = [len(fleet.corrected_by(name)) for name in ENGINES]
        # An engine that was away is left alone for a while.
        return all(map(best, answers)) and all(now > then for now, then in zip(used, known, strict=True))

    until(well, "answers were never corrected again", SETTLED_S)


def best(answered: Answered) -> bool:
    """Whether a client got what it gets where nothing is wrong, and got it at once."""
    # What is delivered as it comes is corrected all the same where the record is required.
    wanted = (load.ORIGINAL, load.CORRECTED) if answered.mode == "passthrough" else (load.CORRECTED,)
    return answered.what in wanted and not asked_again(answered)


def asked_again(answered: Answered) -> bool:
    """Whether a client had to ask again, where that is held against the fleet."""
    return load.ALONE and bool(answered.broken)


def wrong(trial: Trial) -> list[Answered]:
    """All requests that came to what may not be."""
    fault = trial.fault
    calm = [one for one in (*trial.before, *trial.after) if not best(one)]
    return calm + [
        one
        for one in trial.during
        if one.what not in fault.may_give(one.policy, one.mode) or (asked_again(one) and not fault.asked_again)
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
