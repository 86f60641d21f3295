"""What was used a moment ago is known without the disk, until it expires or others need the room."""

from __future__ import annotations

from aligner_proxy.pipeline.cache import Recent
from aligner_proxy.types import Correction, SegmentScore


class Clock:
    """Seconds since 1970."""

    now = 1000.0

    def __call__(self) -> float:
        """As told."""
        return self.now


def test_it_is_there_until_it_expires() -> None:
    clock = Clock()
    recent = Recent(clock=clock)
    recent.put("a", Correction("text"), 1010.0)
    assert recent.get("a") == Correction("text")
    clock.now = 1010.0
    assert recent.get("a") is None
    recent.put("b", Correction("x"), 1010.0)
    assert recent.get("b") is None, "one that has expired already is not kept"


def test_those_not_used_for_longest_make_room() -> None:
    recent = Recent(max_chars=30, clock=Clock())
    for key in "abc":
        recent.put(key, Correction("x" * 9), 2000.0)
    assert recent.get("a") is not None
    recent.put("d", Correction("x" * 9), 2000.0)
    assert [key for key in "abcd" if recent.get(key)] == ["a", "c", "d"]


def test_segments_take_room_too_and_what_takes_all_of_it_is_not_kept() -> None:
    recent = Recent(max_chars=30, clock=Clock())
    recent.put("a", Correction("x" * 9), 2000.0)
    recent.put("b", Correction("x" * 9, (SegmentScore("y" * 25, 1.0, True),)), 2000.0)
    assert recent.get("b") is None
    assert recent.get("a") is not None


def test_one_that_is_put_again_is_counted_once() -> None:
    recent = Recent(max_chars=30, clock=Clock())
    for text in ("one", "other"):
        recent.put("a", Correction(text), 2000.0)
    assert recent.get("a") == Correction("other")
    recent.put("b", Correction("x" * (30 - len("aother") - len("b"))), 2000.0)
    assert recent.get("a") is not None, "there is room for both"
