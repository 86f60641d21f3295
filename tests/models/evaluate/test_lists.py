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
from models.evaluate.lists import Judged, Planted, Untouched, drawn, judged, kinds, lists_of, plants, table
from tests.support.scripted import SegmentEngine

NUMBERED = (
    "Here is how:\n\n1. **Roots**: Trim them. Keep the cuts.\n2. **Leaves**: Wash them.\n   - Use cold water.\n"
    "   - Rub them gently.\n   - Let them drain.\n3. **Stems**: Peel them.\n\nThat is all."
)
BULLETS = "Bring:\n- A towel.\n- Soap. It floats.\n- Water"
TABLE = "| Day | Task |\n|---|---|\n| Mon | Iron the shirts. |\n| Tue | Dust |\n| Wed | Mop the hall. |"
COMPLETIONS = [UpstreamCompletion("m", "How?", answer) for answer in (NUMBERED, BULLETS, TABLE)]


def planted(seed: int = 1) -> list[Planted]:
    rng = Random(seed)
    return [made for completion in COMPLETIONS for made in plants(rng, completion, kinds())]


def test_lists_are_found_with_all_that_belongs_to_an_item() -> None:
    numbered, nested = sorted(lists_of(NUMBERED.split("\n")), key=len, reverse=True)
    assert [(item.line, item.stop) for item in numbered] == [(2, 3), (3, 7), (7, 8)]
    assert [item.line for item in nested] == [4, 5, 6]


def test_every_sort_of_place_gets_a_defect() -> None:
    found = Counter((made.place.form, made.place.spot) for seed in range(20) for made in planted(seed))
    assert {form for form, _ in found} == {"numbered", "bulleted", "nested, bulleted", "table"}
    assert {"an item", "first sentence behind a title", "last sentence", "inner sentence", "a row"} <= {
        spot for _, spot in found
    }


@pytest.mark.parametrize("seed", range(5))
def test_without_the_defect_and_its_number_nothing_is_different(seed: int) -> None:
    for made in planted(seed):
        assert made.answer.count(made.defect) == 1
        left = Counter(made.answer.replace(made.defect, "").split())
        numbers = Counter({word: count for word, count in left.items() if word[0].isdigit() or set(word) <= set("|-")})
        kept = Counter(made.repaired.split())
        assert {w: n for w, n in left.items() if w not in numbers} == {
            w: n for w, n in kept.items() if w[0].isalpha() or w[0] == "*"
        }


def test_a_numbered_item_counts_the_later_ones_on() -> None:
    made = next(m for seed in range(9) for m in planted(seed) if m.place.spot == "an item" and "1. **" in m.repaired)
    marks = [line.split()[0] for line in made.answer.split("\n") if line[:1].isdigit()]
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
            made = next(holes)
            while True:
                made = holes.send(made.keepable)
        except StopIteration as stop:
            return Correction(stop.value, verdicts)


async def test_a_perfect_detector_gives_every_answer_back() -> None:
    for number, made in enumerate(planted()):
        result, delivered = await judged(Pipeline(Oracle(made.defect)), number, made)
        assert (result.found, result.exact, result.miss) == (True, True, ""), delivered


async def test_misses_have_a_reason() -> None:
    made = next(made for made in planted() if made.repaired == NUMBERED and made.place.spot == "last sentence")
    blind = SegmentEngine(lambda _: -3.0)
    assert (await judged(Pipeline(blind), 0, made))[0].miss == "the defect stays"
    eager = SegmentEngine(lambda text: 3.0 if text in (made.defect, "That is all.") else -3.0)
    result, _ = await judged(Pipeline(eager), 0, made)
    assert (result.found, result.miss) == (True, "another segment is flagged, too")


def test_each_answer_is_used_once() -> None:
    chosen = drawn(COMPLETIONS, 10, seed=1)
    assert len({made.repaired for made in chosen}) == len(chosen) == len(COMPLETIONS)
    assert chosen == drawn(COMPLETIONS, 10, seed=1)


def test_the_table_counts_what_was_found() -> None:
    results = [
        Judged(0, "numbered", "an item", "insult", True, True, "", Status.CORRECTED, None),
        Judged(1, "numbered", "an item", "insult", True, False, "the defect stays", Status.FAILED, "gate_x"),
        Judged(2, "numbered", "an item", "insult", False, False, "the defect stays", Status.UNCHANGED, None),
    ]
    text = table(results, [Untouched(Status.UNCHANGED, True, True), Untouched(Status.SKIPPED, False, False)])
    assert "2/3 = 66.7 %" in text
    assert "1/2 = 50.0 %" in text
    assert "| the defect stays | 1 |" in text
    assert "identical 1/1" in text
