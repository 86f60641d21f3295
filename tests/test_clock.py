"""A time of day that goes on through every jump, and across processes and starts of the machine."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.clock import ClockReading, SteadyClock

DAY_S = 86_400.0
START = ClockReading(1_000_000_000.0, 500.0, "boot-1")


class Machine:
    """A machine whose clock can be set."""

    def __init__(self, start: ClockReading = START) -> None:
        self.reading = start

    def __call__(self) -> ClockReading:
        return self.reading

    def run(self, seconds: float) -> None:
        now = self.reading
        self.reading = replace(now, wall=now.wall + seconds, uptime=now.uptime + seconds)

    def set_clock(self, by: float) -> None:
        self.reading = replace(self.reading, wall=self.reading.wall + by)

    def boot(self, after: float) -> None:
        self.reading = ClockReading(self.reading.wall + after, 1.0, self.reading.boot + "'")


def shown() -> float | None:
    return REGISTRY.get_sample_value("aligner_clock_jump_seconds", {"clock": "test"})


@pytest.mark.parametrize("jump", [31 * DAY_S, -31 * DAY_S, 301.0, -301.0])
def test_a_jump_is_not_followed_and_is_shown(jump: float, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    clock = SteadyClock("test", read=machine)
    machine.run(100.0)
    machine.set_clock(jump)
    assert clock.now() == START.wall + 100.0
    machine.run(3600.0)
    assert clock.now() == START.wall + 3700.0
    assert shown() == abs(jump)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"jumped by {jump:+.0f} s" in caplog.text


def test_a_clock_that_comes_back_is_believed_at_once() -> None:
    machine = Machine()
    clock = SteadyClock("test", read=machine)
    machine.set_clock(5 * DAY_S)
    assert clock.now() == START.wall
    machine.run(60.0)
    machine.set_clock(-5 * DAY_S + 2.0)
    assert clock.now() == START.wall + 62.0
    assert shown() == 0.0


def test_a_new_time_that_stays_is_believed_in_the_end() -> None:
    machine = Machine()
    clock = SteadyClock("test", read=machine)
    machine.set_clock(5 * DAY_S)
    clock.now()
    machine.run(DAY_S - 1)
    assert clock.now() == START.wall + DAY_S - 1
    machine.run(2.0)
    assert clock.now() == START.wall + 6 * DAY_S + 1
    assert shown() == 0.0


def test_small_corrections_are_followed() -> None:
    machine = Machine()
    clock = SteadyClock("test", read=machine)
    for _ in range(10):
        machine.set_clock(30.0)
        machine.run(1.0)
        assert clock.now() == machine.reading.wall


def test_a_later_process_compares_with_the_same_uptime() -> None:
    machine = Machine()
    before = SteadyClock("test", read=machine).reading()
    machine.run(40 * DAY_S)
    later = SteadyClock("test", before, gap_s=3600.0, read=machine)
    assert later.now() == START.wall + 40 * DAY_S, "the machine ran all the time, so it is later"
    machine.set_clock(40 * DAY_S)
    again = SteadyClock("test", later.reading(), gap_s=3600.0, read=machine)
    assert again.now() == START.wall + 40 * DAY_S


def test_after_a_start_of_the_machine_a_gap_is_believed_up_to_its_bound() -> None:
    machine = Machine()
    before = SteadyClock("test", read=machine).reading()
    machine.boot(after=3000.0)
    assert SteadyClock("test", before, gap_s=3600.0, read=machine).now() == START.wall + 3000.0
    machine.boot(after=700.0)
    late = SteadyClock("test", before, gap_s=3600.0, read=machine)
    assert late.now() == START.wall
    machine.run(DAY_S)
    assert SteadyClock("test", late.reading(), gap_s=3600.0, read=machine).now() == START.wall + 3700.0 + DAY_S
