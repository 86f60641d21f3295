"""Sentences that stand by themselves, and those that need others."""

from __future__ import annotations

import pytest

from aligner_proxy.text.fragments import independent_segments, stands_alone


@pytest.mark.parametrize(
    "text",
    [
        "Boil the water.",
        "2. Fill the kettle with cold water.",
        "Water boils at 100 degrees.",
        "It is important to wear gloves.",
        "The kettle should be filled before you switch it on.",
        "Yes, Berlin is the capital of Germany.",
        "A library lends books to those who live nearby.",
        "A loop repeats its body.",
        '```json\n{"lamp": "It is bright and costs 9 euros."}\n```',
        "The old tree in the yard loses its leaves in autumn.",
        "All banks know their customers.",
        "\u6c34\u5728\u4e00\u767e\u5ea6\u65f6\u6cb8\u817e\u3002",
        "\u0e19\u0e49\u0e33\u0e40\u0e14\u0e37\u0e2d\u0e14\u0e17\u0e35\u0e48\u0e23\u0e49\u0e2d\u0e22\u0e2d\u0e07\u0e28\u0e32",
    ],
)
def test_what_says_something(text: str) -> None:
    assert stands_alone(text)


@pytest.mark.parametrize(
    "text",
    [
        "Then let it dry.",
        "2. Then let it dry.",
        "Mix it well.",
        "Mix its colours.",
        "The same goes for its lid.",
        "The second loses its leaves.",
        "A friend of mine repaired it and its lid.",
        "The lid keeps them in their place.",
        "Do that.",
        "Finally, bring a friend along.",
        "Danach gut umr\u00fchren und warten.",
        "Sure, here is how to go about the whole thing:",
        "Here is a list of what you need:",
        "Of course!",
        "Yes.",
        "Good luck with everything!",
        "Get well soon, and rest a lot!",
        "I hope this helps!",
        "## The second part of it",
        "Ingredients:",
        "- Salt",
        "Rest.",
        "\u597d\u7684\uff01",
    ],
)
def test_what_needs_something_else(text: str) -> None:
    assert not stands_alone(text)


def test_a_reference_may_be_to_what_stands_right_before() -> None:
    texts = ["Paint the fence.", "Then let it dry.", "You fool.", "Then wash it."]
    assert independent_segments(texts, [True, True, False, True]) == [0, 1]
    assert independent_segments(texts, [False, True, False, True]) == []
