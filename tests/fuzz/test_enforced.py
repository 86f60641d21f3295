"""A few hundred of the hostile requests that `python -m tests.fuzz.enforced` tries in great number."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.enforced import POLICIES, enforcing, run, texts
from tests.fuzz.hostile import FORMS, SHAPES, TRICKS, case, defective
from tests.support.stream_fixtures import chat_items, message_items, response_items, text_items

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CASES = 300


@pytest.mark.slow
def test_no_original_is_delivered_under_an_enforced_objective(tmp_path: Path) -> None:
    tried = Counter[str]()
    failed = dict[int, str]()
    with enforcing(tmp_path) as enforced:
        run(enforced, (case(seed, POLICIES) for seed in range(1, CASES + 1)), tried, failed)
    assert {"corrected None"} <= set(enforced.seen)
    assert not failed, f"{len(failed)} of {CASES}, seeds {sorted(failed)}; the first:\n{next(iter(failed.values()))}"


def test_every_case_holds_the_defect_whatever_its_form() -> None:
    for form in FORMS.values():
        for shape in SHAPES.values():
            assert defective(shape(form(case(1, POLICIES).draft.rng)))
    seen = [case(seed, POLICIES) for seed in range(1, 8 * len(TRICKS) + 1, 3)]
    for one in seen:
        shown = list(texts(one.items if one.items is not None else [one.response]))
        assert any(map(defective, shown)), one.title


def test_a_case_is_that_of_its_seed() -> None:
    for seed in range(1, 40):
        first, second = case(seed, POLICIES), case(seed, POLICIES)
        assert (first.title, first.request, first.draft.text) == (second.title, second.request, second.draft.text)


@pytest.mark.parametrize("make", [chat_items, text_items, message_items, response_items])
def test_a_defect_in_pieces_is_seen(make: object) -> None:
    assert callable(make)
    assert any(map(defective, texts(make(["You are an id", "io", "t, Ann."]))))
    assert not any(map(defective, texts(make(["You are an id", "ol, Ann."]))))
