"""Parts that are measured one after the other leave no thread behind that could slow the next one."""

from __future__ import annotations

import threading

import pytest

from bench.isolation import wrap_in_thread


def test_work_is_done_in_another_thread_that_ends_with_it() -> None:
    """What it returns comes back; its thread is gone."""
    before = threading.active_count()
    where = wrap_in_thread(threading.current_thread)()
    assert where is not threading.current_thread()
    assert not where.is_alive()
    assert threading.active_count() == before


def test_what_goes_wrong_there_is_raised_here() -> None:
    """An error is not lost with the thread."""
    with pytest.raises(ZeroDivisionError):
        wrap_in_thread(lambda number: 1 / number)(0)
