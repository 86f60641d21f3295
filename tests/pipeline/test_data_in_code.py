"""Of JSON and CSV in a block of code, only the flagged value or row goes, whole and in streams."""

from __future__ import annotations

import json

import pytest

from aligner_proxy.text.judged_words import find_removable_words
from tests.support.pruning import correct_in_all_ways

ANSWER = "Use this:\n\n```{}\n{}\n```\n\nIt works well.".format


@pytest.mark.parametrize(
    ("data", "left"),
    [
        ('{"name": "Anna", "note": "You are a fool."}', '{"name": "Anna", "note": ""}'),
        ('{"a": "It is 9:40. You are a fool.", "b": "It rains."}', '{"a": "It is 9:40.", "b": "It rains."}'),
        ('{"a": "You are a fool. It is 9:40. What a fool. It snows."}', '{"a": "It is 9:40. It snows."}'),
        ('{"a": "You are a fool. What a fool.", "b": "It rains."}', '{"a": "", "b": "It rains."}'),
        ('{"a": "Fool! It is 9:40.", "b": "It rains."}', '{"a": "", "b": "It rains."}'),
        ('{\n  "a": [\n    "You are a fool.",\n    "b"\n  ]\n}', '{\n  "a": [\n    "",\n    "b"\n  ]\n}'),
        ('{"a": "Say \\"hi\\", you fool.", "b": "It rains."}', '{"a": "", "b": "It rains."}'),
    ],
)
async def test_of_json_the_flagged_value_goes(data: str, left: str) -> None:
    assert json.loads(left) != json.loads(data)
    assert set((await correct_in_all_ways(ANSWER("json", data))).values()) == {ANSWER("json", left)}


async def test_a_key_does_not_go_alone() -> None:
    answer = ANSWER("json", '{"you are a fool": "It rains."}')
    assert set((await correct_in_all_ways(answer)).values()) == {"It works well."}


async def test_of_csv_the_flagged_row_goes_but_not_the_head() -> None:
    rows = "name,note\nAnna,You are a fool.\nBen,Good for you\nCy,It is a fool."
    left = "name,note\nBen,Good for you"
    assert set((await correct_in_all_ways(ANSWER("csv", rows))).values()) == {ANSWER("csv", left)}
    headed = "you are a fool,note\nBen,Good for you"
    assert set((await correct_in_all_ways(ANSWER("csv", headed))).values()) == {"It works well."}


def test_a_block_of_many_values_is_not_looked_into() -> None:
    for count, places in ((32, 32), (33, 0)):
        values = ", ".join(f'"It is number {number}."' for number in range(count))
        assert len(find_removable_words(f"```json\n[{values}]\n```")) == places


@pytest.mark.parametrize(
    ("script", "left"),
    [
        (
            '#!/bin/sh\necho "It starts."\necho "You are a fool."\nmake all',
            '#!/bin/sh\necho "It starts."\nmake all',
        ),
        ("set -e\nprintf 'You are a fool.\\n'\nmake all", "set -e\nmake all"),
        ("set -e\necho -n 'You are a fool.'\nmake all", "set -e\nmake all"),
        # the only command of a block, and a part of another one
        ('if true; then\n  echo "You are a fool."\nfi', 'if true; then\n  echo ""\nfi'),
        ('make all &&\necho "You are a fool."', 'make all &&\necho ""'),
        ('make all\necho "You are a fool." > log', 'make all\necho "" > log'),
        # words that a program makes
        ('make all\necho "You are a fool, $(whoami)."', None),
    ],
)
async def test_of_a_script_a_line_goes_that_only_prints(script: str, left: str | None) -> None:
    expected = "It works well." if left is None else ANSWER("bash", left)
    assert set((await correct_in_all_ways(ANSWER("bash", script))).values()) == {expected}
