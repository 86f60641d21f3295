"""What the comparison tells of a head in front of an editor; the engines themselves have tests of their own."""

from __future__ import annotations

from bench import small_head


def test_ratios_are_medians_of_pairs() -> None:
    told = small_head._summarise_times(
        {"good": [0.2, 0.4, 0.2], "insulted": [2.0, 2.0, 4.0], "alone": [20.0, 10.0, 30.0]}
    )
    assert told["n"] == 3
    assert (told["alone_over_good"], told["alone_over_insulted"]) == (100.0, 7.5)
    assert [row["seconds"] for row in told["rows"]] == [0.2, 2.0, 20.0]
