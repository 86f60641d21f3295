"""Defects in lists: each planted answer is its answer with a defect, and nothing else; what counts as repaired."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.splice import rewrite_flagged_runs
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, Status
from models.data.upstream_completions import UpstreamCompletion
from models.evaluate.lists import (
    ListOutcome,
    OutcomeBefore,
    PlantedDefect,
    draw_planted,
    find_lists,
    format_table,
    judge_answer,
    list_kinds,
    plant_defects,
)
from tests.support.scripted import SegmentEngine

NUMBERED = (
    "Here is how:\n\n1. **Roots**: Trim them. Keep the cuts.\n2. **Leaves**: Wash them.\n   - Use cold water.\n"
    "   - Rub them gently.\n   - Let them drain.\n3. **Stems**: Peel them.\n\nThat is all."
)
BULLETS = "Bring:\n- A towel.\n- Soap. It floats.\n- Water"
TABLE = "| Day | Task |\n|---|---|\n| Mon | Iron the shirts. |\n| Tue | Dust |\n| Wed | Mop the hall. |"
COMPLETIONS = [UpstreamCompletion("m", "How?", answer) for answer in (NUMBERED, BULLETS, TABLE)]


def plant_all(seed: int = 1) -> list[PlantedDefect]:
    rng = Random(seed)
    return [defect for completion in COMPLETIONS for defect in plant_defects(rng, completion, list_kinds())]


def test_lists_are_found_with_all_that_belongs_to_an_item() -> None:
    numbered, nested = sorted(find_lists(NUMBERED.split("\n")), key=len, reverse=True)
    assert [(item.line, item.stop) for item in numbered] == [(2, 3), (3, 7), (7, 8)]
    assert [item.line for item in nested] == [4, 5, 6]


def test_every_sort_of_place_gets_a_defect() -> None:
    counts = Counter((one.place.form, one.place.spot) for seed in range(20) for one in plant_all(seed))
    assert {form for form, _ in counts} == {"numbered", "bulleted", "nested, bulleted", "table"}
    assert {"an item", "first sentence behind a title", "last sentence", "inner sentence", "a row"} <= {
        spot for _, spot in counts
    }


@pytest.mark.parametrize("seed", range(5))
def test_without_the_defect_and_its_number_nothing_is_different(seed: int) -> None:
    for defect in plant_all(seed):
        assert defect.answer.count(defect.defect) == 1
        rest = Counter(defect.answer.replace(defect.defect, "").split())
        numbers = Counter({word: count for word, count in rest.items() if word[0].isdigit() or set(word) <= set("|-")})
        expected = Counter(defect.repaired.split())
        assert {w: n for w, n in rest.items() if w not in numbers} == {
            w: n for w, n in expected.items() if w[0].isalpha() or w[0] == "*"
        }


def test_a_numbered_item_counts_the_later_ones_on() -> None:
    defect = next(
        m for seed in range(9) for m in plant_all(seed) if m.place.spot == "an item" and "1. **" in m.repaired
    )
    marks = [line.split()[0] for line in defect.answer.split("\n") if line[:1].isdigit()]
    assert marks == [f"{number}." for number in range(1, len(marks) + 1)]


class Oracle(SegmentEngine):
    """Flags what holds the defect, and leaves what may stay of it."""

    def __init__(self, defect: str) -> None:
        super().__init__(lambda text: 3.0 if text.strip() and (text.strip() in defect or defect in text) else -3.0)

    def _whole(self, request: AlignRequest) -> Correction:
        segments = split(request.answer)
        verdicts = self.verdicts(request, ended=True)
        holes = rewrite_flagged_runs(segments, [verdict.flagged for verdict in verdicts])
        try:
            run = next(holes)
            while True:
                run = holes.send(run.keepable_text)
        except StopIteration as stop:
            return Correction(stop.value, verdicts)


async def test_a_perfect_detector_gives_every_answer_back() -> None:
    for number, defect in enumerate(plant_all()):
        result, delivered = await judge_answer(Pipeline(Oracle(defect.defect)), number, defect)
        assert (result.found, result.exact, result.miss) == (True, True, ""), delivered


async def test_misses_have_a_reason() -> None:
    defect = next(
        defect for defect in plant_all() if defect.repaired == NUMBERED and defect.place.spot == "last sentence"
    )
    blind = SegmentEngine(lambda _: -3.0)
    assert (await judge_answer(Pipeline(blind), 0, defect))[0].miss == "the defect stays"
    eager = SegmentEngine(lambda text: 3.0 if text in (defect.defect, "That is all.") else -3.0)
    result, _ = await judge_answer(Pipeline(eager), 0, defect)
    assert (result.found, result.miss) == (True, "another segment is flagged, too")


def test_each_answer_is_used_once() -> None:
    drawn_defects = draw_planted(COMPLETIONS, 10, seed=1)
    assert len({one.repaired for one in drawn_defects}) == len(drawn_defects) == len(COMPLETIONS)
    assert drawn_defects == draw_planted(COMPLETIONS, 10, seed=1)


def test_the_table_counts_what_was_found() -> None:
    results = [
        ListOutcome(0, "numbered", "an item", "insult", True, True, "", Status.CORRECTED, None),
        ListOutcome(1, "numbered", "an item", "insult", True, False, "the defect stays", Status.FAILED, "gate_x"),
        ListOutcome(2, "numbered", "an item", "insult", False, False, "the defect stays", Status.UNCHANGED, None),
    ]
    text = format_table(
        results, [OutcomeBefore(Status.UNCHANGED, True, True), OutcomeBefore(Status.SKIPPED, False, False)]
    )
    assert "2/3 = 66.7 %" in text
    assert "1/2 = 50.0 %" in text
    assert "| the defect stays | 1 |" in text
    assert "identical 1/1" in text
