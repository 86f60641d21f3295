"""Steps over real forwards of a tiny model: company, chunks, shared blocks and preemption change nobody's result."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.correct import correct
from aligner_proxy.engine.loop import Loop, _charge_time, correct_alone
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.scheduler import Feed, Job, JobClient
from aligner_proxy.engine.scheduling.sequence import TokenSequence
from aligner_proxy.errors import CorrectionError, EngineFault
from aligner_proxy.types import Correction, Turn, Verify
from tests.engine.cases import FULL
from tests.support import tiny
from tests.support.sampling import examples


def aligner(seed: int = 0, *, tokens: int = 4096) -> Aligner:
    """A tiny aligner with a KV cache of its own."""
    made = tiny.runner(seed)
    head = made.heads[0].detector
    return replace(tiny.aligner(seed), runner=ModelRunner(tiny.model(seed), made.tokenizer, head, tokens))


def asked(rng: random.Random, number: int) -> AlignRequest:
    """A request of random length, objectives, caution and way of verifying."""
    answer = " ".join(rng.choices(tiny.CORPUS, k=rng.randrange(1, 5)))
    objectives = tuple(f"Wish {rng.randrange(3)}: the response should be short" for _ in range(rng.randrange(1, 3)))
    return AlignRequest(
        request_id=str(number),
        turns=(Turn("user", rng.choice(tiny.CORPUS)),),
        answer=answer,
        objectives=objectives,
        caution=rng.choice((-0.3, 0.0, 0.3)),
        verify=rng.choice((Verify.FLAGGED, Verify.FLAGGED, Verify.ALWAYS)),
        aligner=rng.choice(("default", "1", "2", "3")),
        deadline_s=600,
    )


def together(made: Aligner, requests: list[AlignRequest], budget: int, most: int) -> list[Any]:
    """All of them in one loop."""
    loop = Loop(made, budget=budget, most=most)
    ends: dict[str, Correction | CorrectionError] = {}
    for request in requests:
        chosen = made.find_aligner(request.aligner)
        sequence = TokenSequence(chosen.adapter)
        name = request.request_id

        def finish(end: Correction | CorrectionError, name: str = name) -> None:
            ends[name] = end

        loop.add(
            Job(name, correct(chosen, request, sequence), finish, JobClient(time.monotonic() + 600), sequence=sequence)
        )
    while loop.busy:
        loop.step()
    loop.scheduler.check()
    return [ends[request.request_id] for request in requests]


@settings(max_examples=40 if FULL else examples(8), deadline=None)
@given(seed=st.integers(0, 10**6), budget=st.integers(24, 400), most=st.integers(2, 8), tokens=st.integers(900, 4096))
def test_company_changes_nothing(seed: int, budget: int, most: int, tokens: int) -> None:
    rng = random.Random(seed)
    requests = [asked(rng, i) for i in range(examples(6, 4))]
    reference = tiny.together(seed % 3)
    expected = [correct_alone(reference, request) for request in requests]
    for got, wanted in zip(
        together(tiny.together(seed % 3, tokens=tokens), requests, budget, most), expected, strict=True
    ):
        assert got.text == wanted.text
        assert [s.flagged for s in got.segments] == [s.flagged for s in wanted.segments]
        for one, other in zip(got.segments, wanted.segments, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)


def test_a_second_request_of_the_same_route_reads_only_what_is_new() -> None:
    made = aligner()
    first = correct_alone(made, tiny.request(caution=1e9))
    other = tiny.request("Bring a coat. The ferry leaves at seven.", caution=1e9)
    expected = correct_alone(aligner(), other)
    assert made.runner.pool.count_uses().cached > 3
    fed: list[int] = []
    run = made.runner.run
    made.runner.run = lambda feeds: fed.extend(f.stop - f.start for f in feeds) or run(feeds)  # type: ignore[assignment,method-assign]
    got = correct_alone(made, other)
    assert sum(fed) < expected.prompt_tokens - 32
    assert [s.score for s in got.segments] == pytest.approx([s.score for s in expected.segments], abs=1e-4)
    assert first.text == tiny.ANSWER


def fed_for(made: Aligner, request: AlignRequest) -> int:
    """Tokens that go through the model for one request."""
    fed = list[int]()
    run = made.runner.run
    made.runner.run = lambda feeds: fed.extend(f.stop - f.start for f in feeds) or run(feeds)  # type: ignore[assignment,method-assign]
    correct_alone(made, request)
    made.runner.run = run  # type: ignore[method-assign]
    return sum(fed)


def test_the_time_of_a_correction_does_not_tell_what_another_tenant_has_asked() -> None:
    """What is fed is what takes time: as much for another's words, exact to the letter, as for one's own."""
    made = aligner()
    question = Turn("user", " ".join(tiny.CORPUS))
    theirs = tiny.request(caution=1e9).model_copy(update={"turns": (question,), "tenant": "one", "common": 1})
    first = fed_for(made, theirs)
    again = fed_for(made, theirs)
    guessed = fed_for(made, theirs.model_copy(update={"tenant": "two"}))
    stranger = Turn("user", " ".join(reversed(tiny.CORPUS)))
    new = fed_for(made, theirs.model_copy(update={"tenant": "three", "turns": (stranger,)}))
    assert again < first / 2, "a tenant's own conversation is known"
    assert abs(guessed - new) <= 4, "the words differ a little in tokens"
    assert guessed < first, "the template and the operator's objectives are shared"


@pytest.mark.parametrize("common", [0, 1])
def test_an_objective_of_a_request_is_shared_with_nobody(common: int) -> None:
    made = aligner()
    wish = "Wish: " + " ".join(tiny.CORPUS[:3])
    request = tiny.request(caution=1e9).model_copy(update={"objectives": (wish,), "common": common, "tenant": "one"})
    first = fed_for(made, request)
    other = fed_for(made, request.model_copy(update={"tenant": "two"}))
    assert (other > first / 2) == (common == 0), (first, other)


def test_engine_time_is_shared_by_tokens() -> None:
    jobs = [Job(str(i), iter(()), print) for i in range(2)]  # type: ignore[arg-type]
    for seconds in (1.0, 3.0):
        _charge_time([Feed(jobs[0], 10, 13), Feed(jobs[1], 0, 1)], seconds)
    assert [job.sequence.spent_s for job in jobs] == [3.0, 1.0]


def test_one_that_fails_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = aligner()
    run = made.runner.run

    def broken(feeds: Any) -> list[list[int]]:
        if any(feed.job.name == "1" for feed in feeds):
            raise RuntimeError("no more memory for the harbour")
        return run(feeds)

    monkeypatch.setattr(made.runner, "run", broken)
    requests = [tiny.request().model_copy(update={"request_id": str(i)}) for i in range(3)]
    ends = together(made, requests, 1024, 8)
    assert isinstance(ends[1], EngineFault)
    assert "harbour" not in str(ends[1])
    assert ends[0].text == ends[2].text == correct_alone(aligner(), requests[0]).text


def test_one_whose_scores_fail_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = aligner()
    scores = made.runner.score_segments

    def broken(feed: Any, spans: Any) -> Any:
        if feed.job.name == "1":
            raise RuntimeError("no more memory for the harbour")
        return scores(feed, spans)

    monkeypatch.setattr(made.runner, "score_segments", broken)
    requests = [tiny.request().model_copy(update={"request_id": str(i)}) for i in range(3)]
    ends = together(made, requests, 1024, 8)
    assert isinstance(ends[1], EngineFault)
    assert ends[0].text == ends[2].text == correct_alone(aligner(), requests[0]).text


def test_a_lost_block_is_told_in_an_idle_moment(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(aligner())
    assert loop.is_idle()
    assert loop.scheduler.totals.unbalanced == 0
    loop.scheduler.pool.take()
    assert loop.is_idle()
    assert loop.scheduler.totals.unbalanced == 1
    assert "blocks are miscounted" in caplog.text


def test_the_forward_of_many_is_the_forward_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden states of a step with prompts and decoding sequences, beside the library's own forward of each."""
    made = aligner()
    runner = made.runner
    model = made.runner._model
    seen: list[torch.Tensor] = []
    choose = runner._choose_tokens
    monkeypatch.setattr(
        runner, "_choose_tokens", lambda hidden, feeds: seen.append(hidden.clone()) or choose(hidden, feeds)
    )
    loop = Loop(made, budget=90)
    for i in range(5):
        sequence = TokenSequence()
        request = asked(random.Random(i), i).model_copy(update={"aligner": "default"})
        loop.add(Job(str(i), correct(made, request, sequence), lambda _: None, sequence=sequence))
    for _ in range(30):
        feeds = loop.scheduler.schedule(0.0)
        if not feeds:
            break
        chosen = runner.run(feeds)
        first = 0
        for feed in feeds:
            ids = torch.tensor([feed.job.sequence.ids[: feed.stop]])
            with torch.inference_mode():
                whole = model.base_model(ids, use_cache=False).last_hidden_state[0]
            last = first + feed.stop - feed.start
            torch.testing.assert_close(seen[-1][first:last], whole[feed.start :], atol=1e-4, rtol=1e-4)
            first = last
        for feed, tokens in zip(feeds, chosen, strict=True):
            loop._postprocess(feed, tokens)
