"""The sample of all tests that `make test` runs; `make test-full` runs every one.

A test says by a mark what it leaves out of the sample:

    @pytest.mark.full                                    the whole test
    @pytest.mark.some(20)                                all cases but 20, spread evenly over their list
    @pytest.mark.covering("fault.title", "mode policy")  all cases but those that show a new combination

The last keeps a case if the values that it has for one of the combinations were in no case before it: here each fault
once, and each mode with each policy. Names are parameters of the test or attributes of one (`cell.fault.title`).
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import pytest

Case = TypeVar("Case")
SAMPLED = "ALIGNER_PROXY_SAMPLED_TESTS"
"""Set in the environment while only a sample runs; for what is decided while test files are imported."""


def examples(count: int, few: int | None = None) -> int:
    """How many examples a test tries: `count`, and in the sample `few`, or a quarter of them."""
    if SAMPLED not in os.environ:
        return count
    return count // 4 if few is None else few


def sample(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Which of `items` are in the sample, in their order."""
    kept: list[pytest.Item] = []
    for _, group in itertools.groupby(items, lambda item: item.nodeid.partition("[")[0]):
        kept.extend(_sample_of_one(list(group)))
    return kept


def _sample_of_one(cases: list[pytest.Item]) -> Iterable[pytest.Item]:
    """Of the cases of one test."""
    first = cases[0]
    if first.get_closest_marker("full"):
        return ()
    if some := first.get_closest_marker("some"):
        return spread(cases, *some.args)
    if covering := first.get_closest_marker("covering"):
        return cover(cases, covering.args)
    return cases


def spread(cases: Sequence[Case], count: int) -> Iterator[Case]:
    """`count` of them, or all if there are fewer, the first among them."""
    count = min(count, len(cases))
    return (cases[i * len(cases) // count] for i in range(count))


def cover(cases: Sequence[pytest.Item], combinations: Sequence[str]) -> Iterator[pytest.Item]:
    """In their order those that show values in a combination in which none before them showed them."""
    shown: set[tuple[str, ...]] = set()
    for case in cases:
        values = {(combination, *(_value(case, name) for name in combination.split())) for combination in combinations}
        if not values <= shown:
            shown |= values
            yield case


def _value(case: pytest.Item, name: str) -> str:
    parameter, *attributes = name.split(".")
    parameters = case.callspec.params  # type: ignore[attr-defined]
    return str(functools.reduce(getattr, attributes, parameters[parameter]))
