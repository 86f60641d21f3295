"""What counts as a way to reach a person."""

from __future__ import annotations

import pytest

from aligner_proxy.text.facts import personal_data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to Jo.Doe+x@Mail.example.org.", {"jo.doe+x@mail.example.org"}),
        ("Call +49 (0)30 555-0199 or 0049 30 5550199.", {"490305550199", "49305550199"}),
        ("Call (555) 010-4477 or 555-0144.", {"5550104477", "5550144"}),
        ("At 12 Elm Street, 7b St. John's Road, or 221B Baker St.", None),
        ("Hauptstra\u00dfe 5, Am Lindenweg 12a", {"hauptstrasse 5", "lindenweg 12a"}),
        ("12, rue de Rivoli; Calle Mayor 14; Via Garibaldi 3", None),
    ],
)
def test_found(text: str, expected: set[str] | None) -> None:
    found = personal_data(text)
    assert found == expected if expected is not None else len(found) == 3


@pytest.mark.parametrize(
    "text",
    [
        "On 2024-05-12, from 1990-2000 and 12.05.2024, 1 250 000 people.",
        "It costs 1,250,000.00 or 3.50, version 2.10.333, at 10:30.",
        "Pages 12-14, 5 6, number 12345678901234567890.",
        "Main Street is long. 5 Ways to cook. Via email 3 times.",
        "10.1000/182 and 192.168.0.1",
    ],
)
def test_not_found(text: str) -> None:
    assert personal_data(text) == set()
