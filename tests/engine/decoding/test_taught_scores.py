"""Corrections with taught heads: the same scores however an answer is read, and no head judges another request."""

from __future__ import annotations

import random
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.engine.api import AlignRequest, ExchangeRows, ExchangeText, RowsRequest, RowsResponse
from aligner_proxy.engine.decoding import rows as reading_rows
from aligner_proxy.engine.decoding.aligner import Aligner, build_frame, divide_answer
from aligner_proxy.engine.decoding.incremental import PartialAnswer
from aligner_proxy.engine.decoding.rows import read_answer_rows
from aligner_proxy.engine.loop import Loop, correct_alone
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.model.teaching_space import TeachingSpace
from aligner_proxy.engine.scheduling.scheduler import Job
from aligner_proxy.engine.scheduling.sequence import TokenSequence
from aligner_proxy.engine.taught_head import FurtherNet
from aligner_proxy.errors import AnswerTooLong, CorrectionError, HeadRefused, HeadsUnavailable, UnknownHead
from aligner_proxy.text import structure
from aligner_proxy.types import Correction, Turn, Verify, score_whole_answer
from tests.engine.decoding.test_incremental import cut, make_reading_job
from tests.engine.test_loop import aligner, together
from tests.support import tiny
from tests.support.sampling import examples
from tests.support.taught import OBJECTIVE, WIDTH, head, weights

WISHES = ("Brevity: no more than needed", OBJECTIVE, "Kindness: be kind")
LONG = " ".join(tiny.CORPUS * 3)
WAYS = list(zip((Verify.FLAGGED, Verify.ALWAYS) * 3, (-1e9, 0.0, 1e9) * 2, strict=True))
"""How answers are judged, and with how much caution: each with each, and at first each once."""
SMALL = 600
"""A window that holds the objectives and a few sentences."""


def request_with(answer: str = tiny.ANSWER, *, heads: tuple[str, ...] = (), **more: Any) -> AlignRequest:
    """A request with three objectives, of which the second is the one that heads are for."""
    return tiny.request(answer).model_copy(update={"objectives": WISHES, "heads": heads, **more})


def second(loaded: Aligner, **about: Any) -> tuple[str, ...]:
    """Heads of a request: a new one for the second objective, kept by the engine."""
    return ("", loaded.store_head(head(**about)), "")


def scores(correction: Correction) -> list[float]:
    return [segment.score for segment in correction.segments if segment.score is not None]


def test_a_head_that_adds_nothing_changes_not_one_bit() -> None:
    for caution in (-0.3, 0.0, 0.3, 1e9):
        for verify in Verify:
            plain = correct_alone(aligner(), request_with(caution=caution, verify=verify))
            loaded = aligner()  # another cache: a prompt that is read again is read in another way
            taught = correct_alone(loaded, request_with(caution=caution, verify=verify, heads=second(loaded)))
            assert taught.segments == plain.segments
            assert taught.text == plain.text


def test_a_head_decides_about_its_objective_and_about_no_other() -> None:
    loaded = aligner()
    # with a threshold that nothing reaches, no segment is read twice
    plain = correct_alone(loaded, request_with(score_only=True, caution=1e9))
    loud = correct_alone(loaded, request_with(score_only=True, heads=second(loaded, prior=0.0, bias=50.0)))
    assert scores(loud) == [50.0] * 4
    assert [segment.objective for segment in loud.segments] == [1] * 4
    assert all(segment.flagged for segment in loud.segments)
    heads = second(loaded, prior=0.0, bias=-50.0)
    quiet = correct_alone(loaded, request_with(score_only=True, caution=1e9, heads=heads))
    for left, before in zip(quiet.segments, plain.segments, strict=True):
        assert left.objective in (0, 2)
        if before.objective != 1:
            assert left.objective == before.objective
            assert left.score == pytest.approx(before.score, abs=1e-4)


def test_what_is_flagged_by_a_head_is_written_anew_and_judged_by_it_again() -> None:
    loaded = aligner()
    kept = correct_alone(aligner(), request_with(caution=0.0, heads=("",) * 3))
    assert kept.segments == correct_alone(aligner(), request_with(caution=0.0)).segments
    loud = correct_alone(loaded, request_with(heads=second(loaded, prior=0.0, bias=50.0)))
    assert loud.text == "", "whatever is written in place of a flagged segment is flagged, too, and left out"


def read_rows(loaded: Aligner, answer: str = tiny.ANSWER, **more: Any) -> RowsResponse:
    exchange = ExchangeText(turns=(Turn("user", "When does the harbour open?"),), answer=answer)
    request = RowsRequest(request_id="rows", exchanges=(exchange,), objectives=WISHES, **more)
    return run_rows(loaded, request)


def test_rows_come_with_the_teaching_space_of_their_aligner_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = aligner()
    assert read_rows(loaded, with_space=True).space == ""  # it has none
    detector = loaded.runner.heads[loaded.adapter].detector
    assert detector is not None
    own_space = TeachingSpace(torch.eye(3, detector.row_width), row_factor=0.25, threshold=1.5)
    for name, tensor in own_space.to_tensors().items():
        monkeypatch.setattr(detector, name, tensor)  # tests share the detector
    assert read_rows(loaded).space == ""
    data = b64decode(read_rows(loaded, with_space=True).space)
    assert data == own_space.to_bytes()
    space = TeachingSpace.from_bytes(data, detector.row_width)
    assert torch.equal(space.projection, own_space.projection)
    assert (space.row_factor, space.threshold) == (0.25, 1.5)


def run_rows(loaded: Aligner, request: RowsRequest) -> RowsResponse:
    ends: list[Any] = []
    loop = Loop(loaded)
    chosen = loaded.find_aligner(request.aligner)
    sequence = TokenSequence(chosen.adapter)
    loop.add(Job("rows", read_answer_rows(chosen, request, sequence), ends.append, sequence=sequence))
    while not ends:
        loop.step()
    loop.scheduler.check()
    if isinstance(ends[0], CorrectionError):
        raise ends[0]
    assert isinstance(ends[0], RowsResponse)
    return ends[0]


def numbers(response: RowsResponse, at: int = 0) -> torch.Tensor:
    """The rows of one answer."""
    flat = torch.frombuffer(bytearray(b64decode(response.exchanges[at].rows)), dtype=torch.float16)
    return flat.reshape(-1, response.width).float()


@pytest.mark.parametrize("answer", [tiny.ANSWER, LONG])
def test_the_score_of_a_head_is_that_of_the_rows_it_is_taught_on(answer: str) -> None:
    """Prior times the general score, and the row times the weight, also where an answer is read in parts."""
    loaded = replace(aligner(), info=replace(aligner().info, window=SMALL))
    taught = head(prior=0.5, bias=3.0, seed=11)
    read = read_rows(loaded, answer)
    general = [row[1] for row in read.exchanges[0].scores]
    expected = [
        0.5 * score + 3.0 + float(row @ torch.tensor(weights(taught)))
        for score, row in zip(general, numbers(read), strict=True)
    ]
    request = request_with(answer, score_only=True, caution=1e9, heads=("", loaded.store_head(taught), ""))
    assert (len(divide_answer(loaded, build_frame(loaded, request), request).parts) > 1) == (answer == LONG)
    judged = correct_alone(loaded, request)
    assert len(judged.segments) == len(read.exchanges[0].segments)
    others = [max(row[0], row[2]) for row in read.exchanges[0].scores]
    for segment, own, rest in zip(judged.segments, expected, others, strict=True):
        # cells are judged beside their row, which they can only raise
        assert segment.score == pytest.approx(max(own, rest), abs=2e-3) or (
            "|" in segment.text and segment.score > max(own, rest)
        )


@pytest.mark.some(1)
@pytest.mark.parametrize("answer", [tiny.ANSWER, LONG])
def test_the_score_of_an_answer_is_the_mean_of_what_its_segments_say(answer: str) -> None:
    """However it is judged: what is flagged is read again, but says the same of the answer; also in parts."""
    loaded = replace(aligner(), info=replace(aligner().info, window=SMALL))
    telling = head(seed=11, evidence=FurtherNet(0.5))
    net = torch.tensor(weights(telling)[WIDTH:])
    expected = [0.5 + float(row @ net) for row in numbers(read_rows(loaded, answer))]
    kept = loaded.store_head(telling)
    for verify, caution in WAYS if answer == tiny.ANSWER else WAYS[: examples(len(WAYS), 3)]:
        request = request_with(answer, caution=caution, verify=verify, heads=("", kept, ""), deadline_s=600)
        done = correct_alone(loaded, request)
        evidence = [segment.evidence for segment in done.segments]
        assert [one.nats for one in evidence if one] == pytest.approx(expected, abs=2e-3)
        assert score_whole_answer(done.segments) == (pytest.approx(sum(expected) / len(expected), abs=1e-3), 1, 0.0)


def test_the_end_of_an_answer_says_nothing_of_the_whole() -> None:
    """It is judged by what is missing, and not counted in the mean; also where the answer was read as it grew."""
    loaded = replace(aligner(), info=replace(aligner().info, ends=True))
    heads = second(loaded, seed=11, evidence=FurtherNet(0.5))
    shut = correct_alone(loaded, request_with(heads=heads, caution=1e9, open_ended=False))
    whole = score_whole_answer(shut.segments)
    request = request_with(heads=heads, caution=1e9)
    for done in (correct_alone(loaded, request), as_written(loaded, request, random.Random(3))):
        assert [segment.text for segment in done.segments] == [*(segment.text for segment in shut.segments), ""]
        assert done.segments[-1].evidence is None
        assert whole
        assert score_whole_answer(done.segments) == (pytest.approx(whole.score, abs=1e-4), 1, 0.0)


def test_without_evidence_an_answer_has_no_score_of_its_own() -> None:
    loaded = aligner()
    for heads in ((), second(loaded, seed=5)):
        done = correct_alone(loaded, request_with(heads=heads))
        assert [segment.evidence for segment in done.segments] == [None] * 4
        assert score_whole_answer(done.segments) is None


def test_evidence_changes_neither_scores_nor_text() -> None:
    silent = head(prior=0.5, bias=0.25, seed=5)
    telling = replace(silent, weight=silent.weight + head(seed=6, hidden=2).weight, evidence=FurtherNet(3.0, hidden=2))
    for caution in (-0.3, 0.0, 1e9):
        loaded, other = aligner(), aligner()
        plain = correct_alone(loaded, request_with(caution=caution, heads=("", loaded.store_head(silent), "")))
        done = correct_alone(other, request_with(caution=caution, heads=("", other.store_head(telling), "")))
        assert done.text == plain.text
        assert tuple(replace(segment, evidence=None) for segment in done.segments) == plain.segments


def test_rows_are_of_the_segments_and_their_general_scores_those_of_a_correction() -> None:
    read = read_rows(aligner())
    assert (read.aligner, read.width) == ("hash0", WIDTH)
    texts = [tiny.ANSWER[start:end] for start, end in read.exchanges[0].segments]
    assert texts == [segment.text for segment in structure.split(tiny.ANSWER)]
    judged = correct_alone(aligner(), request_with(score_only=True, caution=1e9))
    assert [max(row) for row in read.exchanges[0].scores] == scores(judged)


def test_rows_do_not_depend_on_what_was_read_before_them() -> None:
    loaded = aligner()
    turns = (Turn("user", "When does the harbour open?"),)
    texts = [tiny.ANSWER, tiny.CORPUS[5], tiny.ANSWER, "  ", LONG[:300]]
    request = RowsRequest(
        request_id="rows",
        exchanges=tuple(ExchangeText(turns=turns, answer=text) for text in texts),
        objectives=WISHES,
    )
    together_read = run_rows(loaded, request)
    for at, text in enumerate(texts):
        single = read_rows(aligner(), text)
        assert together_read.exchanges[at].segments == single.exchanges[0].segments
        if text.strip():
            torch.testing.assert_close(numbers(together_read, at), numbers(single), atol=2e-3, rtol=2e-3)
    assert together_read.exchanges[3] == ExchangeRows(segments=(), rows="", scores=())


def test_what_prompts_have_in_common_is_read_once() -> None:
    loaded = aligner()
    fed: list[int] = []
    run = loaded.runner.run
    loaded.runner.run = lambda feeds: fed.append(sum(f.stop - f.start for f in feeds)) or run(feeds)  # type: ignore[func-returns-value, method-assign]
    exchange = ExchangeText(turns=(Turn("user", "When does the harbour open?"),), answer=tiny.ANSWER)
    run_rows(loaded, RowsRequest(request_id="rows", exchanges=(exchange,) * 4, objectives=WISHES))
    assert fed[1:] == [1, 1, 1], "the same prompt again needs one token, whose states are there then"


def test_rows_of_too_many_segments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_rows, "MAX_ROWS_BYTES", 3 * 2 * WIDTH)
    with pytest.raises(AnswerTooLong, match="fewer or shorter answers"):
        read_rows(aligner())


def test_without_a_detector_head_nothing_can_be_taught() -> None:
    bare = tiny.aligner(head=False)
    with pytest.raises(HeadsUnavailable, match="tiny has no detector head"):
        read_rows(bare)
    assert correct_alone(bare, request_with(heads=("", "f" * 64, ""))).segments[0].score is None, (
        "and heads are not asked for"
    )
    with pytest.raises(HeadRefused, match="192 numbers, but rows of aligner hash0 have 0"):
        bare.store_head(head())


def test_a_head_that_does_not_fit_is_refused_with_both_sides() -> None:
    loaded = tiny.together()
    with pytest.raises(HeadRefused, match=r"for aligner elsewhere, but this engine serves .*hash0"):
        loaded.store_head(head(aligner="elsewhere"))
    with pytest.raises(HeadRefused, match="192 numbers, but rows of aligner hash0-1 have 128"):
        loaded.store_head(head(aligner="hash0-1"))
    own = loaded.store_head(head(aligner="hash0-1", width=128, prior=0.0, bias=7.0))
    assert (
        scores(correct_alone(loaded, tiny.request(aligner="1", score_only=True).model_copy(update={"heads": (own,)})))
        == [7.0] * 4
    )
    with pytest.raises(HeadRefused, match="is for aligner hash0-1, but the request is for hash0"):
        correct_alone(loaded, tiny.request().model_copy(update={"heads": (own,)}))
    with pytest.raises(UnknownHead, match="no taught head ffffffff"):
        correct_alone(loaded, tiny.request().model_copy(update={"heads": ("f" * 64,)}))


def test_two_tenants_with_other_heads_for_one_objective_in_one_batch_do_not_mix() -> None:
    """A security property: what one tenant teaches decides about no answer of another."""
    loaded = aligner()
    loud = second(loaded, prior=0.0, bias=50.0)
    quiet = second(loaded, prior=0.0, bias=-50.0)
    rng = random.Random(1)
    kinds = ["loud", "quiet", "none"] * 4
    requests = []
    for number, kind in enumerate(kinds):
        heads = {"loud": loud, "quiet": quiet, "none": ()}[kind]
        more = {"request_id": str(number), "tenant": kind, "heads": heads, "score_only": True, "deadline_s": 600}
        # The same answer for all, so that only the head can make a difference; the same prompt shares its blocks.
        requests.append(request_with(tiny.ANSWER, **more))
    expected = correct_alone(aligner(), request_with(score_only=True))
    for budget, most in ((4096, 12), (64, 5), (24, 3)):
        order = rng.sample(range(len(kinds)), len(kinds))
        batch = together(loaded, [requests[at] for at in order], budget, most)
        for at, done in zip(order, batch, strict=True):
            if kinds[at] == "loud":
                assert scores(done) == [50.0] * 4
            elif kinds[at] == "quiet":
                assert all(segment.objective != 1 for segment in done.segments)
            else:
                assert scores(done) == pytest.approx(scores(expected), abs=1e-4)


@pytest.mark.timeout(600)
@settings(max_examples=examples(8, 1), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_scores_are_the_same_alone_in_company_in_chunks_and_while_the_answer_is_written(seed: int) -> None:
    rng = random.Random(seed)
    loaded = replace(aligner(seed % 3), info=replace(aligner(seed % 3).info, window=rng.choice((SMALL, 1024))))
    requests = []
    for number in range(4):
        answer = " ".join(rng.choices(tiny.CORPUS, k=rng.randrange(1, 9)))
        about: Any = {"prior": rng.random(), "bias": 0.5, "evidence": FurtherNet(-0.5, hidden=2)}
        kept = loaded.store_head(head(aligner=f"hash{seed % 3}", seed=rng.randrange(99), **about))
        heads = rng.choice((("", kept, ""), ("", kept, ""), ()))
        caution = rng.choice((0.0, 1e9))
        requests.append(request_with(answer, request_id=str(number), heads=heads, caution=caution, deadline_s=600))
    expected = [correct_alone(loaded, request) for request in requests]
    batched = together(loaded, requests, rng.randrange(24, 300), rng.randrange(2, 5))
    written = [as_written(loaded, request, rng) for request in requests]
    for request, wanted, batch, grown in zip(requests, expected, batched, written, strict=True):
        for got in (batch, grown):
            assert got.text == wanted.text
            assert scores(got) == pytest.approx(scores(wanted), abs=1e-4)
            assert [s.objective for s in got.segments] == [s.objective for s in wanted.segments]
            whole = score_whole_answer(got.segments)
            assert (whole is None) == (not request.heads)
            assert whole == pytest.approx(score_whole_answer(wanted.segments), abs=1e-4)


def as_written(loaded: Aligner, request: AlignRequest, rng: random.Random) -> Correction:
    """The correction of an answer that was read while it was written."""
    ends: list[Any] = []
    begun = request.model_copy(update={"answer": ""})
    growing, sequence = PartialAnswer(begun), TokenSequence()
    loop = Loop(loaded)
    loop.add(make_reading_job(loaded, growing, sequence, ends))
    for chunk in cut(rng, request.answer):
        growing.body.add(chunk)
        while loop.busy and not ends:
            loop.step()
    growing.request = request
    growing.complete = True
    while not ends:
        loop.step()
    assert isinstance(ends[0], Correction)
    return ends[0]


def test_scores_read_with_one_head_are_not_those_of_another() -> None:
    """A session begun under one head and finished under another is scored anew."""
    loaded = aligner()
    loud, quiet = (second(loaded, prior=0.0, bias=bias) for bias in (50.0, -50.0))
    ends: list[Any] = []
    growing, sequence = PartialAnswer(request_with("", heads=loud, score_only=True)), TokenSequence()
    loop = Loop(loaded)
    loop.add(make_reading_job(loaded, growing, sequence, ends))
    growing.body.add(tiny.ANSWER * 3)
    while loop.busy:
        loop.step()
    growing.request = request_with(tiny.ANSWER * 3, heads=quiet, score_only=True)
    growing.complete = True
    while not ends:
        loop.step()
    assert all(segment.objective != 1 for segment in ends[0].segments)


def test_heads_share_the_blocks_of_their_prompts() -> None:
    """What the model computes does not depend on heads: the same prompt under another head reads one block at most."""
    loaded = aligner()
    correct_alone(loaded, request_with(score_only=True, caution=1e9))
    fed: list[int] = []
    run = loaded.runner.run
    loaded.runner.run = lambda feeds: fed.append(sum(f.stop - f.start for f in feeds)) or run(feeds)  # type: ignore[func-returns-value, method-assign]
    correct_alone(loaded, request_with(score_only=True, caution=1e9))
    correct_alone(loaded, request_with(score_only=True, caution=1e9, heads=second(loaded, seed=5)))
    assert fed[1] == fed[0] < 40


def test_heads_that_an_aligner_came_with_judge_objectives_of_exactly_their_text() -> None:
    loaded = aligner()
    loud = head(aligner="", prior=0.0, bias=50.0)
    runner = ModelRunner(tiny.model(), loaded.runner.tokenizer, loaded.runner.heads[0].detector, taught_heads=(loud,))
    assert tuple(runner.heads[0].taught_heads) == (OBJECTIVE,)
    with_loud = replace(loaded, runner=runner)
    assert scores(correct_alone(with_loud, tiny.request(score_only=True))) == [50.0] * 4
    other = tiny.request(score_only=True).model_copy(update={"objectives": (OBJECTIVE + ".",)})
    assert scores(correct_alone(with_loud, other)) == pytest.approx(scores(correct_alone(loaded, other)), abs=1e-4)
    own = with_loud.store_head(head(prior=0.0, bias=-3.0))
    named = tiny.request(score_only=True).model_copy(update={"heads": (own,)})
    assert scores(correct_alone(with_loud, named)) == [-3.0] * 4
