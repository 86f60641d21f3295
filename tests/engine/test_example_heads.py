"""Heads of example sentences: they tell such sentences apart, are remembered, and change nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count

import pytest

from aligner_proxy.engine.api import AlignRequest, RowsRequest, RowsResponse
from aligner_proxy.engine.decisions import OBJECTIVE_CURVE
from aligner_proxy.engine.example_heads import ExampleHeads, ExampleSentences, _solve_equations
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import HeadsUnavailable
from tests.support import tiny
from tests.support.scripted import ScriptedEngine

KIND = "Kindness: the response should never insult the reader"
EXAMPLES = ExampleSentences(
    ("You are a fool.", "What a stupid question.", "Only a donkey would ask."),
    ("The fool is a card.", "It was a stupid mistake of mine.", "A donkey eats hay."),
)


class CountingEngine(LocalEngine):
    """Counts what is read for heads."""

    reads = 0

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Count, then read."""
        self.reads += 1
        return await super().rows(request)


@pytest.fixture
async def engine() -> AsyncIterator[CountingEngine]:
    local = CountingEngine(tiny.aligner)
    await local.start()
    yield local
    await local.aclose()


def request(answer: str, objective: str = KIND, tenant: str = "acme") -> AlignRequest:
    return AlignRequest(
        request_id="r", tenant=tenant, turns=(), answer=answer, objectives=(objective,), score_only=True, deadline_s=60
    )


async def score(engine: LocalEngine, asked: AlignRequest) -> float:
    [segment] = [segment for segment in (await engine.align(asked)).segments if segment.text]
    assert segment.score is not None
    return segment.score


async def test_a_head_tells_its_examples_apart(engine: CountingEngine) -> None:
    heads = ExampleHeads()
    apart: list[float] = []
    for text in EXAMPLES.texts:
        plain = request(text)
        taught = await heads.add_head(engine, plain, EXAMPLES, OBJECTIVE_CURVE)
        assert plain == taught.model_copy(update={"heads": ()})
        apart.append(await score(engine, taught) - await score(engine, plain))
    count = len(EXAMPLES.against)
    assert min(apart[:count]) > 0 > max(apart[count:]), "an example moved the wrong way"


async def test_a_head_is_made_once_for_each_tenant_objective_and_examples(engine: CountingEngine) -> None:
    heads = ExampleHeads()
    other = ExampleSentences(EXAMPLES.against, EXAMPLES.fine[::-1])
    wrong = []
    for asked, examples, reads in (
        (request("A text."), EXAMPLES, 1),
        (request("Another text."), EXAMPLES, 1),
        (request("A text.", tenant="umbrella"), EXAMPLES, 2),
        (request("A text.", objective="Calm: the response should not hurry"), EXAMPLES, 3),
        (request("A text."), other, 4),
        (request("A text."), EXAMPLES, 4),
    ):
        await heads.add_head(engine, asked, examples, OBJECTIVE_CURVE)
        if engine.reads != reads:
            wrong.append((asked.answer, engine.reads, reads))
    assert not wrong


async def test_an_engine_that_was_started_anew_gets_the_head_again() -> None:
    heads = ExampleHeads()
    scores = []
    for _ in range(2):
        local = CountingEngine(tiny.aligner)
        await local.start()
        taught = await heads.add_head(local, request("What a fool."), EXAMPLES, OBJECTIVE_CURVE)
        scores.append((await score(local, taught), local.reads))
        await local.aclose()
    assert scores[0][0] == pytest.approx(scores[1][0])
    assert [reads for _, reads in scores] == [1, 0]


async def test_an_engine_without_heads_is_an_error() -> None:
    without = ScriptedEngine()
    without.about = replace(without.about, has_head=False)
    with pytest.raises(HeadsUnavailable):
        await ExampleHeads().add_head(without, request("A text."), EXAMPLES, OBJECTIVE_CURVE)


async def test_requests_at_once_get_the_same_head(engine: CountingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy engine, which reads the same examples in other batches, each request gets slightly other scores."""
    read_rows = engine.rows
    shifts = count()

    async def read_slightly_other_rows(request: RowsRequest) -> RowsResponse:
        response = await read_rows(request)
        first, *others = response.exchanges
        shift = next(shifts)
        changed = first.model_copy(update={"scores": tuple((score + shift,) for (score,) in first.scores)})
        return response.model_copy(update={"exchanges": (changed, *others)})

    monkeypatch.setattr(engine, "rows", read_slightly_other_rows)
    heads = ExampleHeads()
    asked = [heads.add_head(engine, request(f"Text {number}."), EXAMPLES, OBJECTIVE_CURVE) for number in range(3)]
    assert len({taught.heads for taught in await asyncio.gather(*asked)}) == 1


def test_solve_finds_the_solution_whatever_the_order() -> None:
    matrix = [[0.0, 2.0, 1.0], [1.0, -1.0, 0.0], [3.0, 0.5, -2.0]]
    solution = [1.5, -2.0, 0.25]
    right = [sum(a * x for a, x in zip(row, solution, strict=True)) for row in matrix]
    assert _solve_equations([[*row] for row in matrix], right) == pytest.approx(solution)
