"""How long somebody will be worked on is learned from who was."""

from __future__ import annotations

from aligner_proxy.engine.scheduling.scheduler import ServiceTime


def test_nobody_is_turned_away_before_anybody_has_ended() -> None:
    assert not ServiceTime().misses(deadline=0.1, now=0.0)


def test_it_follows_the_slow_ones_at_once_and_forgets_them_slowly() -> None:
    pace = ServiceTime()
    pace.note_end(2.0, failed=False)
    risen = pace.stay_s
    for _ in range(3):
        pace.note_end(0.1, failed=False)
    assert 0.8 < pace.stay_s < risen
    assert pace.misses(deadline=10.5, now=10.0)
    assert not pace.misses(deadline=15.0, now=10.0)


def test_one_that_failed_soon_says_nothing_and_one_that_failed_late_does() -> None:
    pace = ServiceTime(1.0)
    pace.note_end(0.01, failed=True)
    assert pace.stay_s == 1.0
    pace.note_end(3.0, failed=True)
    assert pace.stay_s == 2.0
