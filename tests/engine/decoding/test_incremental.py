"""Answers that are read while they are written: any cutting gives what the whole gives, and only the tail is left."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.engine.api import Span
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.incremental import (
    ENOUGH_CHARS,
    ENOUGH_CHARS_ALONE,
    PartialAnswer,
    PendingReplacement,
    read_growing_answer,
)
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.loop import Loop, correct_alone
from aligner_proxy.engine.scheduling.scheduler import Job, JobClient
from aligner_proxy.engine.scheduling.sequence import TokenSequence
from aligner_proxy.engine.taught_head import FurtherNet
from aligner_proxy.errors import EngineFault, EngineUnavailable
from aligner_proxy.text import structure
from aligner_proxy.types import Correction, Verify, score_whole_answer
from tests.engine.test_loop import aligner
from tests.support import tiny
from tests.support.sampling import examples
from tests.support.taught import head

PIECES = [
    *tiny.CORPUS,
    " | Answer: x. ",
    "\u00e9\U0001f600! ",
    "  \n",
    "```\ncode\n```\n",
    "\u4f60\u597d\u3002\u518d\u89c1\uff01",
    "## Question: what? ",
    "Y\u200bou \u0430re an \u0456d\u0456ot. ",
    "i d i o t 1d10t! ",
    "```\nYou are kind.\n```\n",
    "\u200b\u200b\n",
    "- item\n",
    "| Two | you are a fool | <b>ten times</b> |\n",
    "it goes on and you do not know where it ends so you wait and wait for it " * 4,
]


UNEDITED: tuple[dict[str, Any], ...] = ({"caution": 1e9}, {"caution": 1e9, "verify": Verify.ALWAYS})


def cut(rng: random.Random, text: str) -> list[str]:
    """The text in chunks of any size."""
    places = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def make_reading_job(loaded: Aligner, growing: PartialAnswer, sequence: TokenSequence, ends: list[Any]) -> Job:
    """What reads an answer while it grows, and puts its end into `ends`."""
    work = read_growing_answer(loaded, growing, sequence)
    return Job("r", work, ends.append, JobClient(has_new_text=growing.waits), sequence=sequence)


def read_in(made: Any, chunks: list[str], **wishes: Any) -> tuple[Correction, list[int], list[Any]]:
    """A step after each chunk: the correction, tokens fed before and after the end, verdicts on the way."""
    ends: list[Any] = []
    request = tiny.request("", **wishes)
    growing, sequence = PartialAnswer(request), TokenSequence()
    loop = Loop(made)
    fed = [0, 0]
    told = []
    run = made.runner.run

    def counting(feeds: Any) -> Any:
        fed[growing.complete] += sum(feed.stop - feed.start for feed in feeds)
        return run(feeds)

    made.runner.run = counting
    loop.add(make_reading_job(made, growing, sequence, ends))
    for chunk in chunks:
        growing.body.add(chunk)
        while loop.busy and not ends:
            loop.step()
        told.append(growing.verdicts)
    growing.request = request.model_copy(update={"answer": "".join(chunks)})
    growing.complete = True
    while not ends:
        loop.step()
    loop.scheduler.check()
    made.runner.run = run
    return ends[0], fed, told


@settings(max_examples=examples(60, 8), deadline=None)
@given(seed=st.integers(0, 10**6), caution=st.sampled_from((-0.2, 0.0, 0.2, 1e9)), always=st.booleans())
def test_any_cutting_gives_what_the_whole_gives(seed: int, caution: float, always: bool) -> None:
    rng = random.Random(seed)
    answer = "".join(rng.choices(PIECES, k=rng.randrange(1, 9)))
    wishes = {"caution": caution, "verify": Verify.ALWAYS if always else Verify.FLAGGED}
    expected = correct_alone(aligner(seed % 3), tiny.request(answer, **wishes))
    got, _, told = read_in(aligner(seed % 3), cut(rng, answer), **wishes)
    assert got.text == expected.text
    for one, other in zip(got.segments, expected.segments, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
    for verdicts in told:
        for early, final in zip(verdicts, expected.segments, strict=False):
            assert early.text == final.text
            assert early.score == pytest.approx(final.score, abs=1e-4)


@pytest.mark.some(2)
@pytest.mark.parametrize("seed", range(6))
def test_verdicts_on_the_way_say_of_the_answer_what_the_whole_says(seed: int) -> None:
    rng = random.Random(seed)
    answer = "".join(rng.choices(PIECES, k=12))
    made = small(seed % 3)
    kept = made.store_head(head(aligner=f"hash{seed % 3}", seed=seed, evidence=FurtherNet(0.5, hidden=2)))
    expected = correct_alone(made, tiny.request(answer, heads=(kept,)))
    done, _, told = read_in(made, cut(rng, answer), heads=(kept,))
    whole = score_whole_answer(expected.segments)
    assert whole is not None
    assert score_whole_answer(done.segments) == pytest.approx(whole, abs=1e-4)
    for verdicts in told:
        for early, final in zip(verdicts, expected.segments, strict=False):
            assert early.evidence == pytest.approx(final.evidence, abs=1e-4)


def test_after_the_end_only_the_tail_is_read() -> None:
    answer = " ".join(tiny.CORPUS[i] for i in (0, 1, 4, 5, 0, 4))
    chunks = [answer[i : i + 24] for i in range(0, len(answer), 24)]
    got, fed, told = read_in(aligner(), chunks, caution=1e9)
    assert got.text == answer
    assert fed[1] < 0.25 * sum(fed)
    assert len(told[-1]) >= len(structure.split(answer)) - 3


async def test_the_engine_reads_while_others_are_corrected() -> None:
    engine = LocalEngine(aligner)
    await engine.start()
    reading = await engine.read(tiny.request(""))
    others = [asyncio.create_task(engine.align(tiny.request())) for _ in range(3)]
    answer = tiny.ANSWER * 3
    for i in range(0, len(answer), 10):
        verdicts = await reading.feed(answer[i : i + 10])
        await asyncio.sleep(0.002)
    async with asyncio.timeout(20):
        while not verdicts:
            verdicts = await reading.feed("")
            await asyncio.sleep(0.005)
    got = await reading.finish(tiny.request(answer))
    assert got.text == correct_alone(aligner(), tiny.request(answer)).text
    assert len({one.text for one in await asyncio.gather(*others)}) == 1
    await engine.aclose()


async def test_a_reading_that_nobody_wants_any_more_leaves_nothing_behind() -> None:
    engine = LocalEngine(aligner)
    await engine.start()
    reading = await engine.read(tiny.request(""))
    await reading.feed(tiny.ANSWER * 3)
    await reading.aclose()
    assert (await engine.align(tiny.request(caution=1e9))).text == tiny.ANSWER
    with pytest.raises(EngineUnavailable):
        await reading.finish(tiny.request())
    await engine.aclose()


def small(seed: int) -> Aligner:
    """An aligner whose window holds a few sentences."""
    made = aligner(seed)
    return replace(made, info=replace(made.info, window=512))


@settings(max_examples=examples(8), deadline=None)
@given(seed=st.integers(0, 10**6), wishes=st.sampled_from(({"caution": 0.2}, *UNEDITED)))
def test_an_answer_that_grows_past_the_window_gives_what_the_whole_gives(seed: int, wishes: dict[str, Any]) -> None:
    rng = random.Random(seed)
    answer = "".join(rng.choices([*PIECES, "long " * 100, "\u200b" * 40], k=rng.randrange(20, 30)))
    expected = correct_alone(small(seed % 3), tiny.request(answer, deadline_s=600, **wishes))
    got, _, told = read_in(small(seed % 3), cut(rng, answer), deadline_s=600, **wishes)
    assert got.text == expected.text
    for one, other in zip(got.segments, expected.segments, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
    for verdicts in told:
        for early, final in zip(verdicts, expected.segments, strict=False):
            assert early.text == final.text
            assert early.score == pytest.approx(final.score, abs=1e-4)


def long_answer() -> str:
    return " ".join(f"{number}: {text}" for number, text in enumerate(tiny.CORPUS * 4))


def test_of_a_long_answer_only_the_tail_is_left_at_its_end() -> None:
    answer = long_answer()
    chunks = [answer[i : i + 48] for i in range(0, len(answer), 48)]
    got, fed, told = read_in(aligner(), chunks, caution=1e9)
    assert got.text == answer
    assert fed[1] < 0.05 * sum(fed)
    assert len(told[-1]) >= len(structure.split(answer)) - 3


def test_what_is_new_is_tokenised_and_not_all_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the answer takes twice the work, also behind a long question."""
    counts = list[int]()
    encode = tiny.runner().tokenizer._backend.encode
    for times in (1, 2):
        made = aligner()
        seen = [0]

        class Counting:
            def encode(self, text: str, seen: list[int] = seen, **options: Any) -> Any:
                seen[0] += len(text)
                return encode(text, **options)

            def decode(self, ids: list[int], **options: Any) -> Any:
                return tiny.runner().tokenizer._backend.decode(ids, **options)

        monkeypatch.setattr(made.runner.tokenizer, "_backend", Counting())
        answer = long_answer() * times
        chunks = [answer[i : i + 32] for i in range(0, len(answer), 32)]
        read_in(made, chunks, caution=1e9)
        monkeypatch.undo()
        counts.append(seen[0])
        assert seen[0] < 16 * len(answer)
    assert counts[1] < 2.2 * counts[0]


async def test_stretches_of_a_long_answer_are_replaced_part_by_part() -> None:
    """All is flagged, so a stretch goes through several parts."""
    answer = long_answer()[:1000]
    made = tiny.request(answer, caution=-1e9, deadline_s=600)
    engine = LocalEngine(lambda: small(0))
    await engine.start()
    reading = await engine.read(made.model_copy(update={"answer": ""}))
    await reading.feed(answer)
    await reading.end()
    count = len(structure.split(answer))
    verdicts = await reading.wait_for_verdicts(count - 1)
    assert verdicts is not None
    assert len(verdicts) == count
    span = Span(first=2, stop=count, end=len(answer), before=answer[:20], deadline_s=600)
    first = await reading.replace(span)
    assert (await reading.replace(span)).text == first.text
    middle = Span(first=count // 2, stop=count // 2 + 1, end=len(answer) // 2 + 200, before=answer[:900], deadline_s=60)
    assert isinstance((await reading.replace(middle)).text, str)
    await reading.aclose()
    await engine.aclose()


async def test_reading_ahead_is_told_from_what_a_client_waits_for() -> None:
    growing = PartialAnswer(tiny.request(""))
    assert growing.is_read_ahead()
    for name in ("complete", "awaited", "text_ended"):
        setattr(growing, name, True)
        assert not growing.is_read_ahead()
        setattr(growing, name, False)
    growing.replacing.append(PendingReplacement(Span(first=0, stop=1, end=1, before="", deadline_s=1)))
    assert not growing.is_read_ahead()


@pytest.mark.parametrize("seed", range(3))
async def test_a_stretch_is_replaced_as_at_the_end_where_nothing_is_unknown(seed: int) -> None:
    """The answer ends with the segment after the stretch, so both ways have the same prompt."""
    answer = f"{tiny.CORPUS[0]} {tiny.CORPUS[4]} {tiny.CORPUS[5]}"
    pieces = structure.split(answer)
    scores = [s.score or 0.0 for s in correct_alone(aligner(seed), tiny.request(answer, caution=1e9)).segments]
    made = tiny.request(answer, caution=sum(sorted(scores)[-2:]) / 2)
    expected = correct_alone(aligner(seed), made)
    worst = scores.index(max(scores))
    engine = LocalEngine(lambda: aligner(seed))
    await engine.start()
    reading = await engine.read(made.model_copy(update={"answer": ""}))
    for i in range(0, len(answer), 20):
        await reading.feed(answer[i : i + 20])
    early = await reading.wait_for_verdicts(0)
    await reading.end()
    verdicts = await reading.wait_for_verdicts(len(pieces) - 1)
    assert early is not None
    assert verdicts is not None
    assert [v.flagged for v in verdicts] == [n == worst for n in range(len(pieces))]
    for one, other in zip(early, verdicts, strict=False):
        assert one.score == pytest.approx(other.score, abs=1e-4)
    before = answer[: pieces[worst - 1].end] if worst else ""
    span = Span(first=worst, stop=worst + 1, end=len(answer), before=before, deadline_s=60)
    got = await reading.replace(span)
    text = [(p.text, p.gap) for p in pieces]
    text[worst] = (got.text, pieces[worst].gap)
    assert structure.join(text) == expected.text
    assert (await reading.replace(span)).text == got.text
    await reading.aclose()
    with pytest.raises(EngineUnavailable):
        await reading.replace(span)
    await engine.aclose()


@pytest.mark.parametrize("wishes", [{"verify": Verify.ALWAYS}, {}])
async def test_without_verdicts_nobody_waits_for_them(wishes: dict[str, Any]) -> None:
    engine = LocalEngine(lambda: tiny.aligner(head=bool(wishes)))
    await engine.start()
    reading = await engine.read(tiny.request("", **wishes))
    assert await reading.wait_for_verdicts(0) is None
    await engine.aclose()


async def test_a_stretch_that_is_not_there_ends_the_reading() -> None:
    engine = LocalEngine(aligner)
    await engine.start()
    reading = await engine.read(tiny.request(tiny.ANSWER))
    with pytest.raises(EngineFault):
        await reading.replace(Span(first=7, stop=9, end=20, before="", deadline_s=60))
    with pytest.raises(EngineFault):
        await reading.wait_for_verdicts(0)
    await engine.aclose()


async def test_where_nobody_else_wants_the_engine_less_text_wakes_the_reader() -> None:
    engine = LocalEngine(tiny.aligner)
    await engine.start()
    first, second = [await engine.read(tiny.request("")) for _ in range(2)]
    growing = first._answer
    growing.body.add("x" * (ENOUGH_CHARS - 1))
    assert not growing.waits()
    await second.aclose()
    assert growing.waits()
    growing.body.chars_read = ENOUGH_CHARS - ENOUGH_CHARS_ALONE
    assert not growing.waits()
    await first.aclose()
    await engine.aclose()
