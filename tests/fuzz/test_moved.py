"""A thousand of the cases that `python -m tests.fuzz.moved` tries in great number, under both policies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import enforced
from tests.fuzz.hostile import INSULT, defective
from tests.fuzz.moved import case, check, check_untouched, enforcing, legible, passing, run
from tests.fuzz.places import ROOTS, places
from tests.support.sampling import examples

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

CASES = examples(1000)
OPENED = examples(300)


def test_no_text_that_was_not_judged_is_delivered_where_a_policy_blocks(tmp_path: Path) -> None:
    tried = Counter[str]()
    failed = dict[int, str]()
    with enforcing(tmp_path) as rig:
        run(rig, check, range(1, CASES + 1), tried, failed)
    assert not failed, (
        f"{len(failed)} of {CASES}, seeds {sorted(failed)[:50]}; the first:\n{next(iter(failed.values()))}"
    )


def test_no_text_that_was_not_judged_opens_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats are due all the time, so all that may go out before the answer is decided goes out as it comes."""

    async def slow_flow(items: list[Any]) -> AsyncIterator[Any]:
        async for item in flow(items):
            await asyncio.sleep(0.003)
            yield item

    flow, policies = enforced._flow, enforced.policies
    monkeypatch.setattr(enforced, "_flow", slow_flow)
    monkeypatch.setattr(enforced, "policies", lambda name: {**policies(name), "defaults": {"keepalive_s": 0.002}})
    failed = dict[int, str]()
    with enforcing(tmp_path) as rig:
        run(rig, check, [seed for seed in range(1, OPENED + 1) if seed // 4 % 2], Counter[str](), failed)
    assert not failed, f"seeds {sorted(failed)[:50]}; the first:\n{next(iter(failed.values()))}"


def test_without_enforcement_everything_is_as_it_was_sent(tmp_path: Path) -> None:
    tried = Counter[str]()
    failed = dict[int, str]()
    with passing(tmp_path) as rig:
        run(rig, check_untouched, range(1, CASES + 1), tried, failed)
    assert not failed, (
        f"{len(failed)} of {CASES}, seeds {sorted(failed)[:50]}; the first:\n{next(iter(failed.values()))}"
    )


@pytest.mark.parametrize("root", ROOTS, ids=str)
def test_a_place_holds_its_text(root: tuple[str, bool]) -> None:
    fields = places(*root)
    assert len(fields) > 4
    for place in (place for field in fields for place in field):
        assert any(map(defective, legible([place.make(INSULT)], None))), place.path


def test_most_cases_hold_the_defect_and_are_those_of_their_seeds() -> None:
    shown = 0
    made = [one for one in map(case, range(1, 201)) if one is not None]
    assert len(made) > 150
    for one in made:
        again = case(one.seed)
        assert again is not None
        assert again.title == one.title
        sent = one.items if one.items is not None else [one.response]
        error = next((item for item in sent if isinstance(item, Exception)), None)
        shown += any(map(defective, legible([item for item in sent if item is not error], error)))
    assert shown > len(made) * 0.8
