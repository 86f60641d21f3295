"""What the comparison tells of taught heads; teaching and serving them have tests of their own."""

from __future__ import annotations

from bench import taught_heads


def test_ratios_are_medians_of_pairs() -> None:
    seconds = {
        "one": [0.1, 0.2, 0.4],
        "one again": [0.1, 0.2, 0.4],
        "one taught": [0.2, 0.4, 0.4],
        "four": [0.5, 0.5, 0.5],
        "four taught": [0.5, 1.0, 0.6],
    }
    figures = taught_heads.summarise(seconds)
    assert (figures["taught_head_ratio"], figures["taught_heads_4_ratio"], figures["taught_head_noise"]) == (
        2.0,
        1.2,
        1.0,
    )
    assert [row["ms"] for row in figures["rows"]] == [200.0, 200.0, 400.0, 500.0, 600.0]
